"""The token list of a GGUF file: a text, a score and a type for every row of the embedding."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from gguf import GGUFWriter, TokenType

from gguf_golf.errors import InputError
from gguf_golf.models.tokens.files import AddedToken

SPACE = "\u2581"  # what sentencepiece writes for a space
PADDING_SCORE = -10000.0
ADDED_SCORE = -1000.0
MAX_TOKENS = 1 << 24  # sixty times the largest vocabulary of any model


class Vocabulary:
    """Tokens by id. Ids that the embedding has and the tokenizer does not stay unused padding.

    `special_ids` are those of bos, eos, ... that the tokenizer's model itself names; `notes` collects what the file
    cannot say, for the user.
    """

    def __init__(self, size: int) -> None:
        if size > MAX_TOKENS:
            raise InputError(f"config.json: vocab_size {size} is not that of any model; download it again")
        self.texts = [f"[PAD{i}]" for i in range(size)]
        self.scores = [PADDING_SCORE] * size
        self.types = [TokenType.UNUSED] * size
        self.special_ids: Mapping[str, int] = {}
        self.notes: list[str] = []

    def __len__(self) -> int:
        return len(self.texts)

    def check_fits(self, path: Path, ids: Collection[int]) -> None:
        """Raise InputError if the tokenizer's own vocabulary is larger than the embedding, or not one id a token."""
        if bad := [i for i in ids if i < 0] or [i for i, count in Counter(ids).items() if count > 1]:
            raise InputError(f"{path}: {bad[0]} is not the id of one token; download the tokenizer again")
        n_tokens = max(ids, default=-1) + 1
        if n_tokens > len(self):
            raise InputError(
                f"{path} has {n_tokens} tokens, config.json's vocab_size is {len(self)}; take both from the same model"
            )

    def set(self, i: int, text: str, type_: TokenType, score: float = 0.0) -> None:
        """Fill one id."""
        self.texts[i], self.types[i], self.scores[i] = text, type_, score

    def add(self, added: Iterable[AddedToken]) -> None:
        """Put added tokens over the vocabulary. One beyond the embedding is left out: the model has no row for it."""
        beyond = []
        for token in added:
            if token.id >= len(self):
                beyond.append(token.text)
            elif token.special or _looks_special(token.text):
                self.set(token.id, token.text, TokenType.CONTROL, ADDED_SCORE)
            else:  # llama.cpp looks for these in the text before it escapes spaces
                self.set(token.id, token.text.replace(SPACE, " "), TokenType.USER_DEFINED, ADDED_SCORE)
        if beyond:
            self.notes.append(
                f"the embedding has {len(self)} rows: added tokens beyond it are left out ({_some(beyond)})"
            )

    def ids(self) -> Mapping[str, int]:
        """text -> id of every token that is not padding."""
        return {
            text: i
            for i, (text, type_) in enumerate(zip(self.texts, self.types, strict=True))
            if type_ != TokenType.UNUSED
        }

    def write(self, writer: GGUFWriter, *, scores: bool) -> None:
        """Add the token list. llama.cpp aborts on two tokens of one text, so a token that another hides is renamed."""
        self._rename_hidden()
        writer.add_token_list(self.texts)
        if scores:
            writer.add_token_scores(self.scores)
        writer.add_token_types(self.types)

    def _rename_hidden(self) -> None:
        """Of tokens with one text the added one is found (it is cut out first), else the last, as in a dict."""
        added = (TokenType.CONTROL, TokenType.USER_DEFINED)
        owner: dict[str, int] = {}
        hidden = []
        for i in sorted(range(len(self)), key=lambda i: self.types[i] in added):
            text = self.texts[i].split("\0")[0]  # what llama.cpp reads of it
            if (other := owner.get(text)) is not None:
                hidden.append(text)
                self.set(other, f"[HIDDEN{other}]", TokenType.UNUSED, PADDING_SCORE)
            owner[text] = i
        if hidden:
            self.notes.append(
                f"two ids have the same text; the one that text never becomes is unused ({_some(hidden)})"
            )


def flag_notes(added: Iterable[AddedToken], *, normalized: bool) -> list[str]:
    """A note on the added tokens whose flags llama.cpp does not know; `normalized` says whether that one matters."""
    known = {"normalized"} if not normalized else set()
    odd = {token.text: token.flags - known for token in added if token.flags - known}
    shown = [f"{text} ({', '.join(sorted(flags))})" for text, flags in odd.items()]
    note = (
        f"llama.cpp cuts added tokens out of a text as they are; beside {_some(shown)} it keeps spaces that the "
        "original tokenizer takes away, or finds the token where the original does not"
    )
    return [note] if odd else []


def _some(texts: list[str]) -> str:
    shown = ", ".join(repr(text) if "(" not in text else text for text in texts[:3])
    return shown + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")


def _looks_special(text: str) -> bool:
    """Tokens that checkpoints forget to mark as special; the list is llama.cpp's (does_token_look_special)."""
    return (
        text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
        or (text.startswith("<|") and text.endswith("|>"))
        or (text.startswith("<｜") and text.endswith("｜>"))
        or (text.startswith("<unused") and text.endswith(">"))
    )
