"""Training of a few layers at a time, for models that do not fit: what enters them lies on disk, one window in memory.

Each window of layers gets what the tuned layers before it give out, and learns to give out what the original model does
there; the last one, with the head, learns the predictions. Texts to measure on run along, tuned and untuned.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gguf_golf.encode import Encoder, Guide
from gguf_golf.errors import InputError
from gguf_golf.tune.mapping import NormLink
from gguf_golf.tune.tokens import Tokens
from gguf_golf.tune.train import Measure, Say, Schedule, Trained, divergences, measure_of, portion, train
from gguf_golf.tune.weights import Content, Matrix, Student


@dataclass(frozen=True)
class Work:
    """What is trained, and with what; `trained` are the names of matrices, `start` bytes of an untuned file."""

    matrices: Sequence[Matrix]
    trained: frozenset[str]
    norms: Mapping[str, NormLink]
    guide: Guide
    encoder: Encoder
    start: Mapping[str, torch.Tensor]
    schedule: Schedule
    device: str


def train_windows(
    teacher: Any,
    size: int,
    work: Work,
    tokens: Tokens,
    texts: Sequence[NDArray[np.int32]],
    state: Path,
    identity: dict[str, Any],
    say: Say,
) -> tuple[Trained, list[Measure], list[Measure]]:
    """Train `size` layers at a time; what is found, and the KLD on `texts` before and after.

    An interrupted run goes on at its window: `state` is the prefix of a file for each. Raises InputError for a model
    that is not a row of layers between an embedding and a norm.
    """
    layers = _layers(teacher)
    spans = [range(first, min(first + size, len(layers))) for first in range(0, len(layers), size)]
    ids = {"train": tokens.train, "held": tokens.held_out, **{f"text{i}": text for i, text in enumerate(texts)}}
    found = Content({}, {})
    untuned = Content({}, {})
    steps, seconds = 0, 0.0
    with TemporaryDirectory(dir=state.parent, prefix=f"{state.name}-") as folder:
        begun = _Embedded(teacher, work)
        found.matrices.update(begun.content)
        untuned.matrices.update(begun.content)
        streams = _Streams(Path(folder), ids, teacher, begun)
        for i, span in enumerate(spans):
            last = span is spans[-1]
            target = _part(teacher, span, head=False).float().to(work.device)
            streams.advance("teacher", target, work.device)
            del target
            model = _part(teacher, span, head=last).float()
            if last:
                begun.put_head(model)
            student = _student(model.to(work.device), work)
            before = student.content()
            untuned.matrices.update(before.matrices)
            untuned.norms.update(before.norms)
            head = _part(teacher, range(0), head=True).float().to(work.device) if last else None
            loss = _Loss(student.model, head, streams, work.device)
            if last:
                measures = [loss.of("untuned", name) for name in ids if name != "train"]
            else:
                streams.advance("untuned", student.model, work.device)
            numbers = {name: np.arange(len(chunks), dtype=np.int32)[:, None] for name, chunks in ids.items()}
            best = train(
                student,
                loss,
                Tokens(numbers["train"], numbers["held"], tokens.source),
                work.schedule,
                [matrix for matrix in student.matrices if matrix.tensor.name in work.trained],
                state.with_name(f"{state.name}-{i}"),
                {**identity, "window": [span.start, span.stop]},
                lambda words, span=span: say(f"layers {span.start} to {span.stop - 1}: {words}"),  # type: ignore[misc]
            )
            student.put(best.content)
            found.matrices.update(best.content.matrices)
            found.norms.update(best.content.norms)
            steps, seconds = steps + best.best_step, seconds + best.seconds
            if last:
                tuned = [loss.of("student", name) for name in ids if name != "train"]
            else:
                streams.advance("student", student.model, work.device)
            for matrix in student.matrices:
                matrix.release()
    gained = tuned[0].kld < measures[0].kld
    trained = Trained(found if gained else untuned, 0.0, measures[0].kld, steps if gained else 0, steps, seconds)
    trained = replace(trained, kld=min(tuned[0].kld, measures[0].kld))
    return trained, measures[1:], tuned[1:] if gained else measures[1:]


class _Skip(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    """A layer, norm or head that is not in a window: gives out what comes in."""

    def forward(self, hidden: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        return hidden


def _layers(model: Any) -> Any:
    base = model.base_model
    if not isinstance(getattr(base, "layers", None), torch.nn.ModuleList) or not hasattr(base, "norm"):
        raise InputError("this architecture cannot be tuned window by window: tune it whole, or only its norms")
    return base.layers


def _count(part: Any) -> int:
    """Layers that are in a part of a model."""
    return sum(not isinstance(layer, _Skip) for layer in part.base_model.layers)


def _part(model: Any, span: range, *, head: bool) -> Any:
    """A copy of the model with these layers alone, and its last norm and head if they are wanted."""
    skipped = [layer for i, layer in enumerate(_layers(model)) if i not in span]
    if not head:
        skipped += [model.base_model.norm, model.get_output_embeddings()]
    memo: dict[int, Any] = {id(module): _Skip() for module in [*skipped, model.get_input_embeddings()]}
    return copy.deepcopy(model, memo)


def _student(model: Any, work: Work) -> Student:
    """The student of one window, with what of the job lies in it."""
    here = {name for name, _ in model.named_parameters()}
    matrices = [m for m in work.matrices if {piece.parameter for piece in m.link.pieces} <= here]
    norms = {name: link for name, link in work.norms.items() if link.parameter in here}
    return Student(model, matrices, norms, work.guide, work.encoder, work.start)


class _Embedded:
    """The embedding as it is stored, on the CPU, and its bytes in `content`."""

    def __init__(self, teacher: Any, work: Work) -> None:
        self.module = copy.deepcopy(teacher.get_input_embeddings()).float()
        self.content: dict[str, NDArray[np.uint8]] = {}
        own = teacher.get_input_embeddings().weight
        self._tied = teacher.get_output_embeddings().weight is own
        name = next(name for name, parameter in teacher.named_parameters() if parameter is own)
        for matrix in work.matrices:
            if any(piece.parameter == name for piece in matrix.link.pieces):
                matrix.begin(work.guide, work.encoder, work.start.get(matrix.tensor.name))
                with torch.no_grad():
                    matrix.link.scatter(matrix.stored, {name: self.module.weight})
                self.content[matrix.tensor.name] = matrix.data.cpu().numpy().copy()

    def put_head(self, model: Any) -> None:
        """Where the head is the embedding, make it the stored one."""
        if self._tied:
            model.get_output_embeddings().weight.data.copy_(self.module.weight.data)


class _Streams:
    """Files f32 [n, n_ctx, width] of what enters the next window: of each text, for teacher, student and untuned."""

    def __init__(self, folder: Path, ids: Mapping[str, NDArray[np.int32]], teacher: Any, begun: _Embedded) -> None:
        original, width = teacher.get_input_embeddings(), teacher.config.get_text_config().hidden_size
        self._files: dict[tuple[str, str], torch.Tensor] = {}
        for name, chunks in ids.items():
            for who in ("teacher", "student", *(() if name == "train" else ("untuned",))):
                path, n = folder / f"{who}-{name}", chunks.size * width
                stream = torch.from_file(str(path), shared=True, size=n, dtype=torch.float32)
                stream = stream.view(*chunks.shape, width)
                module = original if who == "teacher" else begun.module
                with torch.no_grad():
                    for i, chunk in enumerate(chunks):
                        stream[i] = module(torch.from_numpy(chunk.astype(np.int64))).float()
                self._files[who, name] = stream

    def __getitem__(self, key: tuple[str, str]) -> torch.Tensor:
        return self._files[key]

    def advance(self, who: str, part: Any, device: str) -> None:
        """Let all texts of `who` pass through a part of the model."""
        for (whose, _), stream in self._files.items():
            if whose == who:
                for piece in stream.split(portion(part, stream.shape[1], device, _count(part))):
                    with torch.no_grad():
                        piece.copy_(_run(part, piece.to(device)).cpu())


def _run(part: Any, hidden: torch.Tensor) -> torch.Tensor:
    """What comes out of a part without a head."""
    out = part.base_model(inputs_embeds=hidden, use_cache=False).last_hidden_state
    return out.float()


class _Loss:
    """How far a window is from the original: the squared error of what it gives out relative to the square, or, with
    the original's `head` behind it, the KL divergence."""

    def __init__(self, part: Any, head: Any, streams: _Streams, device: str) -> None:
        self._part, self._head, self._streams, self._device = part, head, streams, device
        self.measure_name = "relative error" if head is None else "KLD"

    def train(self, indices: NDArray[np.int32]) -> float:
        """Add the gradients of the mean over all tokens; that mean."""
        total = 0.0
        for inputs, expected in self._pairs("student", "train", indices):
            with torch.autocast(self._device, torch.bfloat16, enabled=self._device == "cuda"):
                each = self._each(inputs, expected)
            loss = each.sum() / (indices.size * each.shape[1])
            loss.backward()
            total += float(loss.detach())
        return total

    def measure(self, indices: NDArray[np.int32]) -> Measure:
        """Over the second half of each held-out chunk."""
        return self._measured("student", "held", indices)

    def of(self, who: str, name: str) -> Measure:
        """Over the second half of each chunk of a text, from the stream of `who`."""
        return self._measured(who, name, np.arange(len(self._streams[who, name]))[:, None])

    def _measured(self, who: str, name: str, indices: NDArray[Any]) -> Measure:
        every = []
        with torch.no_grad():
            for inputs, expected in self._pairs(who, name, indices):
                every.append(self._each(inputs, expected)[:, inputs.shape[1] // 2 : -1].double().flatten())
        return measure_of(torch.cat(every))

    def _pairs(self, who: str, name: str, indices: NDArray[Any]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        inputs, expected = self._streams[who, name], self._streams["teacher", name]
        at_once = portion(self._part, inputs.shape[1], self._device, _count(self._part))
        for some in torch.from_numpy(indices[:, 0].astype(np.int64)).split(at_once):
            yield inputs[some].to(self._device), expected[some].to(self._device)

    def _each(self, inputs: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
        """[chunks, n_ctx]."""
        if self._head is None:
            error = (_run(self._part, inputs) - expected).square().sum(-1)
            return error / expected.square().sum(-1)
        with torch.no_grad():
            wanted = self._head(inputs_embeds=expected, use_cache=False).logits
        return divergences(wanted, self._part(inputs_embeds=inputs, use_cache=False).logits)
