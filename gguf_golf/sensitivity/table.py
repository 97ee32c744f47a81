"""The table that `gguf-golf sensitivity` prints."""

from collections.abc import Callable

import numpy as np

from gguf_golf.models.roles import kind
from gguf_golf.sensitivity.result import Sensitivity, TensorSensitivity

UNSTABLE = 0.8
"""A ranking whose correlation between two samples of text is below this is said to be unstable."""


def render(sensitivity: Sensitivity) -> str:
    """Kinds and layers by damage, how concentrated it is, single weights, and how stable the rankings are."""
    lines = []
    if sensitivity.quick:
        lines.append("quick: importance-weighted squared error, in arbitrary units; nothing was measured")
    for title, groups in (("kind", _by(sensitivity, kind)), ("layer", _by(sensitivity, _layer))):
        lines += ["", f"{title:<16}{'damage at E=1':>14}{'per 10^6 weights':>18}"]
        for name, tensors in groups.items():
            total = sum(tensor.coefficient for tensor in tensors)
            weights = sum(int(np.prod(tensor.shape)) for tensor in tensors)
            lines.append(f"{name:<16}{total:>14.4g}{1e6 * total / weights:>18.4g}")
    lines += _concentration(sensitivity)
    for weight in sensitivity.super_weights:
        verdict = "super weight" if weight.confirmed else "harmless"
        lines.append(
            f"{verdict}: {weight.tensor}[{weight.row}, {weight.channel}] = {weight.value:.3g}, "
            f"removing it costs KLD {np.mean(weight.kld):.2g}"
        )
    for grain, rho in sensitivity.stability.items():
        if grain == "proxy":
            lines.append(f"cheap proxy against measured damage: rank correlation {rho:.2f}")
        else:
            verdict = "" if rho >= UNSTABLE else ": this ranking is unstable, use more text"
            lines.append(f"{grain} ranking between two samples of text: rank correlation {rho:.2f}{verdict}")
    return "\n".join(lines)


def _by(sensitivity: Sensitivity, key: Callable[[str], str]) -> dict[str, list[TensorSensitivity]]:
    found: dict[str, list[TensorSensitivity]] = {}
    for tensor in sensitivity.tensors:
        found.setdefault(key(tensor.name), []).append(tensor)
    return found


def _layer(name: str) -> str:
    return name.split(".")[1] if name.startswith("blk.") else "vocabulary"


def _concentration(sensitivity: Sensitivity) -> list[str]:
    lines = []
    for what, curves in (
        ("rows", [tensor.row_share for tensor in sensitivity.tensors if tensor.row_share]),
        ("input channels", [tensor.channel_share for tensor in sensitivity.tensors if tensor.channel_share]),
    ):
        if curves:
            shares = ", ".join(
                f"{100 * float(share):g}% hold {100 * np.mean([curve[share] for curve in curves]):.0f}%"
                for share in curves[0]
            )
            lines.append(f"weighted error by {what}, the worst first (mean over tensors): {shares}")
    return lines
