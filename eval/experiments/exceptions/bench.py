"""The bench that all experiments share: one subject, its judges, the plain types, the plans, and the journal of cells.

A cell is one way to store the whole model, judged by KLD to the 16-bit model on held-out text. Finished cells are in
the journal and are not made again.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gguf_golf.formats import quant_types
from gguf_golf.journal import Journal

from .plans import Candidate, Curve, Path
from .storage import COMPANION_BYTES, Storage, Stored
from .subject import VOCABULARY, Matrix, Subject

RATES = (1, 2, 3, 4, 5)
BASES = (1, 2, 3, 4)

VOCABULARY_TYPES = {1: "tcq4", 2: "tcq4", 3: "tcq4", 4: "tcq5", 5: "q6_k"}
"""The vocabulary beside linear layers of a rate: what plans give it, roughly."""

PLANNED = 1.1
"""Size of the planned base, in sizes of the uniform one."""


@dataclass(frozen=True)
class Cell:
    """make(bench, *args) is a way to store the whole model; `key` says which.

    Those of priority 0, a row for each mechanism on each base, are made first, those of 1 and 2 after them.
    """

    experiment: str
    key: Mapping[str, Any]
    make: "Callable[..., Weights]"
    args: tuple[Any, ...]
    priority: int = 0


@dataclass
class Judge:
    """Chunks [n, n_ctx] that are judged on, and what the 16-bit model says of them."""

    subject: Subject
    tokens: Tensor
    expected: list[Tensor] = field(default_factory=list)
    BATCH = 8

    def __post_init__(self) -> None:
        self.subject.fill({})
        with torch.no_grad():
            self.expected = [self.subject.log_probabilities(batch) for batch in self.tokens.split(self.BATCH)]

    def __call__(self) -> dict[str, Any]:
        """Of the model as it is filled: KLD in nats by chunk, share of equal top tokens and loss in nats over all."""
        kld: list[float] = []
        top: list[float] = []
        loss: list[float] = []
        with torch.no_grad():
            for batch, expected in zip(self.tokens.split(self.BATCH), self.expected, strict=True):
                actual = self.subject.log_probabilities(batch)
                next_token = batch[:, batch.shape[1] // 2 + 1 :, None]
                kld += _means((expected.exp() * (expected - actual)).sum(-1))
                top += _means((actual.argmax(-1) == expected.argmax(-1)).double())
                loss += _means(-actual.gather(-1, next_token)[..., 0])
        n = len(kld)
        return {
            "kld": [float(f"{each:.6g}") for each in kld],
            "top": round(sum(top) / n, 5),
            "loss": round(sum(loss) / n, 6),
        }


def _means(x: Tensor) -> list[float]:
    return list(x.double().mean(1).tolist())


@dataclass
class Weights:
    """A whole model in some storage: weights by matrix, bytes of all tensors, what else to note, tuned norms, and what
    is done to what enters a matrix."""

    weights: dict[str, Tensor]
    n_bytes: int
    facts: dict[str, Any] = field(default_factory=dict)
    norms: dict[str, Tensor] = field(default_factory=dict)
    inputs: Mapping[str, torch.nn.Module] = field(default_factory=dict)


@dataclass
class Bench:
    """See above. `judges` by name; `ranking` judges single tensors on text that neither calibrates nor judges files;
    `training` are the chunks that calibrate, `corpus` all that neither rank nor judge;
    `directions` keeps the low-rank approximations of what is missing, by the id of what is stored."""

    name: str
    subject: Subject
    storage: Storage
    judges: Mapping[str, Judge]
    ranking: Judge
    journal: Journal
    training: Tensor
    corpus: Tensor
    seed: int
    directions: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)
    _curves: dict[str, Curve] = field(default_factory=dict)
    _paths: dict[tuple[Any, ...], Path] = field(default_factory=dict)

    def judge(self, cell: Cell) -> None:
        """Make a way to store the model and judge it, unless the journal has it already."""
        head = {"experiment": cell.experiment, "key": dict(cell.key)}
        if any(head.items() <= record.items() for record in self.journal.records):
            return
        started = time.monotonic()
        made = cell.make(self, *cell.args)
        self.subject.fill(made.weights, made.norms, made.inputs)
        found = {name: judge() for name, judge in self.judges.items()}
        seconds = round(time.monotonic() - started, 2)
        about = {"model": self.name, "seed": self.seed, "seconds": seconds, "bytes": made.n_bytes}
        self.journal.add({**head, **about, **found, **made.facts})
        kld = found["wiki"]["kld"]
        print(
            self.name,
            cell.experiment,
            dict(cell.key),
            made.n_bytes,
            f"{sum(kld) / len(kld):.5f} {seconds} s",
            flush=True,
        )

    @property
    def matrices(self) -> list[Matrix]:
        """All of them."""
        return list(self.subject.matrices.values())

    @property
    def linear(self) -> list[Matrix]:
        """All but the vocabulary."""
        return [m for m in self.matrices if m.name != VOCABULARY]

    def assembled(self, stored: Mapping[str, Stored], extra_bytes: int = 0, **facts: Any) -> Weights:
        """A model of these matrices; `extra_bytes` are those of companions."""
        n_bytes = self.subject.fixed_bytes + sum(s.n_bytes for s in stored.values()) + extra_bytes
        return Weights({name: s.weights for name, s in stored.items()}, n_bytes, facts)

    def uniform(self, rate: int, fed: bool) -> dict[str, Stored]:
        """Linear layers at one rate, the vocabulary as it goes with it."""
        return self.storage.each(lambda m: self.storage.at(m, _type_of(m, rate), fed), self.matrices)

    def base(self, kind: str, rate: int, fed: bool) -> dict[str, Stored]:
        """What exceptions are added to: `uniform`, or `planned`: the best plan of PLANNED times its size."""
        uniform = self.uniform(rate, fed)
        if kind == "uniform":
            return uniform
        return resolve(self.free_plans(fed).at(PLANNED * size(uniform)))

    def plans(self, kind: str, rate: int, fed: bool) -> Path:
        """What a base is compared with: plans that only add to the uniform base, or the best plans there are."""
        if kind == "planned":
            return self.free_plans(fed)
        key = (rate, fed)
        if key not in self._paths:
            self.free_plans(fed)
            start = {t: self.candidate(t, _type_of(ms[0], rate), fed) for t, ms in self.tensors().items()}
            self._paths[key] = Path(self.candidates(fed), start)
        return self._paths[key]

    def free_plans(self, fed: bool) -> Path:
        """The best plans of plain types."""
        key = ("free", fed)
        if key not in self._paths:
            self._paths[key] = Path(self.candidates(fed))
        return self._paths[key]

    def candidates(self, fed: bool) -> dict[str, list[Candidate]]:
        """Every tensor at every rate, and at 6 and 8 bits."""
        names = [*(f"tcq{rate}" for rate in RATES), "q6_k", "q8_0"]
        for name in names:
            self.storage.each(partial(self.storage.at, type_name=name, fed=fed), self.matrices)
        return {tensor: [self.candidate(tensor, name, fed) for name in names] for tensor in self.tensors()}

    def candidate(self, tensor: str, type_name: str, fed: bool) -> Candidate:
        """One tensor in one type."""
        return self.candidate_of(tensor, {m.name: self.storage.at(m, type_name, fed) for m in self.tensors()[tensor]})

    def candidate_of(self, tensor: str, stored: Mapping[str, Stored]) -> Candidate:
        """One tensor as its matrices are stored."""
        n_bytes = sum(s.n_bytes for s in stored.values())
        return Candidate(n_bytes, self.curve(tensor)(self.predicted(stored)), dict(stored))

    def predicted(self, stored: Mapping[str, Stored]) -> float:
        """KLD by Fisher's quadratic form of some matrices together."""
        return sum(
            self.subject.matrices[name].damage(self.subject.matrices[name].original - s.weights)
            for name, s in stored.items()
        )

    def curve(self, tensor: str) -> Curve:
        """Measured KLD of one tensor alone over what Fisher's form predicts, through tcq2 and tcq1."""
        if tensor not in self._curves:
            points = []
            for rate in (2, 1):
                stored = {m.name: self.storage.at(m, f"tcq{rate}", fed=True) for m in self.tensors()[tensor]}
                self.subject.fill({name: s.weights for name, s in stored.items()})
                kld = self.ranking()["kld"]
                points.append((self.predicted(stored), sum(kld) / len(kld)))
            self._curves[tensor] = Curve(points)
        return self._curves[tensor]

    def scale(self, matrix: Matrix) -> float:
        """Measured KLD per predicted KLD for small errors."""
        curve = self.curve(matrix.tensor)
        return curve(1e-9) / 1e-9

    def tensors(self) -> dict[str, list[Matrix]]:
        """Stored tensors and their matrices: several for experts."""
        grouped: dict[str, list[Matrix]] = {}
        for matrix in self.matrices:
            grouped.setdefault(matrix.tensor, []).append(matrix)
        return grouped

    def companion_bytes(self, names: Iterable[str], tensors_each: int) -> int:
        """Headers of companions of these matrices; experts share theirs."""
        return COMPANION_BYTES * tensors_each * len({self.subject.matrices[name].tensor for name in names})


def _type_of(matrix: Matrix, rate: int) -> str:
    name = VOCABULARY_TYPES[rate] if matrix.name == VOCABULARY else f"tcq{rate}"
    return quant_types.type_for_row(name, matrix.original.shape[1])[0].name


def resolve(plan: Mapping[str, Candidate]) -> dict[str, Stored]:
    """The matrices of a plan."""
    return {name: stored for candidate in plan.values() for name, stored in candidate.choice.items()}


def size(stored: Mapping[str, Stored]) -> int:
    """Bytes of these matrices."""
    return sum(s.n_bytes for s in stored.values())
