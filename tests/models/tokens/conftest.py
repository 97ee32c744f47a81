"""Small tokenizers, trained in milliseconds, and what llama.cpp makes of texts with the file that we write for them."""

import argparse
import inspect
import json
import random
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from gguf_golf.models.config import read_config
from gguf_golf.models.tokens import add_tokenizer
from gguf_golf.runtime.session import LoadedModel

CORPUS = "\n".join(inspect.getsource(module) for module in (argparse, textwrap, random))
FOREIGN = (
    "日本語と中文，测试。한국어 été à naïve ÉCOLE हिन्दी ภาษาไทย 12345 1,000 Привет МИР Αθήνα HelloWorld camelCase\n"
    * 30
)

TEXTS = [
    "def f(x):\n    return  x + 1",
    "plain words of text",
    "  two spaces",
    " leading",
    "trailing  ",
    "tab\tand\t\tmore",
    "a\n\n\nb\r\n c\r\r",
    "I've DON'T we'LL you'Re it'S 'Twas '' don’t “quotes” …",
    "12345 1,000.5 x2y3 ٣٤ Ⅷ² 𝟘𝟙𝟚",
    "été à la carte — naïve",
    "日本語と中文，测试。한국어 mixed日本English混合",
    "🦙👩‍👩‍👧‍👦🏳️‍🌈",
    "",
    " ",
    "\n",
    "\t\n \n  \n\t x",
    "a" * 30 + " " * 9 + "=" * 20,
    "</s>after special",
    "x</s> y</s></s>z",
    "<s>a <s> b",
    "HelloWorld camelCase XMLHttp",
    "a\u00a0b\u200bc\u3000d\u2003e",
    "!!! ??? ...(x) [y]{z} $5 #tag @me a_b-c C:\\path",
    "foo ▁bar",
    "<0x41> µ ſ K İ ß ŉ \u0001",
    "Zażółć gęślą Привет МИР Αθήνα",
    *CORPUS.split("\n")[:150],
]
MARKS = "e\u0301a\u0308 हिन्दी ภาษาไทย"
CAPITALS = "étÉ дОм ÉCOLE"


def byte_level(parts: Sequence[Any], *, ignore_merges: bool = False) -> Tokenizer:
    """A trained byte-level BPE with these pre-tokenizers."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(parts))
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=["<|endoftext|>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([CORPUS, FOREIGN], trainer)
    return tokenizer


def character_level(pre_tokenizer: Any = None, normalizer: Any = None) -> Tokenizer:
    """A trained sentencepiece-style BPE: characters, with bytes as fallback."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS.split("\n")[:1500], trainer)
    values = json.loads(tokenizer.to_str())
    values["added_tokens"] = [token for token in values["added_tokens"] if token["content"] in special]
    return Tokenizer.from_str(json.dumps(values))


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write(tokenizer, settings, config=...) makes a folder of tokenizer.json, tokenizer_config.json, config.json."""

    def make(tokenizer: Tokenizer | dict[str, Any], settings: dict[str, Any] | None = None, **config: Any) -> Path:
        values = tokenizer if isinstance(tokenizer, dict) else json.loads(tokenizer.to_str())
        n_tokens = 1 + max([*values["model"]["vocab"].values(), *(token["id"] for token in values["added_tokens"])])
        named = {"bos_token": "<s>", "eos_token": "</s>"}
        files = {
            "tokenizer": values,
            "tokenizer_config": named | (settings or {}),
            "config": {"vocab_size": n_tokens} | config,
        }
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return make


def vocabulary_file(directory: Path) -> tuple[Path, list[str]]:
    """A GGUF of the checkpoint's tokenizer alone, and the notes."""
    config, path = read_config(directory), directory / "vocabulary.gguf"
    writer = GGUFWriter(path, "llama")
    add_tokenizer(writer, config)
    writer.add_tensor("token_embd.weight", np.zeros((1, 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, config.notes


def llama_tokens(path: Path, texts: Sequence[str], *, add_special: bool = False) -> list[list[int]]:
    """The tokens of this project's llama.cpp."""
    with LoadedModel(path, vocab_only=True) as model:
        return [model.tokenize(text, add_special=add_special, parse_special=True).tolist() for text in texts]
