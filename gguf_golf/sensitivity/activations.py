"""What is seen of the activations while the undisturbed model runs: E[x^2] on two samples, some inputs, spikes.

A spike in the output of a down projection comes from one weight times one input: a candidate for a super weight
(Yu et al. 2024, "The Super Weight in Large Language Models"). Only ablation tells which of them matter.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_golf.calibrate.collect import Collector
from gguf_golf.calibrate.imatrix import Imatrix
from gguf_golf.runtime.abi import GgmlTensor
from gguf_golf.runtime.tensor import op_name, view
from gguf_golf.sensitivity.layer_inputs import LayerInputs

DOWN_PROJECTION = ".ffn_down.weight"


@dataclass(frozen=True)
class Spike:
    """The largest output of one down projection over the whole text: its row, the input x f32 [k] that caused it.

    `height` is the output in units of the RMS of all outputs of that layer.
    """

    tensor: str
    row: int
    x: NDArray[np.float32]
    height: float


class Observer:
    """An evaluation callback for `Probe.run_base`: even and odd chunks are two disjoint samples."""

    def __init__(self, inputs: LayerInputs) -> None:
        self._samples = tuple(Collector(process_output=True, observe=inputs.observe) for _ in range(2))
        self._spikes: dict[str, Spike] = {}

    def callback(self, chunk: int, pointer: int, ask: bool) -> bool:
        """llama.cpp asks first whether a node is wanted, then hands it over with its result in place."""
        collector = self._samples[chunk % 2]
        wanted = collector.callback(pointer, ask, None)
        if collector.error is not None:
            raise collector.error
        if not ask:
            self._look_for_spike(ctypes.cast(pointer, ctypes.POINTER(GgmlTensor)).contents)
        return wanted

    @property
    def samples(self) -> tuple[Imatrix, Imatrix]:
        """E[x^2] on the even and on the odd chunks."""
        even, odd = (Imatrix(collector.entries) for collector in self._samples)
        return even, odd

    @property
    def spikes(self) -> list[Spike]:
        """The highest output of each down projection, highest first."""
        return sorted(self._spikes.values(), key=lambda spike: -spike.height)

    def _look_for_spike(self, node: Any) -> None:
        name = node.src[0].contents.name.decode("utf-8", "replace")
        if op_name(node.op) != b"MUL_MAT" or not name.endswith(DOWN_PROJECTION):
            return
        y = np.abs(view(node, np.float32)[0, 0])
        token, row = np.unravel_index(int(y.argmax()), y.shape)
        height = float(y[token, row] / (np.sqrt(np.square(y).mean(dtype=np.float64)) or 1.0))
        if name not in self._spikes or height > self._spikes[name].height:
            x = view(node.src[1].contents, np.float32)[0, 0, token].copy()
            self._spikes[name] = Spike(name, int(row), x, height)
