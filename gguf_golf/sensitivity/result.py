"""The sensitivity file: what was measured of each tensor and single weight, as dataclasses and as JSON.

Schema in docs/planning.md. Damage is a KL divergence in nats, unless `quick`: then only its ratios mean something.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gguf_golf import files
from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types

SCHEMA = "gguf-golf/sensitivity"
SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Measurement:
    """KL divergence of each segment of the text, nats, with one tensor in `type`, encoded without error feedback.

    `error` is its E. Segments are equal parts of a chunk, see probe.py; `kld` may hold the first of them only.
    """

    type: str
    error: float
    kld: list[float]


@dataclass(frozen=True)
class TensorSensitivity:
    """What one tensor costs: its damage at a relative error E of its layer's output, and how well that is known.

    damage(E) = coefficient * E up to E = `anchor`, where it was measured: a KL divergence is quadratic in a small
    perturbation, and E is a square. Beyond, damage(E) = damage(anchor) * (E / anchor) ** exponent.

    `errors` holds E of every type; `rounding` that of rounding the activations, by activation type, which adds to it in
    a model that runs and was no part of the measurement. `coefficient_sd` is the standard error of the coefficient's
    logarithm, None if nothing was measured. `proxy` is the cheap guess at the coefficient: sum h w^2.
    `rows_saved` maps a number of rows of a vocabulary, those of the most frequent tokens, to the share of the anchor's
    damage that is gone once they are exact. `row_share` and `channel_share` map a share of the rows or input channels,
    the worst first, to their share of the weighted error; the stabilities are Spearman's correlation of their rankings
    between two disjoint samples of text.
    """

    name: str
    shape: list[int]
    errors: dict[str, float]
    proxy: float
    coefficient: float
    coefficient_sd: float | None = None
    anchor: float = 1.0
    exponent: float = 1.0
    exponent_sd: float = 0.0
    rounding: dict[str, float] = field(default_factory=dict)
    measured: list[Measurement] = field(default_factory=list)
    rows_saved: dict[str, float] = field(default_factory=dict)
    row_share: dict[str, float] = field(default_factory=dict)
    channel_share: dict[str, float] = field(default_factory=dict)
    row_stability: float | None = None
    channel_stability: float | None = None

    def damage(self, type_name: str, left: float = 1.0) -> float:
        """Expected damage with this tensor alone in the named type, where a share `left` of its weights' error is left;
        0 for types that hold it exactly."""
        error = self._error(type_name, left)
        beyond = max(1.0, error / self.anchor)
        return float(self.coefficient * error * beyond ** (self.exponent - 1))

    def uncertainty(self, type_name: str) -> float:
        """The standard error of the damage's logarithm: it grows with the distance from what was measured."""
        error = self._error(type_name)
        if self.coefficient_sd is None or error <= 0:
            return 0.0
        slope_sd = self.exponent_sd if error > self.anchor else LINEAR_SD
        return math.hypot(self.coefficient_sd, slope_sd * math.log(error / self.anchor))

    def _error(self, type_name: str, left: float = 1.0) -> float:
        return left * self.errors[type_name] + self.rounding.get(quant_types.get(type_name).activations or "", 0.0)


LINEAR_SD = 0.05
"""How far the exponent below the anchor may be from 1: by rare large effects, such as a token sent to other experts."""


@dataclass(frozen=True)
class SuperWeight:
    """A single weight and what its removal costs: KL divergence of each chunk, nats.

    `errors` is |w - w'| / |w| of this weight in every type; `in_slot` names the types whose outlier slot holds it.
    """

    tensor: str
    row: int
    channel: int
    value: float
    height: float
    kld: list[float]
    confirmed: bool
    errors: dict[str, float]
    in_slot: list[str]


@dataclass(frozen=True)
class Sensitivity:
    """All of it, with provenance. `stability` holds rank correlations (Spearman) between disjoint samples of text."""

    model: str
    fingerprint: str
    imatrix: str | None
    imatrix_sha256: str | None
    text: str | None
    text_sha256: str | None
    n_ctx: int
    n_chunks: int
    quick: bool
    tensors: list[TensorSensitivity]
    super_weights: list[SuperWeight] = field(default_factory=list)
    stability: dict[str, float] = field(default_factory=dict)
    hessian: str | None = None
    hessian_sha256: str | None = None

    def of(self, name: str) -> TensorSensitivity:
        """The entry of a tensor. Raises InputError if it was not measured."""
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise InputError(f"the sensitivity file knows no tensor {name}; was it made from this model?")


def write(sensitivity: Sensitivity, path: Path) -> None:
    """Write the file; it appears whole or not at all."""
    document = {"schema": SCHEMA, "version": SCHEMA_VERSION, **asdict(sensitivity)}
    files.write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def read(path: Path) -> Sensitivity:
    """Read a sensitivity file. Raises InputError for anything else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; make it with `gguf-golf sensitivity MODEL.gguf`") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a sensitivity file ({error})") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InputError(f"{path}: not a sensitivity file; make one with `gguf-golf sensitivity MODEL.gguf`")
    if document.get("version") != SCHEMA_VERSION:
        raise InputError(
            f"{path}: version {document.get('version')} of the schema, and this gguf-golf reads {SCHEMA_VERSION}: "
            "measure again"
        )
    del document["schema"], document["version"]
    try:
        tensors = [tensor_from_json(tensor) for tensor in document.pop("tensors")]
        supers = [SuperWeight(**weight) for weight in document.pop("super_weights")]
        return Sensitivity(**document, tensors=tensors, super_weights=supers)
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: damaged sensitivity file ({error}); measure again") from error


def tensor_from_json(document: dict[str, Any]) -> TensorSensitivity:
    """The inverse of `asdict` for one tensor. Raises TypeError and KeyError for one that cannot be calculated with."""
    measured = [Measurement(**measurement) for measurement in document["measured"]]
    made = TensorSensitivity(**{**document, "measured": measured})
    numbers = [made.proxy, made.coefficient, made.anchor, made.exponent, made.exponent_sd]
    optional = [made.coefficient_sd, made.row_stability, made.channel_stability]
    tables = [made.errors, made.rounding, made.row_share, made.channel_share, made.rows_saved]
    numbers += [value for value in optional if value is not None] + [v for table in tables for v in table.values()]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers):
        raise TypeError(f"{made.name} holds something that is not a finite number")
    if made.anchor <= 0 or min([*made.errors.values(), *made.rounding.values()], default=0) < 0:
        raise TypeError(f"{made.name} holds a negative error")
    return made
