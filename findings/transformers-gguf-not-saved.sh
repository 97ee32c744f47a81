#!/usr/bin/env bash
# transformers refuses to save a model that it loaded from a GGUF, as "quantized", when every weight of it is float32.
#
# Where transformers cannot compute with packed weights, it dequantizes the file as it loads, and all parameters are
# ordinary float32 ones. The model still counts as quantized: save_pretrained raises a ValueError that points to
# warnings that do not exist. The same call with quantization_config=GgufConfig(dequantize=True) gives equal parameters
# and a model that can be saved.
#
# Seen in: transformers 5.24.0 with torch 2.13.0 on a CPU, gguf 0.19.0 to write the file.
# Most would expect: what was dequantized is a model like any other.
# Why it matters: turning a GGUF into safetensors, or saving it after fine-tuning, fails at the last step, and the
# message suggests that the weights are still packed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.13.0 accelerate==1.15.0 gguf==0.19.0 numpy==2.4.6
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1
"$work/venv/bin/python" - "$work" <<'PY'
import sys

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, GgufConfig
from transformers.utils import logging

logging.disable_progress_bar()
FOLDER, NAME, WIDTH = sys.argv[1], "random.gguf", 64
Q8_0 = gguf.GGMLQuantizationType.Q8_0
random = np.random.default_rng(0)

out = gguf.GGUFWriter(f"{FOLDER}/{NAME}", "llama")
sizes = {"context_length": 64, "embedding_length": WIDTH, "feed_forward_length": WIDTH, "vocab_size": WIDTH}
for key, size in (sizes | {"block_count": 1, "attention.head_count": 4, "attention.head_count_kv": 4}).items():
    out.add_uint32(f"llama.{key}", size)
out.add_layer_norm_rms_eps(1e-5)
out.add_tokenizer_model("no_vocab")
for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
    out.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
for name in ("token_embd", "output", *(f"blk.0.{part}" for part in parts)):
    weights = random.standard_normal((WIDTH, WIDTH), np.float32)
    out.add_tensor(f"{name}.weight", gguf.quants.quantize(weights, Q8_0), raw_dtype=Q8_0)
out.write_header_to_file()
out.write_kv_data_to_file()
out.write_tensors_to_file()
out.close()


def load_and_save(what, **options):
    model = AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file=NAME, **options)
    dtypes = {parameter.dtype for parameter in model.parameters()}
    try:
        model.save_pretrained(f"{FOLDER}/saved")
        message = "saved"
    except ValueError as error:
        message = str(error)
    print(f"{what}: parameters of {dtypes}: {message}")
    return model.state_dict(), dtypes, message


plain, dtypes, refusal = load_and_save("default")
asked, _, saved = load_and_save("dequantize=True", quantization_config=GgufConfig(dequantize=True))
assert dtypes == {torch.float32} and plain.keys() == asked.keys(), "no longer so"
assert all(torch.equal(plain[name], asked[name]) for name in plain), "no longer so"
assert "is quantized with gguf and is not serializable" in refusal and saved == "saved", "no longer so"
PY
