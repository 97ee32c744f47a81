"""Mechanisms that need training, each trained together with the weights and norms of the whole model, as `gguf-golf
tune` trains them: by the divergence from the 16-bit model, on text that neither ranks nor judges.

- none: the plain base, and a larger plan, which the others have to beat at their bytes.
- norm: an RMSNorm of its own before each linear layer (arXiv:2505.08823); its weights begin as the size of the inputs.
- rotation: the weights are trained in the rotated basis that they are stored in (see rotation.py).
- branch: a narrow branch at 8 bits beside the trunk (as in pQuant, which trains both from nothing); it begins as the
  best directions of what the trunk lost.
"""

import copy
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from gguf_golf.formats import quant_types
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.tune.decode import decode
from gguf_golf.tune.train import MATRIX_RATE, NORM_RATE

from .bench import RATES, Bench, Cell, Weights, resolve, size
from .rotation import Basis
from .storage import Stored, grid, grid_bytes, plain
from .subject import Matrix, log_probabilities

EXPERIMENT = "trained"

MECHANISMS = ("none", "norm", "branch", "rotation")
STEPS, BATCH, EVERY = 120, 8, 3
"""Steps of training, chunks for each, and steps between two encodings."""

WARM_UP, LAST = 10, 0.05
"""Steps until the full rate, and the share of it that is left at the end of a cosine."""

LARGER = 1.3
"""Size of the plan, in those of the uniform base: with that base, what mechanisms are compared with."""

BLOCK = 256
"""Of a rotation, where it divides the inputs."""

BRANCH_SHARE, BRANCH_BITS, BRANCH_RATE = 0.15, 8, 1e-3
"""Bytes of a branch in those of its matrix, its bits, and the rate of its factors in their rms."""


def cells() -> Iterator[Cell]:
    """Every mechanism on the uniform base at 1 and 2 bits, and a plan of more bytes without any."""
    for rate in (1, 2):
        for mechanism in MECHANISMS:
            key = {"mechanism": mechanism, "base": "uniform", "rate": rate}
            yield Cell(EXPERIMENT, key, _uniform, (mechanism, rate), 1)
            if mechanism == "none":
                key = {"mechanism": "none", "base": "planned", "rate": rate, "larger": LARGER}
                yield Cell(EXPERIMENT, key, _planned, (rate, LARGER), 1)


def _uniform(bench: Bench, mechanism: str, rate: int) -> Weights:
    return _trained(bench, bench.uniform(rate, False), mechanism)


def _planned(bench: Bench, rate: int, larger: float) -> Weights:
    budget = larger * size(bench.uniform(rate, False))
    return _trained(bench, resolve(bench.free_plans(False).at(budget)), "none")


class _Norm(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """An RMSNorm before a matrix, which begins by giving back inputs of the usual size as they are."""

    def __init__(self, matrix: Matrix) -> None:
        super().__init__()
        self.weight = nn.Parameter(matrix.hessian.diagonal().mean().sqrt().expand(len(matrix.hessian)).clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-12)


class _Latent:
    """A matrix in training: `trunk` f32 [n, k] in the basis that it is stored in, before encoding, and the factors
    f32 [n, r] and [r, k] of its branch before rounding."""

    def __init__(self, bench: Bench, matrix: Matrix, quant_type: QuantType, mechanism: str) -> None:
        self._bench, self._matrix, self._type = bench, matrix, quant_type
        self._basis = Basis(matrix.original, BLOCK if mechanism == "rotation" else 1, bench.seed)
        self._guidance = plain(self._basis.hessian(matrix.hessian))
        self.trunk = self._basis.turned(matrix.original).contiguous()
        self.factors: list[Tensor] = []
        self.encode()
        if mechanism == "branch":
            self._split()

    def rates(self) -> list[tuple[Tensor, float]]:
        """What is trained, with its rate."""
        error = self.trunk - self._basis.turned(self._encoded)
        return [(self.trunk, MATRIX_RATE * _rms(error)), *((f, BRANCH_RATE * _rms(f)) for f in self.factors)]

    def encode(self) -> None:
        """Encode the trunk anew, and compute with it."""
        encoder, rows = self._bench.storage.encoder, self.trunk.detach()
        if rows.is_cuda:
            torch.cuda.synchronize()
        data = torch.from_numpy(encoder.encode(rows if rows.is_cuda else rows.numpy(), self._type, self._guidance))
        shape = (rows.shape[0], rows.shape[1])
        self._encoded = self._basis.back(decode(data, self._type, shape, self._bench.storage.device, encoder.threads))
        self.place()

    def place(self) -> None:
        """Let the model compute with what is encoded and the branch as it is now."""
        self._bench.subject.put(self._matrix, self.weights())

    def weights(self) -> Tensor:
        """f32 [n, k]: what the model computes with."""
        if not self.factors:
            return self._encoded
        left, right = self._rounded()
        return self._encoded + left @ right

    def pass_gradient(self) -> None:
        """From what the model computes with to what is trained, past all rounding."""
        weight = self._matrix.module.weight
        gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad  # none: an expert without tokens
        weight.grad = None
        self.trunk.grad = self._basis.turned(gradient)
        if self.factors:
            left, right = self._rounded()
            self.factors[0].grad, self.factors[1].grad = gradient @ right.T, left.T @ gradient

    def branch_bytes(self) -> int:
        """Of the factors."""
        return sum(grid_bytes(factor.numel(), BRANCH_BITS) for factor in self.factors)

    def _split(self) -> None:
        """Begin a branch with what the trunk lost, and encode the rest."""
        n, k = self.trunk.shape
        n_bytes = BRANCH_SHARE * n * self._type.row_bytes(k)
        rank = max(1, int(8 * n_bytes / ((BRANCH_BITS + 0.5) * (n + k))))
        importance = self._matrix.hessian.diagonal().clamp(min=1e-20).sqrt()
        torch.manual_seed(self._bench.seed)
        left, strengths, right = torch.svd_lowrank((self.trunk - self._encoded) * importance, q=rank, niter=4)
        left, right = left * strengths, right.T / importance
        balance = (right.norm(dim=1) / left.norm(dim=0).clamp(min=1e-30)).sqrt()  # so that f16 scales hold both
        self.factors = [(left * balance).contiguous(), (right / balance.clamp(min=1e-30)[:, None]).contiguous()]
        left, right = self._rounded()
        self.trunk = self.trunk - left @ right
        self.encode()

    def _rounded(self) -> tuple[Tensor, Tensor]:
        left, right = self.factors
        return grid(left, BRANCH_BITS, 0), grid(right, BRANCH_BITS)


def _trained(bench: Bench, stored: Mapping[str, Stored], mechanism: str) -> Weights:
    subject = bench.subject
    subject.fill({})
    teacher = copy.deepcopy(subject.model)
    inputs = {m.name: _Norm(m) for m in bench.linear} if mechanism == "norm" else {}
    subject.fill({name: s.weights for name, s in stored.items()}, inputs=inputs)
    types = {m.name: _type_of(bench, m, stored[m.name]) for m in bench.linear}
    latents = {m.name: _Latent(bench, m, types[m.name], mechanism) for m in bench.linear if types[m.name].tcq}
    norms = [*subject.norms.values(), *(norm.weight for norm in inputs.values())]
    weights = [bench.subject.matrices[name].module.weight for name in latents]
    rates = [(norm, NORM_RATE * _rms(norm)) for norm in norms] + [p for each in latents.values() for p in each.rates()]
    optimizer = torch.optim.Adam([{"params": [p], "lr": rate} for p, rate in rates], betas=(0.9, 0.95))
    for parameter in (*norms, *weights):
        parameter.requires_grad_(True)
    for step in range(STEPS):
        for group, (_, rate) in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * _share(step)
        _divergence(bench, teacher, step).backward()
        for latent in latents.values():
            latent.pass_gradient()
        optimizer.step()
        optimizer.zero_grad()
        for latent in latents.values():
            latent.encode() if (step + 1) % EVERY == 0 or step == STEPS - 1 else latent.place()
    for parameter in (*norms, *weights):
        parameter.requires_grad_(False)
    trained = {**{name: s.weights for name, s in stored.items()}, **{n: each.weights() for n, each in latents.items()}}
    extra = sum(each.branch_bytes() for each in latents.values()) + sum(4 * len(n.weight) for n in inputs.values())
    extra += bench.companion_bytes(latents, 2 if mechanism == "branch" else 1 if mechanism == "norm" else 0)
    own_norms = {name: norm.detach().clone() for name, norm in subject.norms.items()}
    return Weights(trained, subject.fixed_bytes + size(stored) + extra, norms=own_norms, inputs=inputs)


def _divergence(bench: Bench, teacher: nn.Module, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * bench.seed + step)
    tokens = bench.corpus[torch.randperm(len(bench.corpus), generator=generator)[:BATCH].to(bench.corpus.device)]
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=tokens.is_cuda):
        with torch.no_grad():
            expected = log_probabilities(teacher, tokens)
        found = bench.subject.log_probabilities(tokens)
    return (expected.exp() * (expected - found)).sum(-1).mean()


def _share(step: int) -> float:
    """Of the full rate."""
    return min(1.0, (step + 1) / WARM_UP) * (LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * step / STEPS)))


def _rms(x: Tensor) -> float:
    return float(x.detach().square().mean().sqrt())


def _type_of(bench: Bench, matrix: Matrix, stored: Stored) -> QuantType:
    """The type that a matrix of a base or a plan has."""
    names = [*(f"tcq{rate}" for rate in RATES), "q6_k", "q8_0"]
    found = next(name for name in names if bench.storage.at(matrix, name, fed=False) is stored)
    return quant_types.type_for_row(found, matrix.original.shape[1])[0]
