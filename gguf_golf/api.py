"""What `import gguf_golf as gg` offers: the rooms' public functions with paths or strings, defaults, and progress.

Nothing is computed here. Every function that takes a while has `progress`, a callback that is given a
`gguf_golf.progress.Progress`; None draws a bar on a terminal. MODEL is a Hugging Face folder, a GGUF or a hub id.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gguf_golf import notebook, texts
from gguf_golf.calibrate import imatrix as _imatrix
from gguf_golf.calibrate.collect import collect
from gguf_golf.calibrate.imatrix import Imatrix
from gguf_golf.errors import InputError
from gguf_golf.evaluate import results as _results
from gguf_golf.evaluate.engine import Peer
from gguf_golf.evaluate.evaluate import run_suite
from gguf_golf.evaluate.generate import Sampling, render_messages, stream
from gguf_golf.evaluate.on_text import TextSettings
from gguf_golf.evaluate.results import ModelResult
from gguf_golf.evaluate.suite import Suite, read_suite
from gguf_golf.evaluate.table import results_table
from gguf_golf.fit import Fitted, Settings
from gguf_golf.fit import fit as _fit
from gguf_golf.hub import locate
from gguf_golf.plan.constraints import Constraints
from gguf_golf.plan.inputs import default_sensitivity
from gguf_golf.plan.make import explain, make_recipe, summary
from gguf_golf.progress import Callback, reported
from gguf_golf.quantize import convert as _convert
from gguf_golf.quantize import from_recipe as _from_recipe
from gguf_golf.quantize import inspect as _inspect
from gguf_golf.quantize.cached import as_gguf
from gguf_golf.quantize.inspect import Inspected
from gguf_golf.quantize.job import Job
from gguf_golf.report import write_report
from gguf_golf.report.verdict import Verdict
from gguf_golf.runtime.session import LoadedModel
from gguf_golf.sensitivity.measure import measure
from gguf_golf.sensitivity.result import Sensitivity
from gguf_golf.tune import require_extra
from gguf_golf.tune.settings import Settings as TuneSettings
from gguf_golf.use.chat import Conversation

if TYPE_CHECKING:
    from gguf_golf.tune.tune import Tuned

Location = str | PathLike[str]


@dataclass(frozen=True)
class File:
    """A GGUF that was written: `path`, `bytes`, bits per weight, the type of each tensor, and notes worth reading."""

    path: Path
    bytes: int
    bpw: float
    types: dict[str, str]
    notes: list[str]

    def _repr_html_(self) -> str:
        lines = [f"<code>{notebook.text(self.path)}</code>: {self.bytes:,} bytes, {self.bpw:.3f} bits per weight"]
        return "<br>".join([*lines, *map(notebook.text, self.notes)])


@dataclass(frozen=True)
class Planned:
    """A plan: the recipe as text, the exact size of the file that it describes, and what is predicted of it.

    `types` is the type of each tensor, `predicted_kld` in nats (None if the sensitivity was only estimated).
    """

    recipe: str
    file_bytes: int
    predicted_kld: float | None
    types: dict[str, str]
    summary: str
    curve: str

    def __str__(self) -> str:
        return self.summary

    def _repr_html_(self) -> str:
        counts: dict[str, int] = {}
        for name in self.types.values():
            counts[name] = counts.get(name, 0) + 1
        rows = [(name, str(count)) for name, count in sorted(counts.items(), key=lambda entry: -entry[1])]
        return f"<p>{notebook.text(self.summary)}</p>{notebook.table(('type', 'tensors'), rows)}"


class Evaluation(Sequence[ModelResult]):
    """What was measured of each file: a sequence of results that prints as the command's table.

    `document` is what `gguf-golf eval --json` writes (docs/evaluation.md), `save` writes it.
    """

    def __init__(self, results: Sequence[ModelResult], settings: dict[str, Any]) -> None:
        self._list = list(results)
        self.document = _results.document(self._list, settings, None)

    def __getitem__(self, index: Any) -> Any:
        return self._list[index]

    def __len__(self) -> int:
        return len(self._list)

    def __str__(self) -> str:
        return results_table(self._list)

    def save(self, path: Location) -> Path:
        """Write the results as JSON, for `gguf-golf report` and `gg.report`."""
        _results.write_json(self.document, Path(path))
        return Path(path)

    def _repr_html_(self) -> str:
        return notebook.evaluation(self.document)


class Model:
    """A GGUF that llama.cpp has loaded; use as a context manager, or `close` it.

    `model` is the lower-level object, with the vocabulary and the metadata.
    """

    def __init__(self, path: Path, threads: int | None) -> None:
        self.path, self.model, self._threads = path, LoadedModel(path), threads

    def tokenize(self, text: str, *, special: bool = False) -> NDArray[np.int32]:
        """Token ids int32 [n], with BOS where the model asks for it; `special` reads special tokens in the text."""
        return self.model.tokenize(text, parse_special=special)

    def logits(self, tokens: Sequence[int] | NDArray[np.int32]) -> NDArray[np.float32]:
        """The logits f32 [n, n_vocab] after each of n tokens."""
        ids = np.asarray(tokens, np.int32)
        with self.model.context(len(ids), threads=self._threads) as context:
            return context.decode(ids, np.arange(len(ids), dtype=np.int32), np.ones(len(ids), np.bool_)).copy()

    def generate(
        self, prompt: str, n: int = 128, *, temperature: float = 0.0, seed: int = 0, chat: bool | None = None
    ) -> Iterator[str]:
        """Pieces of the text that follows `prompt`; `chat` None applies the chat template if the file has one."""
        template = self.model.chat_template() is not None if chat is None else chat
        text = render_messages(self.model, [{"role": "user", "content": prompt}]) if template else prompt
        tokens = self.tokenize(text, special=template)
        with self.model.context(len(tokens) + n, n_batch=512, threads=self._threads) as context:
            yield from stream(context, tokens, n, Sampling(temperature, seed=seed))

    def chat(self, system: str | None = None, *, temperature: float = 0.7, seed: int = 0) -> Conversation:
        """A conversation, which loads the file again and has to be closed: `with model.chat() as conversation`."""
        return Conversation(self.path, system=system, sampling=Sampling(temperature, seed=seed), threads=self._threads)

    def close(self) -> None:
        """Free the memory."""
        self.model.close()

    def __enter__(self) -> "Model":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def convert(
    model: Location,
    out: Location,
    *,
    type: str | None = None,
    embedding_type: str = "auto",
    imatrix: Location | None = None,
    hessian: Location | None = None,
    allow_requantize: bool = False,
    keep_lattice: bool = True,
    device: str = "cpu",
    threads: int | None = None,
    force: bool = False,
    progress: Callback | None = None,
) -> File:
    """Convert MODEL to a GGUF whose linear layers have one type; None keeps the source's precision.

    `keep_lattice` stores a tensor exactly if its weights are those of a quantized type of no more bits. Raises
    InputError for a model, type or imatrix that cannot be used.
    """
    job = Job(
        _path(imatrix),
        _path(hessian),
        device,
        threads,
        allow_requantize=allow_requantize,
        force=force,
        keep_lattice=keep_lattice,
    )
    with reported(progress):
        done = _convert.convert(locate(str(model)), Path(out), type_name=type, embedding_type=embedding_type, job=job)
    chosen = {name: quant_type.name for name, quant_type in done.assignment.types.items()}
    return File(Path(out), done.written.file_bytes, done.bpw, chosen, done.assignment.notes)


def imatrix(
    model: Location,
    out: Location,
    *,
    text: Location | None = None,
    chunks: int | None = None,
    ctx: int = 512,
    output_matrix: bool = False,
    hessian: Location | None = None,
    threads: int | None = None,
    progress: Callback | None = None,
) -> Imatrix:
    """Measure how strongly each input channel of MODEL is used, and write it; `text` None is the embedded one.

    `chunks` None means all of the text, in chunks of `ctx` tokens. Raises InputError as `collect` does.
    """
    with reported(progress):
        found = collect(
            as_gguf(locate(str(model))),
            _path(text) or texts.CALIBRATION,
            n_ctx=ctx,
            n_chunks=chunks,
            threads=threads,
            process_output=output_matrix,
            hessian_path=_path(hessian),
        )
        _imatrix.write(found, Path(out))
    return found


def sensitivity(
    model: Location,
    out: Location | None = None,
    *,
    imatrix: Location | None = None,
    hessian: Location | None = None,
    text: Location | None = None,
    chunks: int = 1,
    ctx: int = 512,
    quick: bool = False,
    threads: int | None = None,
    progress: Callback | None = None,
) -> Sensitivity:
    """Measure what an error in each tensor of MODEL costs; `out` None is where `plan` looks for it."""
    path = locate(str(model))
    with reported(progress):
        return measure(
            as_gguf(path),
            _path(out) or default_sensitivity(path),
            imatrix_path=_path(imatrix),
            hessian_path=_path(hessian),
            text_path=None if quick else _path(text) or texts.CALIBRATION,
            n_ctx=ctx,
            n_chunks=chunks,
            quick=quick,
            threads=threads,
        )


def plan(
    model: Location,
    budget: str,
    out: Location | None = None,
    *,
    sensitivity: Location | None = None,
    imatrix: Location | None = None,
    constraints: Constraints | None = None,
    force: bool = False,
) -> Planned:
    """Choose a type for every tensor within a budget ("40MB", "2.7bpw"); write the recipe to `out` if given.

    Raises InputError for a budget below the smallest possible file.
    """
    opened, made = make_recipe(
        locate(str(model)),
        budget,
        _path(out),
        sensitivity_path=_path(sensitivity),
        imatrix_path=_path(imatrix),
        constraints=constraints,
        force=force,
    )
    chosen = {name: str(line) for name, line in made.recipe.tensors.items()}
    predicted = made.recipe.predicted_kld
    return Planned(made.text, made.file_bytes, predicted, chosen, summary(made), explain(opened, made))


def quantize(
    model: Location,
    recipe: Location,
    out: Location,
    *,
    imatrix: Location | None = None,
    hessian: Location | None = None,
    allow_requantize: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    force: bool = False,
    progress: Callback | None = None,
) -> File:
    """Write the GGUF that a recipe describes. Raises InputError for a recipe of another model."""
    job = Job(_path(imatrix), _path(hessian), device, threads, allow_requantize=allow_requantize, force=force)
    with reported(progress):
        done = _from_recipe.quantize(locate(str(model)), Path(recipe), Path(out), job=job)
    bpw = _inspect.inspect(Path(out)).bpw
    chosen = {name: quant_type.name for name, quant_type in done.types.items()}
    return File(Path(out), done.written.file_bytes, bpw, chosen, done.notes)


def fit(
    model: Location,
    budgets: str | Sequence[str],
    outs: Location | Sequence[Location],
    *,
    settings: Settings | None = None,
    constraints: Constraints | None = None,
    progress: Callback | None = None,
) -> list[Fitted]:
    """Make the best file for each budget, measure all of them, and write one report: the whole pipeline.

    One budget and one path, or as many of each. Raises InputError for a budget that is too small.
    """
    wanted = [budgets] if isinstance(budgets, str) else list(budgets)
    paths = [Path(outs)] if isinstance(outs, str | PathLike) else [Path(out) for out in outs]
    with reported(progress):
        return _fit(locate(str(model)), wanted, paths, settings or Settings(), constraints or Constraints(), _silent)


def tune(
    model: Location,
    out: Location,
    *,
    recipe: Location | None = None,
    type: str | None = None,
    embedding_type: str = "auto",
    text: Location | Sequence[Location] = (),
    own_text: int | None = None,
    tokens: int = 2_000_000,
    ctx: int = 512,
    only_norms: bool = False,
    measure: Location | Sequence[Location] = (),
    start: Location | None = None,
    window: int | None = None,
    seed: int = 0,
    imatrix: Location | None = None,
    hessian: Location | None = None,
    device: str = "cpu",
    threads: int | None = None,
    force: bool = False,
    progress: Callback | None = None,
) -> "Tuned":
    """Quantize MODEL, a Hugging Face folder, by a recipe or to one type, and train what the file holds.

    Without `text` the model writes its own; beside it, `own_text` tokens. The texts of `measure` are measured before
    and after; an untuned file with the same types as `start` saves encoding anew; `window` trains so many layers at a
    time, for models that do not fit.
    Raises InputError if the extra `tune` is missing, for a model that cannot be trained, and unless exactly one of
    `recipe` and `type` is given.
    """
    if (recipe is None) == (type is None):
        raise InputError("give either a recipe or a type")
    require_extra()
    from gguf_golf.tune.tune import tune as run  # an extra

    settings = TuneSettings(
        _paths(text),
        _paths(measure),
        _path(start),
        window,
        tokens,
        ctx,
        own_tokens=own_text,
        only_norms=only_norms,
        seed=seed,
        device=device,
    )
    job = Job(_path(imatrix), _path(hessian), device, threads, force=force)
    with reported(progress):
        return run(
            locate(str(model)),
            Path(out),
            recipe=_path(recipe),
            type_name=type,
            embedding_type=embedding_type,
            settings=settings,
            job=job,
        )


def _paths(locations: Location | Sequence[Location]) -> tuple[Path, ...]:
    return tuple(Path(each) for each in ([locations] if isinstance(locations, str | PathLike) else locations))


def evaluate(
    base: Location,
    quants: Location | Sequence[Location] = (),
    *,
    text: Location | None = None,
    chunks: int | None = None,
    ctx: int = 512,
    suite: Location | None = None,
    noise_floor: bool = False,
    peers: Sequence[Peer] = (),
    threads: int | None = None,
    progress: Callback | None = None,
) -> Evaluation:
    """Measure what `quants` lost against `base`, on a text (None: the embedded one) or by a suite.

    `peers` are the same model in other engines, which stay open; they are measured on the texts alone. Raises
    InputError for files and texts that do not fit together, DataError for logits that are not numbers.
    """
    if suite is None:
        measured = TextSettings(_path(text) or texts.EVALUATION, ctx, chunks)
        wanted = Suite(None, (measured,), noise_floor=noise_floor)
    else:
        wanted = read_suite(Path(suite))
    many = [quants] if isinstance(quants, str | PathLike) else quants
    files = [as_gguf(locate(str(quant))) for quant in many]
    base_file = as_gguf(locate(str(base)))
    with reported(progress):
        return Evaluation(run_suite(wanted, base_file, files, peers=peers, threads=threads), wanted.to_json())


def report(
    results: "Evaluation | Location | Sequence[Evaluation | Location]",
    out: Location | None = None,
    *,
    markdown: Location | None = None,
    csv: Location | None = None,
    force: bool = False,
) -> Verdict:
    """Which file to take, and how certain that is; writes the page, its Markdown and its CSV where they are named.

    Raises InputError for results that may not be compared with each other.
    """
    many = [results] if isinstance(results, Evaluation | str | PathLike) else list(results)
    sources: list[Path | Mapping[str, Any]] = [
        each.document if isinstance(each, Evaluation) else Path(each) for each in many
    ]
    return write_report(sources, _path(out), markdown=_path(markdown), csv=_path(csv), force=force)


def inspect(file: Location) -> Inspected:
    """What a GGUF file holds. Raises InputError if it is not one."""
    return _inspect.inspect(Path(file))


def load(model: Location, *, threads: int | None = None) -> Model:
    """Load MODEL to run it; a Hugging Face folder is converted first. Raises InputError if llama.cpp cannot."""
    return Model(as_gguf(locate(str(model))), threads)


def _path(location: Location | None) -> Path | None:
    return None if location is None else Path(location)


def _silent(_words: str) -> None:
    pass
