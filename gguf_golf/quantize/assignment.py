"""Which type each tensor of a model takes. A uniform assignment is made here; the plan room makes better ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gguf_golf.calibrate.imatrix import Imatrix
from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models import LazyTensor, Model
from gguf_golf.models.roles import EMBEDDINGS, is_quantizable

_F32 = quant_types.get("f32")


@dataclass(frozen=True)
class Assignment:
    """A type for every tensor of a model by name, with the model's notes and those on rows the type did not divide."""

    types: dict[str, QuantType]
    notes: list[str] = field(default_factory=list)


AUTO = "auto"


def uniform(model: Model, type_name: str, embedding_type: str) -> Assignment:
    """Every linear layer in one type, the vocabulary's tables in another, the rest F32.

    The `embedding_type` AUTO is what measurement says is worth its bytes. A head, and an embedding that is also the
    head, costs about six times as much per weight as the layers do (golf-88m), which is worth one bit and a third: it
    takes the next rate of TCQ, and q6_k otherwise, as with llama-quantize. An embedding that is only looked up costs no
    more than the layers: it takes their type, or, as no imatrix knows it, the nearest one that needs none.

    Rows that a type's block does not divide take the fallback of `quant_types.type_for_row`, which the notes name.
    Raises InputError for a name that is not a type.
    """
    untied = any(tensor.name == "output.weight" for tensor in model.tensors)

    def wanted(tensor: LazyTensor) -> str:
        if tensor.name not in EMBEDDINGS:
            return type_name
        if embedding_type == AUTO and untied and tensor.name == "token_embd.weight":
            return _looked_up_type(type_name)
        return _head_type(type_name) if embedding_type == AUTO else embedding_type

    return assign(model, wanted)


def _looked_up_type(type_name: str) -> str:
    """The type itself, or what llama-quantize gives the embedding where the type needs an imatrix."""
    if not quant_types.get(type_name).needs_imatrix:
        return type_name
    return "iq3_s" if quant_types.get(type_name).bpw > quant_types.get("q2_k").bpw else "q2_k"


def _head_type(type_name: str) -> str:
    body = quant_types.get(type_name)
    if body.bpw >= quant_types.get("q6_k").bpw:
        return type_name
    above = quant_types.one_more_bit(body)
    return "q6_k" if above is None else above.name


def assign(model: Model, wanted: Callable[[LazyTensor], str]) -> Assignment:
    """The type that `wanted` names for each quantizable tensor, or its fallback; the rest F32."""
    chosen: dict[str, QuantType] = {}
    fallbacks: dict[str, int] = {}
    for tensor in model.tensors:
        if not is_quantizable(tensor):
            chosen[tensor.name] = _F32
            continue
        chosen[tensor.name], note = quant_types.type_for_row(wanted(tensor), tensor.shape[-1])
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
