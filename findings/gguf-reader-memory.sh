#!/usr/bin/env bash
# Opening a GGUF file of 2 MB with gguf-py's GGUFReader takes more than 100 MB of memory, all of it for the vocabulary.
#
# GGUFReader wraps every element of an array, and the length of every string, in a NumPy memmap view of its own:
# hundreds of bytes of Python objects for a number of 4 bytes. Tokens, scores and types make four views for each
# token. They are made when the file is opened, whatever is asked of it, and live as long as the reader.
#
# Seen in: gguf 0.19.0 with numpy 2.4.6, Python 3.11.
# Most would expect: a file that is mapped into memory costs about what is read of it, a few MB of metadata here.
# Why it matters: it grows with the vocabulary. With 262,144 tokens and 7 MB, looking at one key takes about 670 MB and
# 10 seconds of CPU time; a tool that keeps several files open pays this for each.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet gguf==0.19.0 numpy==2.4.6
"$work/venv/bin/python" - "$work/vocabulary.gguf" <<'PY'
import sys
import time
import tracemalloc
from pathlib import Path

import gguf

PATH, TOKENS = Path(sys.argv[1]), 65536
out = gguf.GGUFWriter(PATH, "llama")
out.add_token_list([f"token{i}" for i in range(TOKENS)])
out.add_token_scores([0.0] * TOKENS)
out.add_token_types([1] * TOKENS)
out.write_header_to_file()
out.write_kv_data_to_file()
out.write_tensors_to_file()
out.close()

start = time.process_time()
gguf.GGUFReader(PATH)
seconds = time.process_time() - start

tracemalloc.start()
reader = gguf.GGUFReader(PATH)
held = tracemalloc.get_traced_memory()[0]
views = sum(len(reader.fields[f"tokenizer.ggml.{name}"].parts) for name in ("tokens", "scores", "token_type"))
size = PATH.stat().st_size
print(f"{TOKENS} tokens, a file of {size / 1e6:.1f} MB: opened in {seconds:.1f} s of CPU time")
print(f"the reader holds {views} views, {held / 1e6:.0f} MB, {held / size:.0f} times the file")
assert views > 4 * TOKENS and held > 50 * size, "no longer so"
PY
