"""What is known of the inputs of a model's matrices, and so which encoding errors matter: its imatrix and Hessians."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gguf_golf.calibrate import imatrix as imatrix_file
from gguf_golf.calibrate.hessian import Hessians
from gguf_golf.calibrate.imatrix import Imatrix
from gguf_golf.encode.feedback import Feedback, factor_hessian
from gguf_golf.errors import InputError
from gguf_golf.formats.types import QuantType


@dataclass(frozen=True)
class Guidance:
    """What an encoder is told about the inputs of one matrix. Either may be None: nothing is known.

    `importance` f32 [k] is E[x^2] of each input channel. `feedback` is the factored Hessian; where there is one,
    TCQ types are encoded with error feedback, and `importance` is not needed.
    """

    importance: NDArray[np.float32] | None = None
    feedback: Feedback | None = None


UNGUIDED = Guidance()
"""Nothing is known: every input channel counts the same."""


class Guide:
    """The guidance for each matrix of a model. Hessians are factored when they are asked for."""

    def __init__(self, imatrix: Imatrix | None = None, hessians: Hessians | None = None) -> None:
        self.imatrix, self.hessians = imatrix, hessians
        self._factored: dict[tuple[str, int, int], Feedback] = {}  # the last two: layers share inputs

    @classmethod
    def open(cls, imatrix: Path | None, hessians: Path | None) -> "Guide":
        """The guide that these files make. Raises InputError and DataError as their readers do."""
        return cls(
            None if imatrix is None else imatrix_file.read(imatrix),
            None if hessians is None else Hessians(hessians),
        )

    def of(self, weight: str, quant_type: QuantType, k: int, expert: int = 0, n_experts: int = 1) -> Guidance:
        """For rows of `k` weights of one expert's matrix (others have one expert) that become `quant_type`.

        Raises InputError if the imatrix or the Hessians have other shapes, as they are of another model then.
        """
        if not quant_type.is_quantized:
            return UNGUIDED
        importance = self.importance(weight, k, n_experts)
        return Guidance(
            None if importance is None else importance[expert],
            self._feedback(weight, quant_type, k, expert, n_experts),
        )

    def importance(self, weight: str, k: int, n_experts: int = 1) -> NDArray[np.float32] | None:
        """E[x^2] per input channel, f32 [n_experts, k]; None where the imatrix says nothing about this weight.

        Embedding tables are looked up, not multiplied, so no imatrix has them, except a head tied to its embedding.
        Raises InputError if the imatrix has another shape.
        """
        if self.imatrix is None or weight not in self.imatrix.entries:
            return None
        importance = self.imatrix.importance(weight)
        if importance.shape != (n_experts, k):
            raise InputError(
                f"the imatrix has {importance.shape} values for {weight}, the model needs {(n_experts, k)}: it was "
                "collected on another model"
            )
        return np.ascontiguousarray(importance, np.float32)

    def without_hessians(self) -> "Guide":
        """The same imatrix alone."""
        return self if self.hessians is None else Guide(self.imatrix)

    def notes(self, chosen: Mapping[str, QuantType]) -> list[str]:
        """What a user should be told: which TCQ matrices are encoded without error feedback although there are
        Hessians, `chosen` being the types of all tensors by name."""
        if self.hessians is None:
            return []
        weights = [name for name, quant_type in chosen.items() if quant_type.tcq]
        notes = []
        if missing := [name for name in weights if name not in self.hessians]:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            notes.append(f"no error feedback for {missing[0]}{more}: not in {self.hessians.path}")
        reached = [self.hessians.reached(name) for name in weights if name in self.hessians]
        if idle := sum(int((~experts).sum()) for experts in reached):
            total = sum(len(experts) for experts in reached if len(experts) > 1)
            notes.append(
                f"no error feedback for {idle} of {total} matrices of experts: the calibration text never chose them"
            )
        return notes

    def _feedback(self, weight: str, quant_type: QuantType, k: int, expert: int, n_experts: int) -> Feedback | None:
        """None for another family of types, a weight without a Hessian, or an expert that calibration never reached."""
        if self.hessians is None or not quant_type.tcq or weight not in self.hessians:
            return None
        if self.hessians.shape(weight) != (n_experts, k):
            raise InputError(
                f"{self.hessians.path} has {self.hessians.shape(weight)} for {weight}, the model needs "
                f"{(n_experts, k)}: it was collected on another model"
            )
        key = (self.hessians.input_of(weight), expert, quant_type.block_size)
        if key not in self._factored:
            hessian = self.hessians.get(weight, expert)
            if hessian is None:
                return None
            self._factored = dict([*self._factored.items()][-1:])
            self._factored[key] = factor_hessian(hessian, quant_type.block_size)
        return self._factored[key]
