"""Super weights: single weights whose loss the whole model notices. Spikes name candidates, ablation confirms them."""

import numpy as np

from gguf_golf.encode import Encoder, Guide
from gguf_golf.formats import quant_types
from gguf_golf.progress import ProgressBar
from gguf_golf.sensitivity import distortion
from gguf_golf.sensitivity.activations import Spike
from gguf_golf.sensitivity.distortion import Rows
from gguf_golf.sensitivity.probe import Probe
from gguf_golf.sensitivity.result import SuperWeight, TensorSensitivity

MAX_CANDIDATES = 8
CONFIRMED_SHARE = 0.05
"""A super weight costs at least this share, when removed, of what coding its whole tensor at 2 bits costs."""


def super_weights(
    spikes: list[Spike], tensors: list[TensorSensitivity], guide: Guide, encoder: Encoder, probe: Probe
) -> list[SuperWeight]:
    """Ablate the weight behind each of the highest spikes; all that were tried, the most harmful first."""
    by_name = {tensor.name: tensor for tensor in tensors}
    tried = []
    for spike in ProgressBar(spikes[:MAX_CANDIDATES], desc="super weights", unit="weight"):
        row = probe.rows(spike.tensor, spike.row, spike.row + 1)
        channel = int(np.abs(row[0] * spike.x).argmax())
        without = row.copy()
        without[0, channel] = 0
        with probe.disturbed(spike.tensor, without, first_row=spike.row):
            kld = probe.kld().ravel()
        tensor = by_name[spike.tensor]
        confirmed = bool(kld.mean() >= CONFIRMED_SHARE * np.mean(tensor.measured[0].kld))
        rows = distortion.Rows(spike.tensor, row, np.zeros(1, np.int64), 1, guide.without_hessians())
        errors, in_slot = _held(tensor, rows, channel, encoder)
        tried.append(
            SuperWeight(
                tensor=spike.tensor,
                row=spike.row,
                channel=channel,
                value=float(row[0, channel]),
                height=spike.height,
                kld=kld.tolist(),
                confirmed=confirmed,
                errors=errors,
                in_slot=in_slot,
            )
        )
    return sorted(tried, key=lambda weight: -float(np.mean(weight.kld)))


def _held(tensor: TensorSensitivity, rows: Rows, channel: int, encoder: Encoder) -> tuple[dict[str, float], list[str]]:
    """How well each type holds one weight of a single row: |w - w'| / |w|, and which hold it in an outlier slot."""
    weight = rows.values[0, channel]
    errors, in_slot = {}, []
    for name in tensor.errors:
        quant_type = quant_types.get(name)
        new = distortion.decoded(rows, quant_type, encoder)[0, channel]
        errors[name] = float(abs(new - weight) / (abs(weight) or 1.0))
        if distortion.slot_holds(rows, quant_type, channel, encoder):
            in_slot.append(name)
    return errors, in_slot
