"""One tensor at a time: how far every type moves it, and what the model says to it in one or two of them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gguf_golf.encode import Encoder, Guide, open_encoder
from gguf_golf.formats import quant_types
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models import LazyTensor, Model, open_model
from gguf_golf.models.roles import EMBEDDINGS, is_quantizable, kind
from gguf_golf.sensitivity import distortion
from gguf_golf.sensitivity.activations import Observer
from gguf_golf.sensitivity.concentration import Spread
from gguf_golf.sensitivity.distortion import Judge, Slab
from gguf_golf.sensitivity.estimate import mean_and_error
from gguf_golf.sensitivity.layer_inputs import LayerInputs
from gguf_golf.sensitivity.probe import Probe, Restore
from gguf_golf.sensitivity.result import Measurement, SuperWeight, TensorSensitivity
from gguf_golf.sensitivity.super_weights import super_weights

ANCHOR, BEYOND = "tcq2", "tcq1"
"""The types that tensors are really stored in: every tensor in the first, on all chunks; PER_KIND tensors of each kind
in the second, on BEYOND_SHARE of the first chunk, for the exponent."""

PER_KIND, BEYOND_SHARE = 4, 0.5

ENOUGH = 0.2
"""A tensor's run ends early once the standard error of its damage is this share of it, with one chunk of text; with n
chunks, a square root of n less. Errors of single tensors mostly cancel in a file: see docs/planning.md."""

FEWEST_ROWS, MOST_ROWS = 64, 0.5
"""Rows of a vocabulary are made exact in powers of two from the first on, up to the second's share of all."""

OBSERVED_CHUNKS, INPUT_STRIDE = 4, 4
"""Chunks whose layer inputs are looked at, and every how many-th of them judges the types' errors."""


@dataclass(frozen=True)
class Question:
    """What is asked: a model's files, a text, the first `n_chunks` chunks of `n_ctx` tokens, and the types to try."""

    model: Path
    text: Path
    imatrix: Path | None
    hessian: Path | None
    n_ctx: int
    n_chunks: int
    types: tuple[str, ...]

    @contextmanager
    def measuring(self, scratch: Path, threads: int | None) -> Iterator["Measuring"]:
        """The model on the text, run once undisturbed; files that begin with `scratch` hold what it showed.

        Raises InputError as `Probe` and the files' readers do.
        """
        guide, encoder = Guide.open(self.imatrix, self.hessian), open_encoder("cpu", threads)
        with (
            Probe(
                self.model,
                self.text,
                n_ctx=self.n_ctx,
                n_chunks=self.n_chunks,
                n_observed=OBSERVED_CHUNKS,
                scratch=scratch.with_name(scratch.name + ".base"),
                threads=threads,
            ) as probe,
            LayerInputs(scratch.with_name(scratch.name + ".inputs"), INPUT_STRIDE) as inputs,
        ):
            observer = Observer(inputs)
            probe.run_base(observer.callback)
            candidates = [quant_types.get(name) for name in self.types]
            yield Measuring(open_model(self.model), guide, encoder, probe, inputs, observer, candidates)


class Measuring:
    """A run on a text: what is needed for every tensor."""

    def __init__(
        self,
        model: Model,
        guide: Guide,
        encoder: Encoder,
        probe: Probe,
        inputs: LayerInputs,
        observer: Observer,
        candidates: Sequence[QuantType],
    ) -> None:
        self.model, self._guide, self._encoder, self._probe, self._inputs = model, guide, encoder, probe, inputs
        self._observer, self._candidates = observer, candidates
        self._with_exponent = _spread_over_layers([t.name for t in model.tensors if is_quantizable(t)])

    @property
    def n_chunks(self) -> int:
        """How many chunks the text really has of those asked for."""
        return len(self._probe.chunks)

    def super_weights(self, tensors: list[TensorSensitivity]) -> list[SuperWeight]:
        """The weights behind the highest spikes, removed one by one; `tensors` are all entries."""
        return super_weights(self._observer.spikes, tensors, self._guide, self._encoder, self._probe)

    def measure_tensor(self, tensor: LazyTensor) -> TensorSensitivity:
        """The errors of all types, and the damage with the tensor alone in ANCHOR and perhaps in BEYOND, or in what
        its rows allow of them, encoded without error feedback."""
        entry, judge = judged(tensor, self._guide, self._encoder, self._inputs, self._candidates)
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
            with self._probe.disturbed(tensor.name, (slab.stored for slab in slabs)) as restore:
                kld = self._kld() if type_name == ANCHOR else self._probe.kld(1, BEYOND_SHARE).ravel().tolist()
                if type_name == ANCHOR and tensor.name in EMBEDDINGS:
                    entry = replace(entry, rows_saved=self._rows_saved(tensor, kld, restore))
            error = judge.error(distortion.decoded(sample, quant_type, self._encoder))
            used[quant_type.name] = Measurement(quant_type.name, error, kld)
            if type_name == ANCHOR:
                entry = spread.describe(entry)
        return replace(entry, rounding=judge.rounding(), measured=list(used.values()))

    def _rows_saved(self, tensor: LazyTensor, kld: Sequence[float], restore: Restore) -> dict[str, float]:
        """What exact rows of the most frequent tokens save of a measured damage, on the same text; nothing where the
        imatrix does not say which these are."""
        imatrix = self._guide.imatrix
        if imatrix is None or imatrix.token_counts is None:
            return {}
        saved, most, n = {}, 0.0, FEWEST_ROWS
        while n <= MOST_ROWS * tensor.n_rows:
            restore(self._guide.frequent_rows(tensor.name, tensor.n_rows, n))
            left = self._probe.kld_until(lambda segments: len(segments) >= len(kld))
            most = max(most, 1 - sum(left) / (sum(kld) or 1.0))  # more rows save no less: the rest is noise
            saved[str(n)] = most
            n *= 2
        return saved

    def _kld(self) -> list[float]:
        """KL divergence of segments of the text, until their mean is known well enough."""
        enough = ENOUGH / math.sqrt(len(self._probe.chunks))
        return self._probe.kld_until(lambda segments: mean_and_error(segments)[1] <= enough)


def _each_added(slabs: Iterable[Slab], spread: Spread) -> Iterator[Slab]:
    for slab in slabs:
        spread.add(slab)
        yield slab


def judged(
    tensor: LazyTensor,
    guide: Guide,
    encoder: Encoder,
    inputs: LayerInputs | None,
    candidates: Sequence[QuantType],
) -> tuple[TensorSensitivity, Judge]:
    """The errors of all types, and the proxy in place of a measurement; and what judged them."""
    rows = distortion.sample(tensor, guide)
    judge = Judge(rows, inputs)
    proxy = float((rows.column_weight * np.square(rows.values)).mean(dtype=np.float64)) * math.prod(tensor.shape)
    errors = distortion.errors(rows, encoder, judge, candidates)
    return TensorSensitivity(tensor.name, list(tensor.shape), errors, proxy, proxy), judge


def _spread_over_layers(names: Sequence[str]) -> set[str]:
    """PER_KIND names of each kind, from the first layer to the last."""
    chosen: set[str] = set()
    for each in {kind(name) for name in names}:
        alike = [name for name in names if kind(name) == each]
        chosen |= {alike[round(index)] for index in np.linspace(0, len(alike) - 1, PER_KIND)}
    return chosen
