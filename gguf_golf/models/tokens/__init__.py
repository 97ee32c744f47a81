"""A checkpoint's tokenizer as GGUF metadata that makes llama.cpp cut a text as the original tokenizer does.

What no GGUF file can say is refused by name, before anything is written; what only touches rare texts is a note.
"""

from gguf import GGUFWriter

from gguf_golf.errors import InputError
from gguf_golf.models.config import Config
from gguf_golf.models.model import MetadataField, fields_of
from gguf_golf.models.tokens.byte_level import byte_level_vocabulary
from gguf_golf.models.tokens.files import TokenizerFiles
from gguf_golf.models.tokens.pretokenizer import NOT_NFC, normalizes_to_nfc
from gguf_golf.models.tokens.sentencepiece_model import describes_the_same, read_model, sentencepiece_vocabulary
from gguf_golf.models.tokens.sentencepiece_style import sentencepiece_style_vocabulary
from gguf_golf.models.tokens.special import add_special_tokens
from gguf_golf.models.tokens.template import chat_template
from gguf_golf.models.tokens.vocabulary import Vocabulary, flag_notes
from gguf_golf.models.unsupported import UnsupportedError

__all__ = ["add_tokenizer", "note_losses", "tokenizer_fields"]

OTHER_FILES = ("vocab.json", "vocab.txt", "tekken.json", "tokenizer.tiktoken", "qwen.tiktoken", "spiece.model")


def add_tokenizer(writer: GGUFWriter, config: Config, vocab_size: int | None = None) -> None:
    """Add tokenizer.* to `writer`; what the file cannot say becomes a note of `config`.

    `vocab_size` is the number of rows of the embedding; config.json's by default. Raises InputError where the files are
    missing, damaged or no GGUF file can hold the tokenizer, UnsupportedError for a kind that is not known here.
    """
    files = TokenizerFiles.read(config)
    try:
        vocabulary = _add_vocabulary(writer, files, vocab_size or config.integer("vocab_size"))
        add_special_tokens(writer, files, vocabulary)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(
            f"{config.directory}: tokenizer.json, tokenizer_config.json or added_tokens.json is damaged ({error!r}); "
            "download them again"
        ) from error
    if (template := chat_template(config.directory, files.settings)) is not None:
        writer.add_chat_template(template)
    if files.settings.get("split_special_tokens"):
        vocabulary.notes.append("split_special_tokens: the original tokenizer cuts special tokens in a text to pieces")
    for note in vocabulary.notes:
        config.note(note)


def tokenizer_fields(config: Config, vocab_size: int) -> list[MetadataField] | None:
    """The same as a list of fields for a model that was read in another way; None for a kind that is not known here.

    Raises InputError as `add_tokenizer` does.
    """
    writer = GGUFWriter(path=None, arch="none")
    try:
        add_tokenizer(writer, config, vocab_size)
    except UnsupportedError:
        return None
    return [field for field in fields_of(writer) if field.key.startswith("tokenizer.")]


def note_losses(config: Config) -> None:
    """Note what no GGUF file can say of a tokenizer, where llama.cpp's converter writes it and not `add_tokenizer`."""
    files = TokenizerFiles.read(config)
    for note in flag_notes(files.added_tokens, normalized=bool(files.tokenizer.get("normalizer"))):
        config.note(note)
    if normalizes_to_nfc(files):
        config.note(NOT_NFC)


def _add_vocabulary(writer: GGUFWriter, files: TokenizerFiles, vocab_size: int) -> Vocabulary:
    """By tokenizer.model, unless tokenizer.json describes another tokenizer: transformers goes by that."""
    left_out = None
    if files.model_path.is_file():
        try:
            model = read_model(files)
        except InputError:
            if not files.tokenizer:
                raise
            left_out = "tokenizer.model, which is not a sentencepiece model, is left out"
        else:
            if not files.tokenizer or describes_the_same(files, model):
                return sentencepiece_vocabulary(writer, files, vocab_size, model)
            left_out = "tokenizer.model, which numbers tokens differently from tokenizer.json, is left out"
    vocabulary = _from_json(writer, files, vocab_size)
    vocabulary.notes.extend([left_out] if left_out else [])
    return vocabulary


def _from_json(writer: GGUFWriter, files: TokenizerFiles, vocab_size: int) -> Vocabulary:
    if not files.tokenizer:
        others = [name for name in OTHER_FILES if (files.directory / name).is_file()]
        if others:
            raise UnsupportedError(f"{files.directory} has its tokenizer in {others[0]}")
        raise InputError(
            f"{files.directory} has no tokenizer: download tokenizer.model or tokenizer.json from where the weights are"
        )
    model = files.tokenizer["model"]
    if model.get("type", "BPE") == "BPE" and (files.tokenizer.get("decoder") or {}).get("type") == "ByteLevel":
        return byte_level_vocabulary(writer, files, vocab_size)
    if model.get("type", "BPE") == "BPE" and model.get("byte_fallback"):
        return sentencepiece_style_vocabulary(writer, files, vocab_size)
    raise UnsupportedError(f"{files.path} holds neither byte-level nor sentencepiece-style BPE")
