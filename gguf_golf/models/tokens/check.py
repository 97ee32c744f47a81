"""Does a GGUF file cut texts as the checkpoint's own tokenizer does? Asked of llama.cpp and of transformers.

Without transformers, what the checkpoint's files say is asked of tokenizers (where it is installed) and sentencepiece.
"""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor

from gguf_golf.models.config import read_config
from gguf_golf.models.tokens.files import TokenizerFiles
from gguf_golf.models.tokens.pretokenizer import normalizes_to_nfc
from gguf_golf.runtime.session import LoadedModel

AWKWARD = [
    "def f(x):\n    return  x + 1\n\n\n",
    "  two spaces, then one at the end ",
    " ",
    "tab\tand\t\tmore\r\n c\r\r\n \n  \n\t x",
    "I've DON'T we'LL you'Re it'S 'Twas '' don’t “quotes” …",
    "12345 1,000.5 x2y3 ٣٤ Ⅷ² 𝟘𝟙𝟚",
    "été à la carte — naïve ÉCOLE étÉ Zażółć Привет МИР Αθήνα",
    "日本語と中文，测试。한국어 mixed日本English混合",
    "हिन्दी ภาษาไทย שלום العربية",
    "🦙👩‍👩‍👧‍👦🏳️‍🌈",
    "HelloWorld camelCase XMLHttp a_b-c C:\\path\\n",
    "a\u00a0b\u200bc\u3000d\u2003e ﬁ ² µ ſ K ▁",
    "!!! ??? ...(x) [y]{z} $5 #tag @me <0x41>",
    "a" * 30 + " " * 9 + "=" * 20,
]
DECOMPOSED = "e\u0301a\u0308"  # llama.cpp does not normalize to NFC; a note says so

SHOWN = 6  # tokens of a difference

Encode = Callable[[str, bool], list[int]]  # (text, with BOS and EOS)


def compare(checkpoint: Path, gguf: Path) -> list[str]:
    """Texts that become other tokens, one sentence each; none if the file is right.

    Right is what transformers makes of a text, or what the checkpoint's own file says: some classes of transformers 5
    (LlamaTokenizer, GPT2Tokenizer) put rules of their own in place of those in tokenizer.json. Needs the [hf] extra.
    """
    files = TokenizerFiles.read(read_config(checkpoint))
    with LoadedModel(gguf, vocab_only=True) as model:
        return list(_differences(files, model, [_by_transformers(files), *_by_files(files)], "transformers"))


def differences(checkpoint: Path, model: LoadedModel) -> list[str]:
    """The same against the checkpoint's own files alone, without transformers; none where nothing can read them."""
    files = TokenizerFiles.read(read_config(checkpoint))
    references = list(_by_files(files))
    return list(_differences(files, model, references, "the checkpoint's tokenizer")) if references else []


def _differences(files: TokenizerFiles, model: LoadedModel, references: list[Encode], whose: str) -> Iterator[str]:
    for text, with_special in _texts(files):
        tokens = model.tokenize(text, add_special=with_special, parse_special=True).tolist()
        expected = [encode(text, with_special) for encode in references]
        if tokens not in expected:
            at = next((i for i, pair in enumerate(zip(tokens, expected[0], strict=False)) if pair[0] != pair[1]), 0)
            ours, theirs = tokens[at : at + SHOWN], expected[0][at : at + SHOWN]
            yield f"{text!r} becomes {ours} from token {at} on in the file, and {theirs} in {whose}"


def _texts(files: TokenizerFiles) -> Iterator[tuple[str, bool]]:
    """(text, whether BOS and EOS are put around it)."""
    for text in [*AWKWARD, *([] if normalizes_to_nfc(files) else [DECOMPOSED])]:
        yield text, False
    yield "plain words", True
    n_tokens = int(files.config.get("vocab_size") or 0)
    fill = files.token_text("fill") or "<FILL_ME>"  # CodeLlama's class splits a text there
    for token in files.added_tokens[:50]:
        # what the other flags change is a note of every conversion
        if token.id < n_tokens and not token.flags - {"normalized"} and token.text != fill:
            yield f"word{token.text}word {token.text} {token.text}{token.text}\n", False


def _by_transformers(files: TokenizerFiles) -> Encode:
    from transformers import AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    automatic: Any = AutoTokenizer.from_pretrained(files.directory)
    return lambda text, special: list(automatic(text, add_special_tokens=special)["input_ids"])


def _by_files(files: TokenizerFiles) -> Iterator[Encode]:
    if files.tokenizer:
        if files.settings.get("fix_mistral_regex") is True:
            return  # transformers puts another expression in place of the file's
        if importlib.util.find_spec("tokenizers") is not None:
            from tokenizers import AddedToken, Tokenizer

            written = Tokenizer.from_file(str(files.path))
            for token in files.added_tokens:  # of tokenizer_config.json and added_tokens.json too
                if written.token_to_id(token.text) is None:
                    written.add_tokens([AddedToken(token.text, **dict.fromkeys(token.flags, True))])
            yield lambda text, special: list(written.encode(text, add_special_tokens=special).ids)
    elif files.model_path.is_file():
        processor = SentencePieceProcessor(model_file=str(files.model_path))
        bos = [processor.bos_id()] if files.settings.get("add_bos_token", True) else []
        eos = [processor.eos_id()] if files.settings.get("add_eos_token", False) else []
        yield lambda text, special: bos * special + processor.EncodeAsIds(text) + eos * special
