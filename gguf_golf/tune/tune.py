"""`gguf-golf tune`: a checkpoint into a GGUF of the types asked for, with the content that training found best."""

import copy
import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from gguf import GGUFValueType
from numpy.typing import NDArray

from gguf_golf import files
from gguf_golf.container.metadata import KEY_TUNED, MARK
from gguf_golf.container.tensors import Stored
from gguf_golf.errors import BuildError, InputError
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models import LazyTensor, MetadataField
from gguf_golf.models.gguf_file import read_gguf
from gguf_golf.models.hashing import file_sha256
from gguf_golf.models.roles import is_quantizable
from gguf_golf.quantize.assignment import AUTO
from gguf_golf.quantize.cached import as_gguf
from gguf_golf.quantize.job import DEFAULT_JOB, Job
from gguf_golf.quantize.load_check import check_loads
from gguf_golf.quantize.prepare import Prepared, by_recipe, by_type
from gguf_golf.quantize.stored import stored_tensors
from gguf_golf.quantize.writer import Written, write
from gguf_golf.runtime.cache import cache_dir
from gguf_golf.runtime.session import LoadedModel
from gguf_golf.tune import tokens as tokens_module
from gguf_golf.tune.mapping import link_matrices, link_norms
from gguf_golf.tune.refit import REFITS
from gguf_golf.tune.settings import MEASURED_CHUNKS, OWN_TOKENS, TEXT_CHARACTERS, Settings
from gguf_golf.tune.tokens import Tokens
from gguf_golf.tune.train import Divergence, Measure, Say, Schedule, Trained, train
from gguf_golf.tune.weights import Content, Matrix, Student
from gguf_golf.tune.windows import Work, train_windows

TRAINED_BPW = 6.0
"""Matrices of types with fewer bits per weight are trained; what more bits lose is not worth the memory."""

STEPS = 400
BATCH_TOKENS = (4096, 32768)
"""Tokens of a batch are what gives STEPS steps, between these bounds: more steps are better than larger batches."""

MEASURING, MEASURES = 0.1, (4, 20)
"""Share of the time that goes into measuring on the held-out text, within these numbers of measurements."""

ENCODE_EVERY, SLOW_ENCODE_EVERY = 2, 12
"""Steps between two encodings; ggml's encoders of IQ types take a hundred times as long as the others."""


@dataclass(frozen=True)
class Measured:
    """The KLD on a text that decided nothing, before and after."""

    text: Path
    before: Measure
    after: Measure


@dataclass(frozen=True)
class Tuned:
    """What was written, the held-out KLD before and after in nats, the steps, tokens and seconds of training, the texts
    that were only measured, and what a user should be told."""

    written: Written
    kld_before: float
    kld: float
    steps: int
    tokens: int
    seconds: float
    measured: list[Measured]
    notes: list[str]


def tune(
    source: Path,
    out: Path,
    *,
    recipe: Path | None = None,
    type_name: str | None = None,
    embedding_type: str = AUTO,
    settings: Settings,
    job: Job = DEFAULT_JOB,
    say: Say = lambda words: None,
) -> Tuned:
    """Write `out` with the types of `recipe`, or with one type, tuned to predict what the checkpoint predicts.

    Raises InputError for a source that transformers cannot load, tensors that cannot be mapped to it, and as
    `by_recipe` and `by_type` do.
    """
    if not source.is_dir():
        raise InputError(f"{source} cannot be tuned: training needs the Hugging Face folder that it was made from")
    read = [*settings.texts, *settings.measured, settings.start]
    files.check_output(out, read, mark=MARK, force=job.force)
    _check_device(settings.device)
    job, encoding_notes = _encoding_on(replace(job, keep_lattice=False))  # what is trained leaves its lattice
    if recipe is not None:
        made, _ = by_recipe(source, recipe, out, job)
        if made.protected:
            raise InputError(
                f"{recipe} protects rows of {', '.join(made.protected)}, and their residual cannot be tuned: plan with "
                "--no-protected-rows"
            )
    else:
        assert type_name is not None
        made = by_type(source, type_name, embedding_type, out, job)
    torch.set_num_threads(made.encoder.threads)
    teacher = _load(source, torch.float32 if settings.window is None else "auto")
    matrices, norms, links = _links(made, teacher)
    if settings.window is None:
        teacher.to(settings.device)
    tokens = _tokens(source, teacher, settings)
    schedule = _schedule(tokens, settings, made)
    say(f"{tokens.source}: {len(tokens.train)} chunks to train on, {len(tokens.held_out)} held out")
    guide = made.guide if settings.only_norms else made.guide.without_hessians()
    notes = [*made.notes, *encoding_notes]
    if guide is not made.guide:
        notes.append("the Hessians are not used: training takes the place of error feedback")
    work = Work(
        [Matrix(tensor, made.types[tensor.name], links[tensor.name], settings.device) for tensor in matrices],
        frozenset() if settings.only_norms else frozenset(n for n, t in made.types.items() if t.bpw < TRAINED_BPW),
        norms,
        guide,
        made.encoder,
        {} if settings.start is None else _started(settings.start, matrices, made.types),
        schedule,
        settings.device,
    )
    texts = [_read(source, text, settings.n_ctx) for text in settings.measured]
    described = {"schedule": asdict(schedule), "only_norms": settings.only_norms, "text_sha256": tokens.sha256}
    described |= {"window": settings.window, "start": None if settings.start is None else file_sha256(settings.start)}
    state = out.with_name(out.name + ".tune")
    identity = {**made.made_from, **described, "device": settings.device, "types": _names(made)}
    with files.locked(state):
        if settings.window is None:
            best, before, after = _train_whole(teacher, work, tokens, texts, state, identity, say)
        else:
            best, before, after = train_windows(teacher, settings.window, work, tokens, texts, state, identity, say)
        if best.best_step == 0:
            notes.append("tuning did not lower the held-out KLD: the file is the untuned one")
        written = write(
            _stored(made, best.content),
            out,
            metadata=[*made.metadata, *_provenance(tokens, schedule, settings, best)],
            made_from={**made.made_from, **described, "best_step": best.best_step, "kld": best.kld},
            inputs=[*made.inputs, *read],
            force=job.force,
            progress=job.progress,
        )
        notes += check_loads(out, made.model)
        for path in (state, *state.parent.glob(f"{glob.escape(state.name)}-*")):
            path.unlink(missing_ok=True)
    return Tuned(
        written,
        best.kld_before,
        best.kld,
        best.steps,
        best.steps * schedule.batch * settings.n_ctx,
        best.seconds,
        [Measured(*each) for each in zip(settings.measured, before, after, strict=True)],
        notes,
    )


def _train_whole(
    teacher: Any,
    work: Work,
    tokens: Tokens,
    texts: Sequence[NDArray[np.int32]],
    state: Path,
    identity: dict[str, Any],
    say: Say,
) -> tuple[Trained, list[Measure], list[Measure]]:
    """Train the model at once; what is found, and the KLD on `texts` before and after."""
    student = Student(copy.deepcopy(teacher), work.matrices, work.norms, work.guide, work.encoder, work.start)
    divergence = Divergence(teacher, student.model, tokens.train.shape[1], work.device)
    before = [divergence.measure(text) for text in texts]
    trained = [matrix for matrix in work.matrices if matrix.tensor.name in work.trained]
    best = train(student, divergence, tokens, work.schedule, trained, state, identity, say)
    if texts:
        student.put(best.content)
    return best, before, [divergence.measure(text) for text in texts]


def _check_device(device: str) -> None:
    if device not in ("cpu", "cuda"):
        raise InputError(f"there is no device {device!r} to train on; devices are cpu and cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("PyTorch finds no NVIDIA GPU here: use --device cpu, or install a PyTorch with CUDA")


def _encoding_on(job: Job) -> tuple[Job, list[str]]:
    """The job on the CPU, with a note, where the runtime has no encoder for the GPU."""
    try:
        job.encoder()
    except BuildError as error:
        return replace(job, device="cpu"), [f"encoding on the CPU: {error}"]
    return job, []


def _load(source: Path, dtype: Any) -> Any:
    """The transformers model on the CPU; "auto" is the checkpoint's own type."""
    transformers.utils.logging.disable_progress_bar()
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=dtype, local_files_only=True)
    except Exception as error:  # transformers raises what it likes for what it does not know
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{source}: transformers cannot load it to train ({reason})") from error
    return model.eval().requires_grad_(False)


def _links(made: Prepared, teacher: Any) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """The tensors that the student must have as they are stored, how norms map, and how those tensors map."""
    parameters = {name: parameter.detach() for name, parameter in teacher.named_parameters()}
    matrices = [t for t in made.model.tensors if is_quantizable(t) and made.types[t.name].is_quantized]
    return matrices, link_norms(made.model, parameters), link_matrices(matrices, parameters)


def _tokens(source: Path, teacher: Any, settings: Settings) -> Tokens:
    own = settings.own_tokens
    if own is None:
        own = 0 if settings.texts else min(settings.tokens, OWN_TOKENS)
    if settings.window is not None and own:
        raise InputError("a model that is trained window by window cannot write its own text: give some with --text")
    if not settings.texts and not own:
        raise InputError("there is no text to train on: give some with --text, or let the model write some")
    converted = as_gguf(source)
    parts = [tokens_module.from_files(converted, settings.texts, settings.n_ctx)] if settings.texts else []
    if own:
        with LoadedModel(converted, vocab_only=True) as model:
            start = max(model.text_start, 0)
        n_chunks, kept = max(16, own // settings.n_ctx), cache_dir() / "sampled" / converted.name
        parts.append(
            tokens_module.sampled(
                teacher, start, n_chunks, settings.n_ctx, seed=settings.seed, device=settings.device, kept=kept
            )
        )
    return tokens_module.together(parts)


def _read(source: Path, text: Path, n_ctx: int) -> NDArray[np.int32]:
    return tokens_module.read_chunks(as_gguf(source), text, n_ctx, MEASURED_CHUNKS)


def _started(path: Path, matrices: Sequence[LazyTensor], types: Mapping[str, QuantType]) -> dict[str, torch.Tensor]:
    """The bytes of an untuned file. Raises InputError if it has another type or shape for one of these matrices."""
    stored = {tensor.name: tensor for tensor in read_gguf(path).tensors}
    for tensor in matrices:
        wanted, found = types[tensor.name], stored.get(tensor.name)
        same = found is not None and (int(found.tensor_type), tuple(found.shape)) == (wanted.id, tensor.shape[::-1])
        if not same:
            raise InputError(f"{path} cannot be the start: its {tensor.name} is not {wanted.name} of {tensor.shape}")
    return {tensor.name: torch.tensor(stored[tensor.name].data) for tensor in matrices}


def _schedule(tokens: Tokens, settings: Settings, made: Prepared) -> Schedule:
    wanted = settings.batch_tokens or min(max(settings.tokens // STEPS, BATCH_TOKENS[0]), BATCH_TOKENS[1])
    batch = max(1, wanted // settings.n_ctx)
    steps = max(1, settings.tokens // (batch * settings.n_ctx))
    slow = any(each.encodes_slowly and each.name not in REFITS for each in made.types.values())
    encode_every = SLOW_ENCODE_EVERY if slow else ENCODE_EVERY
    # a training step runs both models forward and one backward, a measurement both forward
    n_measures = min(max(settings.tokens * 4 * MEASURING // (tokens.held_out.size * 2), MEASURES[0]), MEASURES[1])
    measure_every = max(1, steps // int(n_measures * encode_every)) * encode_every
    return Schedule(steps, batch, encode_every, measure_every, settings.seed)


def _names(made: Prepared) -> dict[str, str]:
    return {name: quant_type.name for name, quant_type in made.types.items()}


def _stored(made: Prepared, content: Content) -> list[Stored]:
    """What `quantize` would write, with what was trained in its place."""
    data: dict[str, NDArray[np.uint8]] = dict(content.matrices)
    data |= {name: values.view(np.uint8) for name, values in content.norms.items()}

    def replaced(tensor: Stored) -> Stored:
        if tensor.name not in data:
            return tensor

        def parts() -> Iterator[NDArray[np.uint8]]:
            yield np.ascontiguousarray(data[tensor.name])

        return replace(tensor, parts=parts)

    return [replaced(tensor) for tensor in stored_tensors(made.model, made.types, made.guide, made.encoder)]


def _provenance(tokens: Tokens, schedule: Schedule, settings: Settings, best: Trained) -> list[MetadataField]:
    """How the content came to be, under gguf_golf.tune."""
    text, count, number = GGUFValueType.STRING, GGUFValueType.UINT64, GGUFValueType.FLOAT32
    entries: list[tuple[str, object, GGUFValueType]] = [
        ("text", tokens.source[:TEXT_CHARACTERS], text),
        ("text_sha256", tokens.sha256, text),
        ("trained", "norms" if settings.only_norms else "weights and norms", text),
        ("tokens", best.best_step * schedule.batch * settings.n_ctx, count),
        ("steps", best.best_step, count),
        ("seed", settings.seed, count),
        ("kld_before", best.kld_before, number),
        ("kld", best.kld, number),
    ]
    return [MetadataField(KEY_TUNED + name, value, type_) for name, value, type_ in entries]
