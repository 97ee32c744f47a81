"""Measure a model's sensitivity: each tensor alone in two types, the rest exact, and single weights removed.

Finished tensors are noted in NAME.journal beside the output; a run that was interrupted goes on after them.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from gguf_golf.encode import Encoder, Guide, open_encoder
from gguf_golf.errors import InputError
from gguf_golf.formats import types
from gguf_golf.models import LazyTensor, Model, open_model
from gguf_golf.models.fingerprint import fingerprint
from gguf_golf.models.hashing import file_sha256
from gguf_golf.models.roles import is_quantizable, kind
from gguf_golf.progress import ProgressBar
from gguf_golf.sensitivity import distortion, result
from gguf_golf.sensitivity.activations import Observer
from gguf_golf.sensitivity.distortion import Rows
from gguf_golf.sensitivity.probe import Probe
from gguf_golf.sensitivity.result import Measurement, Sensitivity, TensorSensitivity
from gguf_golf.sensitivity.super_weights import super_weights
from gguf_golf.threads import resolve

COARSE, FINE = "tcq2", "tcq4"
"""The types each tensor is really stored in: all chunks run with the first; the second, on the first chunk, gives the
exponent. They enclose the rates that people plan for."""

SHARES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5)
"""Where the concentration curves of rows and channels are read."""


def measure(
    model_path: Path,
    out: Path,
    *,
    imatrix_path: Path | None = None,
    hessian_path: Path | None = None,
    text_path: Path | None = None,
    n_ctx: int = 512,
    n_chunks: int = 4,
    quick: bool = False,
    threads: int | None = None,
) -> Sensitivity:
    """Measure the model on the first chunks of a text and write the sensitivity file `out`.

    With Hessians, the errors of TCQ types are those of encoding with error feedback: quantize with the same file then.
    `quick` runs no text: damage is then the importance-weighted squared error, in arbitrary units. Raises InputError
    for a model that is not a GGUF in full precision, or a missing text.
    """
    threads = resolve(threads)
    if not quick and text_path is None:
        raise InputError("measuring takes a text (--text FILE): any that is not used for evaluation; or pass --quick")
    model = open_model(model_path)
    if not quick and not model_path.is_file():
        raise InputError(f"{model_path} is no GGUF file: make one with `gguf-golf convert {model_path} -o MODEL.gguf`")
    empty = Sensitivity(
        model=model_path.name,
        fingerprint=fingerprint(model),
        imatrix=None if imatrix_path is None else os.path.relpath(imatrix_path, out.parent),
        imatrix_sha256=None if imatrix_path is None else file_sha256(imatrix_path),
        hessian=None if hessian_path is None else os.path.relpath(hessian_path, out.parent),
        hessian_sha256=None if hessian_path is None else file_sha256(hessian_path),
        text=None if quick or text_path is None else text_path.name,
        text_sha256=None if quick or text_path is None else file_sha256(text_path),
        n_ctx=n_ctx,
        n_chunks=0 if quick else n_chunks,
        quick=quick,
        tensors=[],
    )
    calibration = _Calibration(Guide.open(imatrix_path, hessian_path), open_encoder("cpu", threads))
    journal = _Journal(out.with_name(out.name + ".journal"), empty)
    if quick:
        tensors = _each(model, journal, calibration.quick)
        measured = replace(empty, tensors=tensors)
    else:
        assert text_path is not None
        scratch = out.with_name(out.name + ".base")
        with Probe(model_path, text_path, n_ctx, n_chunks, scratch, threads) as probe:
            measured = _run(empty, model, calibration, probe, journal)
    result.write(measured, out)
    journal.remove()
    return measured


@dataclass(frozen=True)
class _Calibration:
    """What is known of the inputs of the linear layers, and what encodes them."""

    guide: Guide
    encoder: Encoder

    def sample(self, tensor: LazyTensor) -> Rows:
        """Some rows of a tensor, on which types are tried."""
        return distortion.sample(tensor, self.guide)

    def quick(self, tensor: LazyTensor) -> TensorSensitivity:
        """The errors of all types, and the proxy in place of a measurement."""
        rows = self.sample(tensor)
        proxy = float((rows.column_weight * np.square(rows.values)).mean(dtype=np.float64)) * math.prod(tensor.shape)
        errors = distortion.errors(rows, self.encoder)
        return TensorSensitivity(tensor.name, list(tensor.shape), errors, proxy, proxy)


def _run(empty: Sensitivity, model: Model, calibration: _Calibration, probe: Probe, journal: "_Journal") -> Sensitivity:
    observer = Observer()
    probe.run_base(observer.callback)
    floors: dict[str, float] = {}

    def measure_tensor(tensor: LazyTensor) -> TensorSensitivity:
        entry = calibration.quick(tensor)
        if tensor.name not in probe.weights:
            return entry
        layer = _layer(tensor)
        if layer not in floors:
            # always that of the layer's first tensor, so that a run that goes on ends with the same numbers
            first = next(t for t in model.tensors if t.name in probe.weights and _layer(t) == layer)
            floors[layer] = _floor(first, probe)
        return _measured(replace(entry, floor=floors[layer]), tensor, calibration, observer, probe)

    tensors = _fill_unreached(_each(model, journal, measure_tensor))
    return replace(
        empty,
        n_chunks=len(probe.chunks),
        tensors=tensors,
        super_weights=super_weights(observer.spikes, tensors, calibration.guide, calibration.encoder, probe),
        stability=_stability(tensors),
    )


def _each(
    model: Model, journal: "_Journal", measure_tensor: Callable[[LazyTensor], TensorSensitivity]
) -> list[TensorSensitivity]:
    wanted = [tensor for tensor in model.tensors if is_quantizable(tensor)]
    done = journal.done
    bar = ProgressBar(wanted, desc="sensitivity", unit="tensor", initial=0)
    entries = []
    for tensor in bar:
        bar.set_postfix_str(tensor.name, refresh=False)
        if tensor.name not in done:
            done[tensor.name] = measure_tensor(tensor)
            journal.add(done[tensor.name])
        entries.append(done[tensor.name])
    return entries


def _layer(tensor: LazyTensor) -> str:
    """The layer's name, as blk.3 of blk.3.attn_q.weight; empty for the tensors outside the layers."""
    return tensor.name.rpartition(".")[0].rpartition(".")[0]


def _floor(tensor: LazyTensor, probe: Probe) -> float:
    """KL divergence on the first chunk after every weight of a tensor changes by half a percent or so.

    At E = 2.5e-5 its true damage is a thousandth of what coding at 2 bits does; what shows is rounding noise.
    """
    rows = tensor.load_rows(0, tensor.n_rows)
    rows *= 1 + np.float32(0.005) * np.random.default_rng(0).standard_normal(rows.shape, np.float32)
    with probe.disturbed(tensor.name, rows):
        return float(probe.kld(1)[0])


def _measured(
    entry: TensorSensitivity,
    tensor: LazyTensor,
    calibration: _Calibration,
    observer: Observer,
    probe: Probe,
) -> TensorSensitivity:
    """The entry with the tensor alone in COARSE and in FINE, or what its rows allow of them, without error feedback."""
    sample, encoder = calibration.sample(tensor).without_hessians(), calibration.encoder
    rows = distortion.whole(tensor, sample.guide)
    entry = replace(entry, rounding=observer.rounding.errors(tensor.name, rows.values))
    samples = [Guide(observed) for observed in observer.samples]
    measured = []
    for type_name, chunks in ((COARSE, None), (FINE, 1)):
        quant_type, _ = types.type_for_row(type_name, tensor.shape[-1])
        new = distortion.decoded(rows, quant_type, encoder)
        with probe.disturbed(tensor.name, new):
            kld = probe.kld(chunks).tolist()
        error = distortion.relative_error(sample, distortion.decoded(sample, quant_type, encoder))
        measured.append(Measurement(quant_type.name, error, kld))
        if type_name == COARSE:
            entry = _concentration(entry, rows, np.square(rows.values - new), samples)
    coefficient, spread, exponent = _power_law(measured[0], measured[1], entry.floor)
    return replace(entry, coefficient=coefficient, coefficient_se=spread, exponent=exponent, measured=measured)


def _power_law(coarse: Measurement, fine: Measurement, floor: float) -> tuple[float, float | None, float]:
    """(coefficient, its standard error over chunks, exponent) of damage = coefficient * E ** exponent.

    The exponent stays 1 (damage as the square of the error) where the fine type is too close to the floor to say.
    """
    kld = np.array(coarse.kld) - floor
    exponent = 1.0
    if coarse.error > fine.error > 0 and fine.kld[0] > 2 * floor and kld[0] > 0:
        exponent = math.log(kld[0] / (fine.kld[0] - floor)) / math.log(coarse.error / fine.error)
    scale = coarse.error**exponent if coarse.error else 1.0
    spread = float(kld.std(ddof=1) / math.sqrt(len(kld)) / scale) if len(kld) > 1 else None
    return max(0.0, float(kld.mean() / scale)), spread, exponent


def _concentration(
    entry: TensorSensitivity,
    rows: Rows,
    squared: NDArray[np.float32],
    samples: list[Guide],
) -> TensorSensitivity:
    """The entry with its concentration curves, and how alike the rankings of two samples of text are."""

    def by_row_and_channel(rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        weighted = squared * rows.column_weight
        return weighted.sum(1), weighted.sum(0)

    by_row, by_channel = by_row_and_channel(rows)
    entry = replace(entry, row_share=_shares(by_row), channel_share=_shares(by_channel))
    even, odd = (replace(rows, guide=guide) for guide in samples)
    if even.importance is None or odd.importance is None:
        return entry
    (even_row, even_channel), (odd_row, odd_channel) = by_row_and_channel(even), by_row_and_channel(odd)
    return replace(
        entry, row_stability=_spearman(even_row, odd_row), channel_stability=_spearman(even_channel, odd_channel)
    )


def _shares(values: NDArray[np.float32]) -> dict[str, float]:
    descending = np.sort(values.astype(np.float64))[::-1]
    cumulated = np.cumsum(descending) / (descending.sum() or 1.0)
    return {f"{share:g}": float(cumulated[max(1, round(share * len(values))) - 1]) for share in SHARES}


def _fill_unreached(tensors: list[TensorSensitivity]) -> list[TensorSensitivity]:
    """Weights that no operation of this text used take the median of their kind, or of all."""
    reached = [tensor for tensor in tensors if tensor.measured]
    if not reached:
        raise InputError("the text reaches none of the model's linear layers: there is nothing to measure")
    filled = []
    for tensor in tensors:
        if not tensor.measured:
            alike = [other for other in reached if kind(other.name) == kind(tensor.name)] or reached
            tensor = replace(tensor, coefficient=median(other.coefficient for other in alike))  # noqa: PLW2901
        filled.append(tensor)
    return filled


def _stability(tensors: list[TensorSensitivity]) -> dict[str, float]:
    """Spearman's rank correlation of tensors, rows and channels between disjoint samples, and of proxy and damage."""
    reached = [tensor for tensor in tensors if tensor.measured]
    klds = np.array([tensor.measured[0].kld for tensor in reached])
    found = {"proxy": _spearman([t.proxy for t in reached], [t.coefficient for t in reached])}
    if klds.shape[1] > 1:
        found["tensor"] = _spearman(klds[:, 0::2].mean(1), klds[:, 1::2].mean(1))
    for grain, values in (
        ("row", [t.row_stability for t in reached if t.row_stability is not None]),
        ("channel", [t.channel_stability for t in reached if t.channel_stability is not None]),
    ):
        if values:
            found[grain] = float(np.mean(values))
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _spearman(a: NDArray[np.floating] | list[float], b: NDArray[np.floating] | list[float]) -> float:
    return float(spearmanr(a, b).statistic) if len(a) > 1 else math.nan


class _Journal:
    """Finished tensors, one JSON object a line, after a line that names the job."""

    def __init__(self, path: Path, job: Sensitivity) -> None:
        self._path = path
        head = json.dumps(asdict(job))
        self.done: dict[str, TensorSensitivity] = {}
        lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
        if lines and lines[0] == head:
            for line in lines[1:-1]:  # what follows the last newline was cut off
                entry = result.tensor_from_json(json.loads(line))
                self.done[entry.name] = entry
        kept = [head, *(json.dumps(asdict(entry)) for entry in self.done.values())]
        path.write_text("\n".join(kept) + "\n", encoding="utf-8")

    def add(self, entry: TensorSensitivity) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry)) + "\n")

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
