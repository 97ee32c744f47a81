"""What a user may spend: bytes of the file, bits per weight, or memory that also has to hold a context."""

import math
import re
from dataclasses import dataclass

from gguf_golf.errors import InputError
from gguf_golf.models import Model
from gguf_golf.plan.memory import KV_TYPE, context_memory
from gguf_golf.sizes import UNITS

_NUMBER = r"(\d[\d_,]*(?:\.\d+)?)"
_BYTES = re.compile(rf"{_NUMBER}\s*([kmg]?i?b?)", re.IGNORECASE)
_BPW = re.compile(rf"{_NUMBER}\s*bpw", re.IGNORECASE)
_FITS = re.compile(
    rf"(?:fits\s+in\s+)?{_NUMBER}\s*([kmg]i?b?)\s+with\s+(\d[\d_,]*)\s*(?:tokens?)?"
    r"(?:\s+of)?(?:\s+(\w+)(?:/(\w+))?)?(?:\s+context)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Budget:
    """Exactly one of bytes of the whole file and bits per weight of the tensor data; `text` is how it was asked for."""

    text: str
    file_bytes: int | None = None
    bpw: float | None = None


@dataclass(frozen=True)
class Memory:
    """Bytes of memory that have to hold a context of `n_ctx` tokens too, with keys and values cached in these types.

    Without a context it is the shortest that llama.cpp's own fitting goes down to.
    """

    bytes: int
    n_ctx: int = 4096
    keys: str = KV_TYPE
    values: str = KV_TYPE


def parse(text: str, model: Model) -> Budget:
    """Read `1.2GB`, `700 MiB`, `6G`, `38_000_000`, `2.7bpw` or `fits in 8 GB with 8192 tokens of q8_0 context`.

    Without a type of the KV cache it is F16; `q8_0/q4_0` are those of keys and values.
    Raises InputError for anything else, and where the context alone exceeds the memory.
    """
    wanted = text.strip()
    if match := _BPW.fullmatch(wanted):
        return Budget(text, bpw=_number(match[1]))
    if memory := _memory(wanted):
        overhead = context_memory(model, memory.n_ctx, memory.keys, memory.values).total
        if overhead >= memory.bytes:
            raise InputError(
                f"{memory.n_ctx} tokens of context take {overhead / 1e9:.2f} GB by themselves, more than the "
                f"{memory.bytes / 1e9:.2f} GB there are: use a shorter context"
            )
        return Budget(text, file_bytes=memory.bytes - overhead)
    if match := _BYTES.fullmatch(wanted):
        return Budget(text, file_bytes=_size(match[1], match[2]))
    raise InputError(
        f"cannot read the budget {text!r}: give bytes (1.2GB, 700MiB, 38000000), bits per weight (2.7bpw) or "
        "'fits in 8 GB with 8192 tokens of q8_0 context'"
    )


def parse_memory(text: str) -> Memory:
    """Read `6GB` or `6GB with 8192 tokens of q8_0 context`. Raises InputError for anything else."""
    wanted = text.strip()
    if memory := _memory(wanted):
        return memory
    if match := _BYTES.fullmatch(wanted):
        return Memory(_size(match[1], match[2]))
    raise InputError(f"cannot read the memory {text!r}: give bytes (6GB) or '6GB with 8192 tokens of q8_0 context'")


def n_weights(model: Model) -> int:
    """Numbers in all tensors of the model."""
    return sum(math.prod(tensor.shape) for tensor in model.tensors)


def _memory(text: str) -> Memory | None:
    match = _FITS.fullmatch(text)
    if match is None:
        return None
    words = [word.lower() for word in match.group(4, 5) if word and word.lower() != "context"]
    return Memory(_size(match[1], match[2]), int(_number(match[3])), *(words * 2)[:2])


def _size(number: str, unit: str) -> int:
    return int(_number(number) * UNITS[unit.lower()])


def _number(text: str) -> float:
    return float(text.replace("_", "").replace(",", ""))
