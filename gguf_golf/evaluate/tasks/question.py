"""A question as a model is asked it by log-likelihood, whatever file it came from."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """One possible answer: its likelihood is that of `continuation` after `context`."""

    context: str
    continuation: str

    @property
    def characters(self) -> int:
        """Length for normalisation, as lm-evaluation-harness counts it: characters without the leading space."""
        return max(1, len(self.continuation.lstrip()))


@dataclass(frozen=True)
class Variant:
    """The question with its options shown in one order: `shown[i]` is option number `order[i]`."""

    shown: tuple[Option, ...]
    order: tuple[int, ...]


@dataclass(frozen=True)
class Question:
    """A question with `n_options` answers, number `right` being the right one, in one or more orders.

    A completion has the single option 0; it counts as right if the model would have produced it greedily.
    """

    id: str
    right: int
    variants: tuple[Variant, ...]

    @property
    def n_options(self) -> int:
        return len(self.variants[0].order)


def question(identity: str, right: int, options: Sequence[Option]) -> Question:
    """A question whose options have one order."""
    return Question(identity, right, (Variant(tuple(options), tuple(range(len(options)))),))


def sample(items: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """`limit` of the items, chosen by a seed, in their own order; all if there are no more."""
    if limit is None or limit >= len(items):
        return list(items)
    chosen = sorted(random.Random(seed).sample(range(len(items)), limit))
    return [items[index] for index in chosen]
