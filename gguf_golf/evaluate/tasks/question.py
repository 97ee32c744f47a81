"""A question as a model is asked it, whatever file it came from."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
LETTERS = "ABCDEFGHIJ"


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

    `twins` are other options with the right answer's text: choosing one of them is right too. A completion has the
    single option 0; it counts as right if the model would have produced it greedily.
    """

    id: str
    right: int
    variants: tuple[Variant, ...]
    twins: frozenset[int] = frozenset()

    @property
    def n_options(self) -> int:
        return len(self.variants[0].order)

    @property
    def chance(self) -> float:
        """The score of guessing; 0 for a completion."""
        return 0.0 if self.n_options == 1 else (1 + len(self.twins)) / self.n_options

    def is_right(self, option: int | None) -> bool:
        return option == self.right or option in self.twins


def question(identity: str, right: int, options: Sequence[Option], texts: Sequence[str] | None = None) -> Question:
    """A question whose options have one order. `texts` are the answers where the continuations are letters only."""
    variant = Variant(tuple(options), tuple(range(len(options))))
    answers = [option.continuation for option in options] if texts is None else texts
    return Question(identity, right, (variant,), same_answers(answers, right))


def same_answers(answers: Sequence[str], right: int) -> frozenset[int]:
    """The other answers that read like number `right`; white space does not count, capitals do."""
    words = [answer.split() for answer in answers]
    return frozenset(index for index, other in enumerate(words) if index != right and other == words[right])


def sample(items: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """`limit` of the items, chosen by a seed, in their own order; all if there are no more."""
    if limit is None or limit >= len(items):
        return list(items)
    chosen = sorted(random.Random(seed).sample(range(len(items)), limit))
    return [items[index] for index in chosen]
