#!/usr/bin/env bash
# transformers adds no BOS to a Llama's text if the folder has tokenizer.model but no tokenizer.json.
#
# LlamaTokenizer's documentation says that add_bos_token is True by default, and version 4 did so. Version 5 takes False
# unless told otherwise, for AutoTokenizer and LlamaTokenizer alike. bos_token is still "<s>", so nothing looks wrong,
# and nothing is logged. Saving makes the omission permanent: the tokenizer.json that it writes has no BOS either.
#
# Seen in: transformers 5.24.0, tokenizers 0.23.3, sentencepiece 0.2.3. Not in: transformers 4.57.6.
# Most would expect: the documented default, and the same tokens as from the same folder with version 4.
# Why it matters: Llama models are trained with a BOS at the start of a text, so prompts and perplexities from such a
# folder are not those of the model as it was trained.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.24.0 tokenizers==0.23.3 sentencepiece==0.2.3 protobuf==7.36.2
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1
"$work/venv/bin/python" - "$work/model" <<'PY'
import inspect
import json
import sys
from pathlib import Path

from sentencepiece import SentencePieceTrainer
from transformers import AutoTokenizer, LlamaTokenizer

folder = Path(sys.argv[1])
folder.mkdir()
(folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
with open(folder / "tokenizer.model", "wb") as out:
    text = iter(["the cat sat on the mat", "the dog ran after the cat"])
    options = {"model_type": "bpe", "vocab_size": 300, "byte_fallback": True, "hard_vocab_limit": False}
    SentencePieceTrainer.train(sentence_iterator=text, model_writer=out, minloglevel=2, **options)

AutoTokenizer.from_pretrained(folder).save_pretrained(folder / "saved")
first = {}
for name, tokenizer in {
    "AutoTokenizer": AutoTokenizer.from_pretrained(folder),
    "LlamaTokenizer": LlamaTokenizer.from_pretrained(folder),
    "AutoTokenizer, saved": AutoTokenizer.from_pretrained(folder / "saved"),
    "add_bos_token=True": AutoTokenizer.from_pretrained(folder, add_bos_token=True),
}.items():
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("the cat").input_ids)
    print(f"{name:20}   bos_token {tokenizer.bos_token}   'the cat' -> {' '.join(tokens)}")
    first[name] = tokens[0]
documented = next(line.strip() for line in inspect.getdoc(LlamaTokenizer).splitlines() if "add_bos_token (" in line)
print(f"documented: {documented}")
assert documented.endswith("defaults to `True`):"), "no longer so"
assert list(first.values()) == ["▁the", "▁the", "▁the", "<s>"], "no longer so"
PY
