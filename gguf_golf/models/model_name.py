"""llama.cpp treats a model by its name: general.name decides flags of some tokens, which then have to be there."""

from gguf import Keys

from gguf_golf.models.config import Config
from gguf_golf.models.model import MetadataField

TOKENS = {"</s>", "<unk>", "<s>", "<|endoftext|>"}
"""What a file whose name says Phi-3 has to have among its tokens: llama.cpp does not load it otherwise."""


def harmless_name(metadata: list[MetadataField], config: Config) -> list[MetadataField]:
    """The metadata with a general.name that llama.cpp makes nothing of, where the tokenizer is not what it expects."""
    values = {field.key: field.value for field in metadata}
    name, tokens = values.get(Keys.General.NAME), values.get(Keys.Tokenizer.LIST)
    if not isinstance(name, str) or not isinstance(tokens, list) or set(tokens) >= TOKENS:
        return metadata
    other = name
    for trigger in ("phi-3", "phi3"):  # at any case
        while (start := other.lower().find(trigger)) >= 0:
            other = f"{other[: start + 3]} {other[start + len(trigger) - 1 :]}"
    if other == name:
        return metadata
    config.note(f"the file calls the model {other!r}: under the name {name!r}, llama.cpp expects the tokens of Phi-3")
    return [field._replace(value=other) if field.key == Keys.General.NAME else field for field in metadata]
