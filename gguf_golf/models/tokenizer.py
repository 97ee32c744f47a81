"""A checkpoint's tokenizer as GGUF metadata: sentencepiece, byte-level BPE, or sentencepiece-style BPE.

Tokens, types and special tokens are what llama.cpp's own converter writes (conversion/base.py), without transformers.
"""

import re
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, SpecialVocab, TokenType
from sentencepiece import SentencePieceProcessor

from gguf_golf.errors import InputError
from gguf_golf.models.config import Config, read_optional_json
from gguf_golf.models.pretokenizer import pretokenizer_name
from gguf_golf.models.unsupported import UnsupportedError

SPACE = "\u2581"  # what sentencepiece writes for a space
PADDING_SCORE = -10000.0
ADDED_SCORE = -1000.0

BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def add_tokenizer(writer: GGUFWriter, config: Config) -> None:
    """Add tokenizer.* to `writer` from tokenizer.model or tokenizer.json, and what lies beside them.

    Raises InputError where both are missing or damaged, UnsupportedError for a tokenizer that is not known here.
    """
    directory, vocab_size = config.directory, config.integer("vocab_size")
    settings = read_optional_json(directory / "tokenizer_config.json")
    tokenizer = read_optional_json(directory / "tokenizer.json")
    try:
        if (directory / "tokenizer.model").is_file():
            _add_sentencepiece(writer, directory, vocab_size, settings)
        elif not tokenizer:
            raise InputError(
                f"{directory} has no tokenizer: download tokenizer.model or tokenizer.json from where the weights are"
            )
        elif tokenizer["model"].get("type", "BPE") == "BPE" and _decoder(tokenizer) == "ByteLevel":
            _add_byte_level_bpe(writer, directory, vocab_size, tokenizer, settings)
        elif tokenizer["model"].get("type", "BPE") == "BPE" and tokenizer["model"].get("byte_fallback"):
            _add_sentencepiece_bpe(writer, directory, vocab_size, tokenizer, settings)
        else:
            raise UnsupportedError(f"{directory}/tokenizer.json holds neither byte-level nor sentencepiece-style BPE")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(
            f"{directory}: tokenizer.json, tokenizer_config.json or added_tokens.json is damaged ({error!r}); "
            "download them again"
        ) from error


def _add_sentencepiece(writer: GGUFWriter, directory: Path, vocab_size: int, settings: dict[str, Any]) -> None:
    path = directory / "tokenizer.model"
    processor = SentencePieceProcessor()
    try:
        processor.LoadFromFile(str(path))
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"{path} is no sentencepiece model; download it again, or remove it if tokenizer.json is the tokenizer"
        ) from error
    n_pieces = processor.vocab_size()
    _check_vocab_size(path, n_pieces, vocab_size)
    tokens, scores, types = _padding(vocab_size)
    for i in range(n_pieces):
        tokens[i], scores[i], types[i] = processor.IdToPiece(i), processor.GetScore(i), _piece_type(processor, i)
    if any(score != round(score) for score, kind in zip(scores, types, strict=True) if kind == TokenType.NORMAL):
        # BPE scores are ranks; log-probabilities mean a unigram model, which merging pairs by score does not follow
        raise InputError(f"{path} is a sentencepiece unigram model; llama.cpp tokenizes only sentencepiece BPE like it")
    _add_space_prefix(writer, settings, processor.EncodeAsPieces("a")[0].startswith(SPACE))
    added = {i: {"content": text} for text, i in read_optional_json(directory / "added_tokens.json").items()}
    _set_added_tokens(added | _added_tokens({}, settings), tokens, types, scores)
    _add_llama_vocab(writer, directory, tokens, scores, types)


def _add_sentencepiece_bpe(
    writer: GGUFWriter, directory: Path, vocab_size: int, tokenizer: dict[str, Any], settings: dict[str, Any]
) -> None:
    """BPE over raw characters with byte fallback: sentencepiece's algorithm in tokenizer.json's clothes.

    llama.cpp merges the pair whose result has the best score, so a token's score is minus the rank of the merge that
    makes it. (llama.cpp's converter gives all tokens one score, which merges from the left instead.)
    """
    _add_space_prefix(writer, settings, _puts_space_in_front(tokenizer, directory / "tokenizer.json"))
    tokens, scores, types = _padding(vocab_size)
    merge_rank = {}
    for rank, merge in reversed(list(enumerate(_merges(tokenizer)))):
        merge_rank["".join(merge)] = rank
    vocab = tokenizer["model"]["vocab"]
    _check_vocab_size(directory / "tokenizer.json", max(vocab.values()) + 1, vocab_size)
    for text, i in vocab.items():
        tokens[i], scores[i] = text, -float(merge_rank.get(text, len(merge_rank)))
        types[i] = TokenType.BYTE if BYTE_TOKEN.fullmatch(text) else TokenType.NORMAL
    _set_added_tokens(_added_tokens(tokenizer, settings), tokens, types, scores)
    _add_llama_vocab(writer, directory, tokens, scores, types)


def _add_byte_level_bpe(
    writer: GGUFWriter, directory: Path, vocab_size: int, tokenizer: dict[str, Any], settings: dict[str, Any]
) -> None:
    path = directory / "tokenizer.json"
    tokens, scores, types = _padding(vocab_size)
    vocab = tokenizer["model"]["vocab"]
    _check_vocab_size(path, max(vocab.values()) + 1, vocab_size)
    for text, i in vocab.items():
        tokens[i], types[i] = text, TokenType.NORMAL
    _set_added_tokens(_added_tokens(tokenizer, settings), tokens, types, scores)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pretokenizer_name(tokenizer, path))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    _add_special_tokens(writer, directory, tokenizer, SpecialVocab(directory, load_merges=True))


def _add_llama_vocab(
    writer: GGUFWriter, directory: Path, tokens: list[str], scores: list[float], types: list[TokenType]
) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    tokenizer = read_optional_json(directory / "tokenizer.json")
    _add_special_tokens(writer, directory, tokenizer, SpecialVocab(directory, n_vocab=len(tokens)))


def _add_special_tokens(writer: GGUFWriter, directory: Path, tokenizer: dict[str, Any], special: SpecialVocab) -> None:
    """Add merges, ids of special tokens, add_bos/eos and the chat template."""
    # The post-processor decides what is added, as in the pinned llama.cpp; gguf-py 0.19 lets tokenizer_config.json
    # overrule it.
    special.add_special_token |= _added_by_post_processor(tokenizer, special.special_token_ids)
    special.add_to_gguf(writer, quiet=True)


def _add_space_prefix(writer: GGUFWriter, settings: dict[str, Any], prefix: bool) -> None:
    """Say whether a space is put before a text; llama.cpp's default for these tokenizers is yes."""
    prefix = settings.get("add_prefix_space", prefix)
    if "add_prefix_space" in settings or not prefix:
        writer.add_add_space_prefix(bool(prefix))


def _puts_space_in_front(tokenizer: dict[str, Any], path: Path) -> bool:
    """Whether a sentencepiece-style tokenizer.json puts a space before a text.

    Raises UnsupportedError if it does more to a text than that and sentencepiece's escaping of spaces.
    """
    prefix = False
    normalizer = tokenizer.get("normalizer") or {"type": "Sequence", "normalizers": []}
    for step in normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]:
        match step:
            case {"type": "Prepend", "prepend": "\u2581"}:
                prefix = True
            case {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}:
                pass
            case _:
                raise UnsupportedError(f"{path}: a {step['type']} normalizer")
    match tokenizer.get("pre_tokenizer"):
        case {"type": "Metaspace", "replacement": "\u2581", **options}:
            scheme = options.get("prepend_scheme", "always" if options.get("add_prefix_space", True) else "never")
            prefix = prefix or scheme != "never"
        case None | {"type": "Split", "pattern": {"String": " "}}:  # spaces are escaped by then: it never splits
            pass
        case other:
            raise UnsupportedError(f"{path}: a {other['type']} pre-tokenizer")
    return prefix


def _padding(vocab_size: int) -> tuple[list[str], list[float], list[TokenType]]:
    """Names, scores and types for ids that the embedding has and the tokenizer does not."""
    return [f"[PAD{i}]" for i in range(vocab_size)], [PADDING_SCORE] * vocab_size, [TokenType.UNUSED] * vocab_size


def _check_vocab_size(path: Path, n_tokens: int, vocab_size: int) -> None:
    if n_tokens > vocab_size:
        raise InputError(
            f"{path} has {n_tokens} tokens, config.json's vocab_size is {vocab_size}; take both from the same model"
        )


def _piece_type(processor: SentencePieceProcessor, i: int) -> TokenType:
    if processor.IsUnknown(i):
        return TokenType.UNKNOWN
    if processor.IsControl(i):
        return TokenType.CONTROL
    if processor.IsUnused(i):
        return TokenType.UNUSED
    return TokenType.BYTE if processor.IsByte(i) else TokenType.NORMAL


def _added_tokens(tokenizer: dict[str, Any], settings: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """id -> added token, of tokenizer.json and of tokenizer_config.json, which has the last word."""
    added = {token["id"]: token for token in tokenizer.get("added_tokens") or []}
    return added | {int(i): token for i, token in (settings.get("added_tokens_decoder") or {}).items()}


def _set_added_tokens(
    added: dict[int, dict[str, Any]], tokens: list[str], types: list[TokenType], scores: list[float]
) -> None:
    for i, token in added.items():
        if i >= len(tokens):  # left over from a fine-tune that did not enlarge the embedding: the model cannot see it
            continue
        text = token["content"]
        if token.get("special") or _looks_special(text):
            types[i] = TokenType.CONTROL
        else:
            types[i] = TokenType.USER_DEFINED
            text = text.replace(SPACE, " ")  # llama.cpp looks for these in the text before it escapes spaces
        tokens[i], scores[i] = text, ADDED_SCORE


def _looks_special(text: str) -> bool:
    """Tokens that checkpoints forget to mark as special; the list is llama.cpp's (does_token_look_special)."""
    return (
        text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
        or (text.startswith("<|") and text.endswith("|>"))
        or (text.startswith("<｜") and text.endswith("｜>"))
        or (text.startswith("<unused") and text.endswith(">"))
    )


def _merges(tokenizer: dict[str, Any]) -> list[tuple[str, str]]:
    """The merges in order of rank; tokenizer.json has them as "a b" or, since transformers 4.45, as ["a", "b"]."""
    merges = tokenizer["model"]["merges"]
    pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in merges)
    return [(left, right) for left, right in pairs]


def _decoder(tokenizer: dict[str, Any]) -> object:
    return (tokenizer.get("decoder") or {}).get("type")


def _added_by_post_processor(tokenizer: dict[str, Any], ids: dict[str, int]) -> dict[str, bool]:
    """Whether BOS and EOS are put around a text, as far as tokenizer.json says so. `ids`: kind -> token id."""
    post = tokenizer.get("post_processor") or {}
    adds: dict[str, bool] = {}
    for step in post.get("processors", [post]):
        if step.get("type") == "ByteLevel":
            adds.setdefault("bos", False)
            adds.setdefault("eos", False)
        elif step.get("type") == "TemplateProcessing" and len(step["single"]) > 1:
            for kind, item in (("bos", step["single"][0]), ("eos", step["single"][-1])):
                if "SpecialToken" in item:
                    token = step["special_tokens"][item["SpecialToken"]["id"]]
                    adds[kind] = token["ids"] == [ids.get(kind)]
    return adds
