#!/usr/bin/env bash
# transformers does not run the normalizer of a LlamaTokenizer's tokenizer.json: the same file gives other tokens.
#
# Llama 2 and many models after it store a `Prepend("▁")` normalizer in tokenizer.json. AutoTokenizer replaces it with
# its own pre-tokenizer, Metaspace with prepend_scheme "first" ("always" with `legacy: true`). A leading space of the
# text vanishes, and with "first" so does the "▁" after a special token. The same files with another `tokenizer_class`
# in tokenizer_config.json keep the normalizer. Nothing is logged.
#
# Seen in: transformers 5.24.0, tokenizers 0.23.3.
# Most would expect: tokenizer.json alone decides, as it does for the tokenizers library and for other classes.
# Why it matters: a model converted or served from tokenizer.json sees other tokens than the same model under
# transformers, so prompts, perplexities and parity tests differ, and which one matches the training depends on the
# model.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.24.0 tokenizers==0.23.3
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1
"$work/venv/bin/python" - "$work" <<'PY'
import json
import sys
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, normalizers
from transformers import AutoTokenizer

SPECIAL = ["<unk>", "<s>", "</s>"]
vocab = [*SPECIAL, "▁", "a", "b"]
tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(vocab)}, [], unk_token="<unk>"))
tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])


def load(tokenizer_class, **options):
    folder = Path(sys.argv[1], "model")
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    config = {"tokenizer_class": tokenizer_class, **options}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return AutoTokenizer.from_pretrained(folder)


readers = {
    "tokenizers": lambda text: tokenizer.encode(text).tokens,
    "transformers, PreTrainedTokenizerFast": load("PreTrainedTokenizerFast").tokenize,
    "transformers, LlamaTokenizer": load("LlamaTokenizer").tokenize,
    "transformers, LlamaTokenizer, legacy": load("LlamaTokenizer", legacy=True).tokenize,
}
seen = {name: [" ".join(read(text)) for text in (" a", "a</s>b")] for name, read in readers.items()}
for name, tokens in seen.items():
    print(f"{name:40} ' a' -> {tokens[0]:8} 'a</s>b' -> {tokens[1]}")
by_file, vanished = ["▁ ▁ a", "▁ a </s> ▁ b"], ["▁ a", "▁ a </s> b"]
assert list(seen.values()) == [by_file, by_file, vanished, ["▁ a", "▁ a </s> ▁ b"]], "no longer so"
PY
