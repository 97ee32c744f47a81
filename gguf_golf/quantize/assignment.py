"""Which type each tensor of a model takes. A uniform assignment is made here; the plan room makes better ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gguf_golf.calibrate.imatrix import Imatrix
from gguf_golf.errors import InputError
from gguf_golf.formats import types
from gguf_golf.formats.types import QuantType
from gguf_golf.models import LazyTensor, Model
from gguf_golf.models.roles import EMBEDDINGS, is_quantizable

_F32 = types.get("f32")


@dataclass(frozen=True)
class Assignment:
    """A type for every tensor of a model by name, with the model's notes and those on rows the type did not divide."""

    types: dict[str, QuantType]
    notes: list[str] = field(default_factory=list)


def uniform(model: Model, type_name: str, embedding_type: str) -> Assignment:
    """Every linear layer in one type, the vocabulary's tables in another, the rest F32.

    Rows that a type's block does not divide take the fallback of `types.type_for_row`, which the notes name.
    Raises InputError for a name that is not a type.
    """
    return assign(model, lambda tensor: embedding_type if tensor.name in EMBEDDINGS else type_name)


def assign(model: Model, wanted: Callable[[LazyTensor], str]) -> Assignment:
    """The type that `wanted` names for each quantizable tensor, or its fallback; the rest F32."""
    chosen: dict[str, QuantType] = {}
    fallbacks: dict[str, int] = {}
    for tensor in model.tensors:
        if not is_quantizable(tensor):
            chosen[tensor.name] = _F32
            continue
        chosen[tensor.name], note = types.type_for_row(wanted(tensor), tensor.shape[-1])
        if note:
            fallbacks[note] = fallbacks.get(note, 0) + 1
    return Assignment(chosen, [*model.notes, *(f"{note} ({count} tensors)" for note, count in fallbacks.items())])


def check_imatrix(chosen: Mapping[str, QuantType], imatrix: Imatrix | None) -> None:
    """Raise InputError that names the tensors whose type needs an imatrix, but which have no entry in it."""
    needy = {name: t for name, t in chosen.items() if t.needs_imatrix}
    unknown = [name for name in needy if imatrix is None or name not in imatrix.entries]
    if not unknown:
        return
    names = sorted({needy[name].name for name in unknown})
    if imatrix is None:
        raise InputError(
            f"{', '.join(names)} cannot be made without an imatrix; collect one with "
            "`gguf-golf imatrix MODEL.gguf --text FILE -o IMATRIX.gguf` and pass --imatrix IMATRIX.gguf"
        )
    more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    raise InputError(
        f"{', '.join(names)} cannot be made without an imatrix, and this one has nothing about {unknown[0]}{more}: "
        "collect it on this model (--process-output adds the output matrix), or give these tensors another type"
    )
