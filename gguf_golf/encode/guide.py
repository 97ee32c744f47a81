"""What is known of the inputs of a model's matrices, and so which encoding errors matter: its imatrix and Hessians."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gguf_golf.calibrate import imatrix as imatrix_file
from gguf_golf.calibrate.hessian import Hessians
from gguf_golf.calibrate.imatrix import Imatrix
from gguf_golf.encode import shrunk
from gguf_golf.encode.feedback import Feedback, factor_hessian
from gguf_golf.errors import InputError
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models.roles import EMBEDDINGS


@dataclass(frozen=True)
class Guidance:
    """What an encoder is told about the inputs of one matrix. Either may be None: nothing is known.

    `importance` f32 [k] is E[x^2] of each input channel. `feedback` is the factored Hessian; where there is one,
    TCQ types are encoded with error feedback, and `importance` is not needed.
    """

    importance: NDArray[np.float32] | None = None
    feedback: Feedback | None = None


UNGUIDED = Guidance()
"""Nothing is known: every input channel counts the same."""


class Guide:
    """The guidance for each matrix of a model. Hessians are factored when they are asked for."""

    def __init__(self, imatrix: Imatrix | None = None, hessians: Hessians | None = None) -> None:
        self.imatrix, self.hessians = imatrix, hessians
        self._factored: dict[tuple[str, int, int], Feedback] = {}  # the last two: layers share inputs
        self._latest: tuple[str, NDArray[np.float32]] | None = None  # the importance that was asked for last

    @classmethod
    def open(cls, imatrix: Path | None, hessians: Path | None) -> "Guide":
        """The guide that these files make. Raises InputError and DataError as their readers do."""
        return cls(
            None if imatrix is None else imatrix_file.read(imatrix),
            None if hessians is None else Hessians(hessians),
        )

    def of(self, weight: str, quant_type: QuantType, k: int, expert: int = 0, n_experts: int = 1) -> Guidance:
        """For rows of `k` weights of one expert's matrix (others have one expert) that become `quant_type`.

        Raises InputError if the imatrix or the Hessians have other shapes, as they are of another model then.
        """
        if not quant_type.is_quantized:
            return UNGUIDED
        importance = self.importance(weight, k, n_experts)
        return Guidance(None if importance is None else importance[expert], self._feedback(weight, quant_type, expert))

    def importance(self, weight: str, k: int, n_experts: int = 1) -> NDArray[np.float32] | None:
        """E[x^2] per input channel, f32 [n_experts, k]; None where the imatrix has no entry for this weight.

        Embedding tables are looked up, not multiplied, so no imatrix has them, except a head tied to its embedding.
        Raises InputError if the imatrix has another shape.
        """
        self.check(weight, k, n_experts)
        if self.imatrix is None or weight not in self.imatrix.entries:
            return None
        latest = self._latest  # other threads may replace it
        if latest is None or latest[0] != weight:
            latest = weight, np.ascontiguousarray(shrunk.importance(self.imatrix, weight), np.float32)
            self._latest = latest
        return latest[1]

    def frequent_rows(self, weight: str, n_rows: int, n: int) -> NDArray[np.int64]:
        """The `n` rows of a vocabulary's table of `n_rows` whose tokens are the most frequent, ascending.

        Raises InputError where no imatrix says how frequent tokens are, or one of another vocabulary does.
        """
        imatrix = self.imatrix
        if imatrix is None or imatrix.token_counts is None:
            raise InputError(
                f"protected rows of {weight} take an imatrix that says how frequent tokens are: collect one with "
                "`gguf-golf imatrix MODEL.gguf --text FILE -o IMATRIX.gguf` and pass --imatrix IMATRIX.gguf"
            )
        if len(imatrix.token_counts) != n_rows:
            raise InputError(
                f"the imatrix counts {len(imatrix.token_counts):,} tokens, and {weight} has {n_rows:,} rows: it was "
                "collected on another model"
            )
        return imatrix.frequent_tokens(n)

    def routed(self, weight: str, n_experts: int) -> NDArray[np.float64]:
        """How many tokens each expert got, f64 [n_experts], relative to their mean; ones where nothing is known."""
        entry = None if self.imatrix is None else self.imatrix.entries.get(weight)
        if entry is None or len(entry.counts) != n_experts or not entry.counts.any():
            return np.ones(n_experts)
        return np.asarray(entry.counts / entry.counts.mean())

    def check(self, weight: str, k: int, n_experts: int) -> None:
        """Raise InputError if the imatrix or the Hessians have this weight in another shape."""
        shapes: list[tuple[str, tuple[int, ...]]] = []
        if self.imatrix is not None and weight in self.imatrix.entries:
            shapes.append(("the imatrix has {} values", self.imatrix.entries[weight].in_sum2.shape))
        if self.hessians is not None and weight in self.hessians:
            shapes.append((f"{self.hessians.path} has {{}}", self.hessians.shape(weight)))
        for words, shape in shapes:
            if shape != (n_experts, k):
                raise InputError(
                    f"{words.format(shape)} for {weight}, the model needs {(n_experts, k)}: it was collected on "
                    "another model"
                )

    def without_hessians(self) -> "Guide":
        """The same imatrix alone."""
        return self if self.hessians is None else Guide(self.imatrix)

    def notes(self, chosen: Mapping[str, QuantType]) -> list[str]:
        """What a user should be told about the guidance that is missing, `chosen` being the types of all tensors.

        Raises InputError for an imatrix or Hessians that know none of the tensors: they are of another model.
        """
        return [*self._imatrix_notes(chosen), *self._hessian_notes(chosen)]

    def _imatrix_notes(self, chosen: Mapping[str, QuantType]) -> list[str]:
        weights = [name for name, t in chosen.items() if t.is_quantized and name not in EMBEDDINGS]
        if self.imatrix is None or not weights:
            return []
        missing = [name for name in weights if name not in self.imatrix.entries]
        if len(missing) == len(weights):
            raise InputError(
                f"the imatrix has no entry for any tensor of this model, such as {missing[0]}: it was collected on "
                "another model"
            )
        notes = [f"the imatrix has nothing about {_first(missing)}: encoded without it"] if missing else []
        return notes + self.imatrix.notes()

    def _hessian_notes(self, chosen: Mapping[str, QuantType]) -> list[str]:
        weights = [name for name, quant_type in chosen.items() if quant_type.tcq]
        if self.hessians is None or not weights:
            return []
        notes = []
        if missing := [name for name in weights if name not in self.hessians]:
            linear = [name for name in weights if name not in EMBEDDINGS]
            if linear and not any(name in self.hessians for name in linear):
                raise InputError(
                    f"{self.hessians.path} has no Hessian for any TCQ tensor of this model, such as {linear[0]}: it "
                    "was collected on another model"
                )
            notes.append(f"no error feedback for {_first(missing)}: not in {self.hessians.path}")
        return notes

    def _feedback(self, weight: str, quant_type: QuantType, expert: int) -> Feedback | None:
        """None for another family of types, or a weight without a Hessian."""
        if self.hessians is None or not quant_type.tcq or weight not in self.hessians:
            return None
        key = (self.hessians.input_of(weight), expert, quant_type.block_size)
        if key not in self._factored:
            hessian = shrunk.hessian(self.hessians, weight, expert)
            if hessian is None:
                return None
            self._factored = dict([*self._factored.items()][-1:])
            self._factored[key] = factor_hessian(hessian, quant_type.block_size)
        return self._factored[key]


def _first(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
