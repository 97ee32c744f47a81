"""Make tests/models/golden/: what llama.cpp's converter, transformers and tokenizers say of the checkpoints.

Not a test. Run it in an environment with torch, transformers, tokenizers and gguf, from this folder:
    python make_golden.py PATH_TO_LLAMA_CPP_SOURCE
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from checkpoints import CASES, TEXTS, VOCAB, build
from gguf import GGUFReader, GGUFValueType, dequantize
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

GOLDEN = Path(__file__).parent / "golden"

# The converter knows pre-tokenizers by a hash of the vocabulary, which these small ones cannot match: tell it.
PRE = {"qwen2-yarn": "qwen2", "qwen3-sharded": "qwen2", "llama3-scaled": "llama-bpe", "llama-biases": "gpt-2"}
DRIVER = """
import os, runpy, sys
source = sys.argv.pop(1)
sys.path.insert(0, source)
import conversion.base
conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: os.environ["PRE"]
sys.argv[0] = source + "/convert_hf_to_gguf.py"
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in CASES:
            checkpoint, out = build(name, Path(folder)), Path(folder) / f"{name}.gguf"
            output_type = {"qwen3-sharded": "f16", "mistral-json": "f32"}.get(name, "bf16")
            subprocess.run(
                [sys.executable, "-c", DRIVER, sys.argv[1], checkpoint, "--outfile", out, "--outtype", output_type],
                env=os.environ | {"PRE": PRE.get(name, "")},
                check=True,
            )
            reader = GGUFReader(out)
            metadata = {
                key: [
                    field.types[0].name,
                    field.types[-1].name if field.types[0] == GGUFValueType.ARRAY else None,
                    field.contents(),
                ]
                for key, field in reader.fields.items()
                if not key.startswith("GGUF.")
            }
            tensors = {}
            for tensor in reader.tensors:
                values = dequantize(tensor.data, tensor.tensor_type).astype("<f4")
                tensors[tensor.name] = [list(values.shape), hashlib.sha256(values.tobytes()).hexdigest()[:16]]
            model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
            ids = np.random.default_rng(3).integers(3, VOCAB - 60, 80)
            with torch.inference_mode():
                logits = model(torch.tensor(ids)[None]).logits[0, -1].numpy()
            tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
            golden = {
                "metadata": metadata,
                "tensors": tensors,
                "ids": ids.tolist(),
                "logits": [round(float(value), 5) for value in logits],
                "tokens": [tokenizer.encode(text).ids for text in TEXTS],
            }
            (GOLDEN / f"{name}.json").write_text(json.dumps(golden, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
