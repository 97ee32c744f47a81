"""Codebooks in place of a trellis: weighted k-means over groups of 4 and 8 weights, and sums of codebooks.

k-means as in ClusComp (arXiv:2503.13089), without its block-wise training; sums of M codebooks of 256 vectors over
groups of 8 as AQLM's Mx8 (arXiv:2401.06118), with coordinate descent from a residual start in place of its beam search
and without its fine-tuning. Both weigh errors by E[x^2], as TCQ without feedback does, and have an f16 scale per row.
Codebooks of 2^16 vectors are as large as a tensor of such a model: these are shared by all tensors.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .bench import Bench, Cell, Weights
from .storage import COMPANION_BYTES, Stored
from .subject import Matrix

EXPERIMENT = "codebooks"

DISTANCES = 1 << 27
"""Computed at a time."""

SAMPLE = 1 << 19
"""Groups that a shared codebook is fitted to."""


@dataclass(frozen=True)
class Book:
    """`n_books` codebooks of 2^bits vectors of `group` weights, for each tensor or shared by all."""

    group: int
    bits: int
    n_books: int = 1
    shared: bool = False

    @property
    def rate(self) -> float:
        """Bits per weight of the codes."""
        return self.n_books * self.bits / self.group


BOOKS = (
    Book(4, 8),
    Book(8, 8, 2),
    Book(8, 16, shared=True),
    Book(4, 4),
    Book(8, 8),
    Book(4, 12),
    Book(8, 8, 3),
    Book(8, 8, 4),
    Book(4, 16, shared=True),
)

ROUNDS, LLOYD = 3, 10


def cells() -> Iterator[Cell]:
    """Every codebook on all linear layers."""
    for book in BOOKS:
        yield Cell(EXPERIMENT, key_of(book), _coded, (book,))


def key_of(book: Book) -> dict[str, Any]:
    """Of its cell."""
    about = {"rate": book.rate, "fed": False, "group": book.group, "bits": book.bits, "books": book.n_books}
    return {**about, "shared": book.shared}


def _coded(bench: Bench, book: Book) -> Weights:
    groups: dict[str, list[Matrix]] = {}
    for matrix in bench.linear:
        groups.setdefault("all" if book.shared else matrix.tensor, []).append(matrix)
    stored: dict[str, Stored] = {}
    codebook_bytes = 0
    for matrices in groups.values():
        stored |= _store(matrices, book, bench.seed)
        codebook_bytes += book.n_books * 2**book.bits * book.group * 2 + COMPANION_BYTES
    uniform = bench.uniform(min(max(round(book.rate), 1), 4), False)
    return bench.assembled({**uniform, **stored}, codebook_bytes, codebooks=codebook_bytes)


def _store(matrices: list[Matrix], book: Book, seed: int) -> dict[str, Stored]:
    scales = [m.original.square().mean(1, keepdim=True).sqrt().clamp(min=1e-12).half().float() for m in matrices]
    points, weights = [], []
    for matrix, scale in zip(matrices, scales, strict=True):
        importance = matrix.hessian.diagonal()
        importance = importance if float(importance.sum()) > 0 else torch.ones_like(importance)
        points.append((matrix.original / scale).view(-1, book.group))
        weights.append((importance * scale.square()).view(-1, book.group))
    x, w = torch.cat(points), torch.cat(weights)
    w = w / w.mean()
    torch.manual_seed(seed)
    sample = torch.randperm(len(x), device=x.device)[:SAMPLE] if book.shared else slice(None)
    books = _fit(x[sample], w[sample], book)
    found = _decode(books, _assign(x, w, books))
    result: dict[str, Stored] = {}
    first = 0
    for matrix, scale in zip(matrices, scales, strict=True):
        n, k = matrix.original.shape
        count = n * k // book.group
        part = found[first : first + count].view(n, k) * scale
        result[matrix.name] = Stored(part, int(n * k * book.rate / 8) + 2 * n)
        first += count
    return result


def _fit(x: Tensor, w: Tensor, book: Book) -> Tensor:
    """Codebooks f16 values [n_books, 2^bits, group] for points and their weights, both [n, group]."""
    books = torch.zeros(book.n_books, min(2**book.bits, len(x)), x.shape[1], device=x.device)
    rest = x
    for m in range(book.n_books):
        books[m] = rest[torch.randperm(len(x), device=x.device)[: books.shape[1]]]
        for _ in range(LLOYD):
            books[m] = _centroids(rest, w, _nearest(rest, w, books[m]), books[m])
        rest = rest - books[m][_nearest(rest, w, books[m])]
    for _ in range(ROUNDS if book.n_books > 1 else 0):
        codes = _assign(x, w, books)
        for m in range(book.n_books):
            target = x - _decode(books, codes) + books[m][codes[:, m]]
            books[m] = _centroids(target, w, codes[:, m], books[m])
    return books.half().float()


def _assign(x: Tensor, w: Tensor, books: Tensor) -> Tensor:
    """Codes [n, n_books]: greedily, then twice each code anew given the others."""
    codes = torch.zeros(len(x), len(books), dtype=torch.long, device=x.device)
    rest = x
    for m, book in enumerate(books):
        codes[:, m] = _nearest(rest, w, book)
        rest = rest - book[codes[:, m]]
    for _ in range(2 if len(books) > 1 else 0):
        for m, book in enumerate(books):
            rest = rest + book[codes[:, m]]
            codes[:, m] = _nearest(rest, w, book)
            rest = rest - book[codes[:, m]]
    return codes


def _decode(books: Tensor, codes: Tensor) -> Tensor:
    return sum((book[codes[:, m]] for m, book in enumerate(books)), start=torch.zeros((), device=books.device))


def _nearest(x: Tensor, w: Tensor, book: Tensor) -> Tensor:
    """The vector with the least weighted squared distance, int64 [n]."""
    terms = torch.cat([book.square(), -2 * book], 1).T
    step = max(1, DISTANCES // len(book))
    parts = zip(x.split(step), w.split(step), strict=True)
    return torch.cat([(torch.cat([v, v * y], 1) @ terms).argmin(1) for y, v in parts])


def _centroids(x: Tensor, w: Tensor, codes: Tensor, before: Tensor) -> Tensor:
    """Weighted means; vectors that nothing has chosen stay."""
    total = torch.zeros_like(before).index_add_(0, codes, w * x)
    weight = torch.zeros_like(before).index_add_(0, codes, w)
    return torch.where(weight > 0, total / weight.clamp(min=1e-30), before)
