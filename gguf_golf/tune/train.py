"""The training loop: KL divergence to the original model, on batches of text; what is held out decides what is kept."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from gguf_golf import files
from gguf_golf.progress import ProgressBar
from gguf_golf.quantize.stored import OutOfRange
from gguf_golf.tune.tokens import Tokens, batches
from gguf_golf.tune.weights import Content, Matrix, Student

MATRIX_RATE = 8e-3
"""Adam's rate for latents, in units of the rms of the encoding error: a weight needs hundreds of steps to cross to the
next code, so that the encoder sees slow changes (four times as high a rate diverges)."""

NORM_RATE = 2e-3
"""The rate for norms, in units of their rms."""

NORM_DRIFT, FASTEST_NORM = 0.7, 1.5e-2
"""Norms that are trained alone, which takes few steps on a CPU, have the rate that lets them go so far in all; no code
changes under them."""

WARM_UP, LAST = 10, 0.05
"""Steps until the full rate, and the share of it that is left at the end of the cosine."""

DIVERGED = 1.5
"""Training stops where the held-out KLD is so many times the untuned one. That it no longer falls is no reason: while
the rate is high it often does not, and most is gained while the rate falls."""

SAVE_SECONDS = 60.0
"""An interrupted run loses no more than that, and a measurement's time; saving takes seconds on a large model."""

PORTION_BYTES = 2 << 30
"""Memory for one portion of a batch on a CPU; on a GPU, it is half of what is free."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Schedule:
    """How long and in which portions: `steps` of `batch` chunks; weights are encoded again every `encode_every` steps,
    and the held-out text is measured every `measure_every` (a multiple of it)."""

    steps: int
    batch: int
    encode_every: int
    measure_every: int
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """The best content seen, its held-out KLD in nats and that of the start, and the steps done (0: nothing gained)."""

    content: Content
    kld: float
    kld_before: float
    best_step: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class Measure:
    """A mean KLD in nats per token, and its standard error."""

    kld: float
    error: float


class Divergence:
    """KL(teacher || student) in nats per token, in portions that fit the memory."""

    measure_name = "KLD"

    def __init__(self, teacher: Any, student: Any, n_ctx: int, device: str) -> None:
        self._teacher, self._student, self._device = teacher, student, device
        self._portion = portion(teacher, n_ctx, device)

    def train(self, chunks: NDArray[np.int32]) -> float:
        """Add the gradients of the mean over all tokens; that mean."""
        total = torch.zeros((), device=self._device)
        for ids in self._portions(chunks):
            with torch.autocast(self._device, torch.bfloat16, enabled=self._device == "cuda"):
                with torch.no_grad():
                    expected = self._teacher(input_ids=ids, use_cache=False).logits
                found = self._student(input_ids=ids, use_cache=False).logits
            loss = divergences(expected, found).sum() / chunks.size
            loss.backward()
            total += loss.detach()
        return float(total)

    def measure(self, chunks: NDArray[np.int32]) -> Measure:
        """Over the second half of each chunk, as `gguf-golf eval` scores it, in full precision."""
        every = []
        for ids in self._portions(chunks):
            first = ids.shape[1] // 2
            with torch.no_grad():
                expected = self._teacher(input_ids=ids, use_cache=False).logits[:, first:-1]
                each = divergences(expected, self._student(input_ids=ids, use_cache=False).logits[:, first:-1])
            every.append(each.double().flatten())
        return measure_of(torch.cat(every))

    def _portions(self, chunks: NDArray[np.int32]) -> Sequence[torch.Tensor]:
        ids = torch.from_numpy(chunks.astype(np.int64)).to(self._device)
        return list(ids.split(self._portion))


class Loss(Protocol):
    """What training lowers; chunks i32 [n, ...] are what `Tokens` hands out."""

    measure_name: str

    def train(self, chunks: NDArray[np.int32]) -> float:
        """Add the gradients of the mean over all tokens; that mean."""

    def measure(self, chunks: NDArray[np.int32]) -> Measure:
        """What decides."""


def measure_of(tokens: torch.Tensor) -> Measure:
    """The mean of the tokens' values and its error."""
    return Measure(float(tokens.mean()), float(tokens.std()) / len(tokens) ** 0.5)


def portion(model: Any, n_ctx: int, device: str, n_layers: int | None = None) -> int:
    """How many chunks a model, or `n_layers` of it, can be trained on at a time."""
    free = torch.cuda.mem_get_info()[0] // 2 if device == "cuda" else PORTION_BYTES
    return max(1, free // (_token_bytes(model, n_layers) * n_ctx))


def _token_bytes(model: Any, n_layers: int | None) -> int:
    """About what training keeps for a token: of each layer two dozen vectors, and logits eight times."""
    config = model.config.get_text_config()
    wide = int(getattr(config, "intermediate_size", 0) or 4 * config.hidden_size)
    layers = config.num_hidden_layers if n_layers is None else n_layers
    return int(4 * (layers * (24 * config.hidden_size + 6 * wide) + 8 * config.vocab_size))


def train(
    student: Student,
    divergence: Loss,
    tokens: Tokens,
    schedule: Schedule,
    trained: Sequence[Matrix],
    state: Path,
    job: Any,
    say: Say,
) -> Trained:
    """Train the norms, and the latents of `trained` if there are any.

    `state` is a file where an interrupted run of the same `job` resumes, with the same result; it stays.
    """
    norms = student.train_norms()
    before = divergence.measure(tokens.held_out).kld
    best = Trained(student.content(), before, before, 0, 0, 0.0)
    norm_rate = NORM_RATE if trained else max(NORM_RATE, min(NORM_DRIFT / schedule.steps, FASTEST_NORM))
    optimizer = _optimizer(norms, norm_rate, student.train_matrices(trained))
    rates = [group["lr"] for group in optimizer.param_groups]
    batch = batches(tokens, schedule.batch, schedule.seed)
    begun, started = 0, time.monotonic()
    saved = started
    if (left_off := _resume(state, job)) is not None:
        begun, content = left_off["step"], Content.of_tensors(left_off["content"])
        best = Trained(**left_off["best"], content=content)
        if begun == schedule.steps:
            return best
        started -= best.seconds
        _restore(left_off, optimizer, student, trained)
        say(f"resuming at step {begun} of {schedule.steps}")
    say(f"held-out {divergence.measure_name} before tuning: {before:.5f}")
    with ProgressBar(total=schedule.steps, initial=begun, desc="tuning", unit="step") as bar:
        for step in range(begun, schedule.steps):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * _share(step, schedule.steps)
            optimizer.zero_grad()
            loss = divergence.train(batch(step))
            if not math.isfinite(loss):
                say(f"stopping: the loss is not a number at step {step + 1}")
                break
            student.pass_gradients()
            optimizer.step()
            bar.update()
            done = step + 1
            if done % schedule.encode_every and done < schedule.steps:
                continue
            if not _refreshed(student, trained, say):
                break
            if done % schedule.measure_every and done < schedule.steps:
                continue
            kld, seconds = divergence.measure(tokens.held_out).kld, time.monotonic() - started
            left = seconds / done * (schedule.steps - done)
            found = f"held-out {divergence.measure_name} {kld:.5f}"
            say(f"step {done} of {schedule.steps}: loss {loss:.5f}, {found}, {left:.0f} s left")
            if kld < best.kld:
                best = Trained(student.content(), kld, before, done, done, seconds)
            best = replace(best, steps=done, seconds=seconds)
            if done < schedule.steps and not kld < DIVERGED * before:
                say(f"stopping early: the held-out {divergence.measure_name} is far above that of the untuned file")
                break
            if done < schedule.steps and time.monotonic() - saved >= SAVE_SECONDS:
                _save(state, job, done, best, optimizer, trained)
                saved = time.monotonic()
    _save(state, job, schedule.steps, best, None, [])
    return best


def _refreshed(student: Student, trained: Sequence[Matrix], say: Say) -> bool:
    """Whether the latents could be encoded: where training has diverged, they cannot."""
    try:
        student.refresh(trained)
    except OutOfRange as error:
        say(f"stopping: {error}")
        return False
    return True


def divergences(expected: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """KL divergence f32 [...] of the distributions with these logits [..., n_vocab]."""
    p, q = torch.log_softmax(expected.float(), -1), torch.log_softmax(found.float(), -1)
    return torch.sum(p.exp() * (p - q), -1)


def _optimizer(
    norms: Sequence[torch.Tensor], norm_rate: float, latents: Sequence[tuple[torch.Tensor, float]]
) -> torch.optim.Adam:
    """Latents come with the measure of their steps."""
    groups = [{"params": [norm], "lr": norm_rate * float(norm.detach().square().mean().sqrt())} for norm in norms]
    groups += [{"params": [latent], "lr": MATRIX_RATE * error} for latent, error in latents]
    return torch.optim.Adam(groups, betas=(0.9, 0.95), fused=True)


def _share(step: int, steps: int) -> float:
    """Of the full rate: a linear start, then a cosine."""
    return min(1.0, (step + 1) / WARM_UP) * (LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _parameters(optimizer: torch.optim.Adam) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _save(
    state: Path, job: Any, step: int, best: Trained, optimizer: torch.optim.Adam | None, trained: Sequence[Matrix]
) -> None:
    record = {
        "job": job,
        "step": step,
        "best": {field.name: getattr(best, field.name) for field in fields(best) if field.name != "content"},
        "content": best.content.tensors(),
        "parameters": [] if optimizer is None else [p.detach().cpu() for p in _parameters(optimizer)],
        "data": [matrix.data.cpu() for matrix in trained],
        "optimizer": None if optimizer is None else optimizer.state_dict(),
    }
    with files.replace_file(state) as partial:
        torch.save(record, partial)


def _restore(
    left_off: dict[str, Any], optimizer: torch.optim.Adam, student: Student, trained: Sequence[Matrix]
) -> None:
    with torch.no_grad():
        for parameter, value in zip(_parameters(optimizer), left_off["parameters"], strict=True):
            parameter.copy_(value)
    optimizer.load_state_dict(left_off["optimizer"])
    student.restore(trained, left_off["data"])


def _resume(state: Path, job: Any) -> dict[str, Any] | None:
    """What a run of the same job left, or None."""
    if not state.is_file():
        return None
    try:
        record: dict[str, Any] = torch.load(state, map_location="cpu", weights_only=True)
    except Exception:  # torn, or of another version of torch: begin again
        return None
    return record if isinstance(record, dict) and record.get("job") == job else None
