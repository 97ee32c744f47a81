"""Where a sentencepiece-style tokenizer puts a space before a text."""

from enum import Enum

from gguf import GGUFWriter

from gguf_golf.errors import InputError
from gguf_golf.models.tokens.vocabulary import Vocabulary

KEY = "tokenizer.ggml.space_prefix_scheme"  # read by this project's llama.cpp; others take it for ALWAYS


class SpacePrefix(Enum):
    """Before which stretches of text between special tokens a space is put."""

    NEVER = "never"
    ALWAYS = "always"  # sentencepiece, and a Prepend normalizer
    MISSING = "missing"  # a stretch that does not begin with one: Metaspace, "always"
    FIRST = "first"  # the same, and only at the beginning of the text: Metaspace, "first"

    @classmethod
    def of_metaspace(cls, scheme: str) -> "SpacePrefix":
        """Raises InputError for a scheme that Metaspace does not have."""
        try:
            return {"never": cls.NEVER, "always": cls.MISSING, "first": cls.FIRST}[scheme]
        except KeyError:
            raise InputError(f"tokenizer.json: Metaspace has no prepend_scheme {scheme!r}; download it again") from None


def add_space_prefix(writer: GGUFWriter, vocabulary: Vocabulary, prefix: SpacePrefix) -> None:
    """Add it for llama.cpp's tokenizer "llama", whose default is ALWAYS."""
    if prefix == SpacePrefix.NEVER:
        writer.add_add_space_prefix(False)
    elif prefix in (SpacePrefix.MISSING, SpacePrefix.FIRST):
        writer.add_string(KEY, prefix.value)
        where = "a special token or before a space" if prefix == SpacePrefix.FIRST else "a space"
        vocabulary.notes.append(
            f"llama.cpp as others build it puts a space before text that follows {where}, the original tokenizer and "
            "this project's llama.cpp do not"
        )
