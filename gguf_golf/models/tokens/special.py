"""Special tokens: their ids, what is put around a text, and where generation stops."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from gguf import GGUFWriter, TokenType

from gguf_golf.errors import InputError
from gguf_golf.models.tokens.files import KINDS, AddedToken, TokenizerFiles
from gguf_golf.models.tokens.vocabulary import Vocabulary

# Texts that llama.cpp takes for the end of a generation whatever the file says (llama-vocab.cpp, special_eog_ids)
ENDS_BY_NAME = frozenset(
    [
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "</s>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<eos>",
        "<turn|>",
        "<|tool_response>",
        "<｜end▁of▁sentence｜>",
        "[e~[",
    ]
)


class _Around(NamedTuple):
    """Token ids that the post-processor puts before and after a text."""

    before: list[int]
    after: list[int]


def missing_special_tokens(files: TokenizerFiles, vocabulary: Vocabulary) -> list[AddedToken]:
    """Special tokens that a file names and no vocabulary holds: transformers appends them, in this order."""
    known = set(vocabulary.ids()) | {token.text for token in files.added_tokens}
    last = max([*vocabulary.ids().values(), *(token.id for token in files.added_tokens)], default=-1)
    texts = dict.fromkeys(text for kind in KINDS if (text := files.token_text(kind)) and text not in known)
    return [AddedToken(last + 1 + n, text, special=True, flags=frozenset()) for n, text in enumerate(texts)]


def add_special_tokens(writer: GGUFWriter, files: TokenizerFiles, vocabulary: Vocabulary) -> None:
    """Add the ids of special tokens, whether BOS and EOS are put around a text, and the tokens that end a generation.

    What tokenizer.json's post-processor says counts, and tokenizer_config.json's add_bos_token and add_eos_token only
    where there is no tokenizer.json, as in transformers 5.
    """
    ids = _named_ids(files, vocabulary)
    if files.tokenizer:
        around = _around(files.tokenizer.get("post_processor"))
        writer.add_add_bos_token(_put(vocabulary, ids, "bos", around.before))
        writer.add_add_eos_token(_put(vocabulary, ids, "eos", around.after))
    else:
        for kind, add in (("bos", writer.add_add_bos_token), ("eos", writer.add_add_eos_token)):
            if isinstance(value := files.settings.get(f"add_{kind}_token"), bool):
                add(value)
    _add_ends(files, vocabulary, ids)
    for kind, i in ids.items():
        if (add_id := getattr(writer, f"add_{kind}_token_id", None)) is not None:
            add_id(i)


def _named_ids(files: TokenizerFiles, vocabulary: Vocabulary) -> dict[str, int]:
    """kind -> id: by text from the tokenizer's files, else by number from config.json, else the tokenizer's own."""
    known, ids = vocabulary.ids(), dict(vocabulary.special_ids)
    for kind in KINDS:
        text = files.token_text(kind)
        numbers = files.token_ids(f"{kind}_token_id", files.config.values, files.config.values.get("text_config") or {})
        if text is not None and text in known:
            ids[kind] = known[text]
        elif numbers and numbers[0] < len(vocabulary):
            ids[kind] = numbers[0]
    return ids


def _around(post_processor: Any) -> _Around:
    before: list[int] = []
    after: list[int] = []
    for step in _steps(post_processor):
        match step:
            case {"type": "TemplateProcessing", "single": single, "special_tokens": special}:
                side = before
                for item in single:
                    if "Sequence" in item:
                        side = after
                    else:
                        side.extend(special[item["SpecialToken"]["id"]]["ids"])
            case {"type": "RobertaProcessing" | "BertProcessing", "cls": [_, int(cls)], "sep": [_, int(sep)]}:
                before.append(cls)
                after.append(sep)
    return _Around(before, after)


def _steps(post_processor: Any) -> Iterator[dict[str, Any]]:
    match post_processor:
        case {"type": "Sequence", "processors": list(steps)}:
            for step in steps:
                yield from _steps(step)
        case dict(step):
            yield step


def _put(vocabulary: Vocabulary, ids: dict[str, int], kind: str, around: list[int]) -> bool:
    """Whether the BOS or EOS token is put; that token is then the one which the template names."""
    if not around:
        return False
    if bad := [i for i in around if not 0 <= i < len(vocabulary)]:
        raise InputError(
            f"tokenizer.json: the post-processor puts the id {bad[0]}, which no token has; download it again"
        )
    texts = [vocabulary.texts[i] for i in around]
    if len(around) > 1:
        vocabulary.notes.append(
            f"the original tokenizer puts {''.join(texts)} around a text, llama.cpp can put one token there and puts "
            "none: write them in the prompt"
        )
        return False
    if kind in ids and ids[kind] != around[0]:
        vocabulary.notes.append(f"{kind} is {texts[0]}, which the template puts, not {vocabulary.texts[ids[kind]]}")
    ids[kind] = around[0]
    return True


def _add_ends(files: TokenizerFiles, vocabulary: Vocabulary, ids: dict[str, int]) -> None:
    """Complete `ids` with eos, eot and eom so that llama.cpp stops wherever generate() does."""
    text_config = files.config.values.get("text_config") or {}
    stops = files.token_ids("eos_token_id", files.generation, files.config.values, text_config)
    if (named := files.token_text("eos")) is not None and (i := vocabulary.ids().get(named)) is not None:
        stops.append(i)
    stops = [i for i in dict.fromkeys(stops) if i < len(vocabulary)]
    if "eos" not in ids and stops:
        ids["eos"] = stops[0]
    if "eos" not in ids:
        _add_no_end(vocabulary, ids)
    others = [i for i in stops if i != ids.get("eos") and vocabulary.texts[i] not in ENDS_BY_NAME]
    for kind, i in zip(("eot", "eom"), others, strict=False):
        ids[kind] = i
    if lost := [vocabulary.texts[i] for i in others[2:]]:
        vocabulary.notes.append(
            f"generation does not stop at {', '.join(lost)}: a GGUF file can name three such tokens"
        )


def _add_no_end(vocabulary: Vocabulary, ids: dict[str, int]) -> None:
    """No file names an end: llama.cpp would take its default id (11, or 2) for one, so name an unused id."""
    unused = next((i for i, type_ in enumerate(vocabulary.types) if type_ == TokenType.UNUSED), None)
    if unused is not None:
        ids["eos"] = unused
    else:
        vocabulary.notes.append("no file names an end-of-sequence token: llama.cpp stops at its default, 11 or 2")
