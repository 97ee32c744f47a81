"""Measure a model's sensitivity: each tensor alone in two types, the rest exact, and single weights removed.

Finished tensors are noted in NAME.journal beside the output; a run that was interrupted resumes after them.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from gguf_golf.encode import Encoder, Guide, open_encoder
from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types
from gguf_golf.journal import Journal, open_journal
from gguf_golf.models import LazyTensor, Model, open_model
from gguf_golf.models.fingerprint import fingerprint
from gguf_golf.models.hashing import file_sha256
from gguf_golf.models.roles import is_quantizable, kind
from gguf_golf.progress import ProgressBar
from gguf_golf.sensitivity import distortion, result
from gguf_golf.sensitivity.activations import Observer
from gguf_golf.sensitivity.concentration import Spread, stability
from gguf_golf.sensitivity.distortion import Judge, Slab
from gguf_golf.sensitivity.estimate import estimate, mean_and_error
from gguf_golf.sensitivity.layer_inputs import LayerInputs
from gguf_golf.sensitivity.probe import Probe
from gguf_golf.sensitivity.result import Measurement, Sensitivity, TensorSensitivity
from gguf_golf.sensitivity.super_weights import super_weights

ANCHOR, BEYOND = "tcq2", "tcq1"
"""The types that tensors are really stored in: every tensor in the first, on all chunks; PER_KIND tensors of each kind
in the second, on BEYOND_SHARE of the first chunk, for the exponent."""

PER_KIND, BEYOND_SHARE = 4, 0.5

ENOUGH = 0.2
"""A tensor's run ends early once the standard error of its damage is this share of it, with one chunk of text; with n
chunks, a square root of n less. Errors of single tensors mostly cancel in a file: see docs/planning.md."""

OBSERVED_CHUNKS, INPUT_STRIDE = 4, 4
"""Chunks whose layer inputs are looked at, and every how many-th of them judges the types' errors."""


def measure(
    model_path: Path,
    out: Path,
    *,
    imatrix_path: Path | None = None,
    hessian_path: Path | None = None,
    text_path: Path | None = None,
    n_ctx: int = 512,
    n_chunks: int = 1,
    quick: bool = False,
    threads: int | None = None,
) -> Sensitivity:
    """Measure the model on the first chunks of a text and write the sensitivity file `out`.

    The text should be another than that of the imatrix and the Hessians: it also judges how well they generalize.
    With Hessians, the errors of TCQ types are those of encoding with error feedback: quantize with the same file then.
    `quick` runs no text: damage is then the importance-weighted squared error, in arbitrary units. Raises InputError
    for a model that is not a GGUF in full precision, or a missing text.
    """
    if not quick and text_path is None:
        raise InputError("measuring takes a text (--text FILE): any that is not used for evaluation; or pass --quick")
    model = open_model(model_path)
    if not quick and not model_path.is_file():
        raise InputError(f"{model_path} is not a GGUF: make one with `gguf-golf convert {model_path} -o MODEL.gguf`")
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
    guide, encoder = Guide.open(imatrix_path, hessian_path), open_encoder("cpu", threads)
    with open_journal(out.with_name(out.name + ".journal"), asdict(empty)) as journal:
        if quick:
            measured = replace(
                empty, tensors=_each(model, journal, lambda tensor: _judged(tensor, guide, encoder, None)[0])
            )
        else:
            assert text_path is not None
            with (
                Probe(
                    model_path,
                    text_path,
                    n_ctx=n_ctx,
                    n_chunks=n_chunks,
                    n_observed=OBSERVED_CHUNKS,
                    scratch=out.with_name(out.name + ".base"),
                    threads=threads,
                ) as probe,
                LayerInputs(out.with_name(out.name + ".inputs"), INPUT_STRIDE) as inputs,
            ):
                measured = _Measuring(model, guide, encoder, probe, inputs).run(empty, journal)
        result.write(measured, out)
        journal.remove()
    return measured


class _Measuring:
    """A run on a text: what is needed for every tensor."""

    def __init__(self, model: Model, guide: Guide, encoder: Encoder, probe: Probe, inputs: LayerInputs) -> None:
        self._model, self._guide, self._encoder, self._probe, self._inputs = model, guide, encoder, probe, inputs
        self._observer = Observer(inputs)
        self._with_exponent = _spread_over_layers([t.name for t in model.tensors if is_quantizable(t)])

    def run(self, empty: Sensitivity, journal: Journal) -> Sensitivity:
        self._probe.run_base(self._observer.callback)
        tensors = estimate(_each(self._model, journal, self.measure_tensor))
        if not any(tensor.measured for tensor in tensors):
            raise InputError("the text reaches none of the model's linear layers: there is nothing to measure")
        return replace(
            empty,
            n_chunks=len(self._probe.chunks),
            tensors=tensors,
            super_weights=super_weights(self._observer.spikes, tensors, self._guide, self._encoder, self._probe),
            stability=stability(tensors),
        )

    def measure_tensor(self, tensor: LazyTensor) -> TensorSensitivity:
        """The errors of all types, and the damage with the tensor alone in ANCHOR and perhaps in BEYOND, or in what
        its rows allow of them, encoded without error feedback."""
        entry, judge = _judged(tensor, self._guide, self._encoder, self._inputs)
        if tensor.name not in self._probe.weights:
            return entry
        guide = self._guide.without_hessians()
        sample = distortion.sample(tensor, guide)
        used: dict[str, Measurement] = {}
        for type_name in (ANCHOR, BEYOND) if tensor.name in self._with_exponent else (ANCHOR,):
            quant_type, _ = quant_types.type_for_row(type_name, tensor.shape[-1])
            if quant_type.name in used:
                continue
            slabs = distortion.slabs(tensor, guide, quant_type, self._encoder)
            if type_name == ANCHOR:
                even, odd = (Guide(sample) for sample in self._observer.samples)
                spread = Spread(tensor, (guide, even, odd))
                slabs = _each_added(slabs, spread)
            with self._probe.disturbed(tensor.name, (slab.stored for slab in slabs)):
                kld = self._kld() if type_name == ANCHOR else self._probe.kld(1, BEYOND_SHARE).ravel().tolist()
            error = judge.error(distortion.decoded(sample, quant_type, self._encoder))
            used[quant_type.name] = Measurement(quant_type.name, error, kld)
            if type_name == ANCHOR:
                entry = spread.describe(entry)
        return replace(entry, rounding=judge.rounding(), measured=list(used.values()))

    def _kld(self) -> list[float]:
        """KL divergence of segments of the text, until their mean is known well enough."""
        enough = ENOUGH / math.sqrt(len(self._probe.chunks))
        return self._probe.kld_until(lambda segments: mean_and_error(segments)[1] <= enough)


def _each_added(slabs: Iterable[Slab], spread: Spread) -> Iterator[Slab]:
    for slab in slabs:
        spread.add(slab)
        yield slab


def _judged(
    tensor: LazyTensor, guide: Guide, encoder: Encoder, inputs: LayerInputs | None
) -> tuple[TensorSensitivity, Judge]:
    """The errors of all types, and the proxy in place of a measurement; and what judged them."""
    rows = distortion.sample(tensor, guide)
    judge = Judge(rows, inputs)
    proxy = float((rows.column_weight * np.square(rows.values)).mean(dtype=np.float64)) * math.prod(tensor.shape)
    errors = distortion.errors(rows, encoder, judge)
    return TensorSensitivity(tensor.name, list(tensor.shape), errors, proxy, proxy), judge


def _each(
    model: Model, journal: Journal, measure_tensor: Callable[[LazyTensor], TensorSensitivity]
) -> list[TensorSensitivity]:
    """One entry for each quantizable tensor; the bar counts weights, as large tensors take longer."""
    wanted = [tensor for tensor in model.tensors if is_quantizable(tensor)]
    done = {entry.name: entry for entry in map(result.tensor_from_json, journal.records)}
    entries = []
    with ProgressBar(
        total=sum(math.prod(t.shape) for t in wanted), desc="sensitivity", unit="w", unit_scale=True
    ) as bar:
        for tensor in wanted:
            bar.set_postfix_str(tensor.name, refresh=False)
            if tensor.name not in done:
                done[tensor.name] = measure_tensor(tensor)
                journal.add(asdict(done[tensor.name]))
            entries.append(done[tensor.name])
            bar.update(math.prod(tensor.shape))
    return entries


def _spread_over_layers(names: Sequence[str]) -> set[str]:
    """PER_KIND names of each kind, from the first layer to the last."""
    chosen: set[str] = set()
    for each in {kind(name) for name in names}:
        alike = [name for name in names if kind(name) == each]
        chosen |= {alike[round(index)] for index in np.linspace(0, len(alike) - 1, PER_KIND)}
    return chosen
