"""Which class converts which architecture of transformers without torch."""

from collections.abc import Callable, Iterable
from typing import ClassVar, Protocol

from gguf import GGUFWriter

from gguf_golf.models.config import Config
from gguf_golf.models.model import LazyTensor
from gguf_golf.models.weights import Weights


class Family(Protocol):
    """One checkpoint read as one architecture of llama.cpp."""

    architecture: str
    """general.architecture"""
    quantizations: ClassVar[tuple[str, ...]]
    """Values of quantization_config.quant_method that this class reads."""

    def __init__(self, config: Config) -> None:
        """Read config.json. Raises InputError for values that are invalid or that GGUF cannot express."""

    def tensors(self, weights: Weights) -> Iterable[LazyTensor]:
        """The checkpoint's tensors under their GGUF names, in file order."""

    def add_hyperparameters(self, writer: GGUFWriter, file_type: int) -> None:
        """Add the architecture's keys. `file_type` is the llama_ftype of the source."""


_FAMILIES: dict[str, type[Family]] = {}


def register(*class_names: str) -> Callable[[type[Family]], type[Family]]:
    """Class decorator: these classes of transformers ("LlamaForCausalLM") convert by the decorated class."""

    def add(family: type[Family]) -> type[Family]:
        _FAMILIES.update(dict.fromkeys(class_names, family))
        return family

    return add


def family_of(class_name: str) -> type[Family] | None:
    """The class that converts this architecture, or None."""
    return _FAMILIES.get(class_name)


def class_names() -> list[str]:
    """Every architecture of transformers that converts without torch."""
    return sorted(_FAMILIES)
