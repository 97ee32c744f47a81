#!/usr/bin/env bash
# transformers splits the text of every "qwen2" checkpoint with Qwen2's regex, whatever tokenizer.json says.
#
# AutoTokenizer sees model_type "qwen2" in config.json and builds a Qwen2Tokenizer: vocabulary and merges come from
# tokenizer.json, its pre-tokenizer does not. A tokenizer_class of "PreTrainedTokenizerFast" does not help. Under
# another model_type, such as "qwen3", the same files are followed. Nothing is logged.
#
# Seen in: transformers 5.24.0, tokenizers 0.23.3.
# Most would expect: a pre-tokenizer stored in tokenizer.json is used; model_type names the network, not the tokenizer.
# Why it matters: many models have Qwen2's network but a tokenizer of their own. Their text becomes other tokens than
# they were trained on, and other tokens than any program sees that follows tokenizer.json.
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

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

TEXT = "year 1969"
split = pre_tokenizers.Split(Regex(r"\p{N}{1,4}|[^\s\p{N}]+|\s+"), "isolated")  # Qwen2 splits numbers into digits
tokenizer = Tokenizer(models.BPE())
byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
tokenizer.train_from_iterator(
    [TEXT] * 3,
    trainers.BpeTrainer(vocab_size=300, initial_alphabet=byte_level.alphabet(), show_progress=False),
)


def tokens(model_type):
    folder = Path(sys.argv[1], "model")
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return AutoTokenizer.from_pretrained(folder).tokenize(TEXT)


seen = {"tokenizer.json": tokenizer.encode(TEXT).tokens, **{name: tokens(name) for name in ("qwen3", "llama", "qwen2")}}
for name, found in seen.items():
    print(f"{name:15} {found}")
whole, digits = ["year", "Ġ", "1969"], ["year", "Ġ", "1", "9", "6", "9"]
assert list(seen.values()) == [whole, whole, whole, digits], "no longer so"
PY
