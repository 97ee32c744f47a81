"""Byte-level BPE (GPT-2's kind) from tokenizer.json: llama.cpp's tokenizer model "gpt2"."""

from gguf import GGUFWriter, TokenType

from gguf_golf.errors import InputError
from gguf_golf.models.tokens.files import TokenizerFiles
from gguf_golf.models.tokens.merges import merges_of
from gguf_golf.models.tokens.pretokenizer import choose_pretokenizer
from gguf_golf.models.tokens.special import missing_special_tokens
from gguf_golf.models.tokens.vocabulary import Vocabulary, flag_notes

NEVER_IN_UTF8 = frozenset({0xC0, 0xC1, *range(0xF5, 0x100)})


def byte_level_vocabulary(writer: GGUFWriter, files: TokenizerFiles, vocab_size: int) -> Vocabulary:
    """Add tokens, merges and the pre-tokenizer. Raises UnsupportedError for one that llama.cpp may not have."""
    model = files.tokenizer["model"]
    vocab = model["vocab"]
    vocabulary = Vocabulary(vocab_size)
    vocabulary.check_fits(files.path, vocab.values())
    for text, i in vocab.items():
        vocabulary.set(i, text, TokenType.NORMAL)
    if model.get("unk_token") and (missing := _missing_bytes(vocab)):
        raise InputError(
            f"{files.path}: {len(missing)} bytes are not in the vocabulary (such as {missing[0]:#04x}) and become "
            f"{model['unk_token']}, llama.cpp drops them: no GGUF file can hold this tokenizer"
        )
    for option in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(option):
            raise InputError(f"{files.path}: llama.cpp has no match for {option} = {model[option]!r}")
    pretokenizer = choose_pretokenizer(files)
    vocabulary.notes.extend(pretokenizer.notes)
    if files.config.get("model_type") == "qwen2" and pretokenizer.name != "qwen2":
        vocabulary.notes.append(
            "transformers 5 gives qwen2 checkpoints Qwen2's own pre-tokenizer, this file the one of tokenizer.json"
        )
    vocabulary.notes += flag_notes(files.added_tokens, normalized=False)
    vocabulary.add([*files.added_tokens, *missing_special_tokens(files, vocabulary)])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pretokenizer.name)
    vocabulary.write(writer, scores=False)
    writer.add_token_merges([f"{left} {right}" for left, right in merges_of(files.tokenizer)])
    return vocabulary


def _missing_bytes(vocab: dict[str, int]) -> list[int]:
    """Bytes that a text can hold and no token of one character stands for."""
    alphabet = byte_alphabet()
    return [byte for byte in range(256) if byte not in NEVER_IN_UTF8 and alphabet[byte] not in vocab]


def byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the bytes 0 to 255 (bytes_to_unicode in its encoder.py)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
