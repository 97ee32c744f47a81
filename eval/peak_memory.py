"""Peak memory of every command on a model of 3 GB and on one with a vocabulary of 262,144: docs/reliability.md's table.

    python eval/peak_memory.py -o FOLDER

FOLDER (8 GB) keeps the models, whose weights are random; the tokenizer is the embedded model's. Linux only: a process
is sampled through /proc. "Private" is what a command allocates itself; the whole also holds the pages of the files that
it maps, which the system can take back at any time.
"""

import json
import shutil
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import click
import numpy as np

TINY = Path(str(files("gguf_golf"))) / "data" / "golf-tiny"
TEXT = Path(str(files("gguf_golf"))) / "data" / "demo" / "demo.txt"

MODELS = {
    "3gb": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32,
            "num_key_value_heads": 8, "vocab_size": 4096},
    "262k": {"vocab_size": 262144},
}  # fmt: skip

COMMANDS = {
    "3gb": (
        "convert {model} -o {folder}/base.gguf --force",
        "imatrix {folder}/base.gguf --text {text} --ctx 128 --chunks 2 -o {folder}/imatrix.gguf",
        "convert {model} -o {folder}/small.gguf --type tcq3 --imatrix {folder}/imatrix.gguf --force",
        "eval {folder}/base.gguf {folder}/small.gguf --text {text} --ctx 128 --chunks 2",
        "run {folder}/small.gguf -p cat -n 8",
        "inspect {folder}/small.gguf",
    ),
    "262k": (
        "convert {model} -o {folder}/base.gguf --force",
        "imatrix {folder}/base.gguf --text {text} --chunks 2 -o {folder}/imatrix.gguf --hessian {folder}/hessian.gguf",
        "sensitivity {folder}/base.gguf --imatrix {folder}/imatrix.gguf --text {text} --chunks 2 -o {folder}/s.json",
        "plan {folder}/base.gguf --sensitivity {folder}/s.json --budget 3bpw -o {folder}/recipe.toml --force",
        "quantize {folder}/base.gguf --recipe {folder}/recipe.toml -o {folder}/planned.gguf --force",
        "eval {folder}/base.gguf {folder}/planned.gguf --text {text} --chunks 3 --json {folder}/results.json",
        "report {folder}/results.json -o {folder}/report.html --force",
        "run {folder}/planned.gguf -p cat -n 8",
    ),
}


@click.command()
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True)
@click.option("--model", "names", multiple=True, type=click.Choice(list(MODELS)), default=list(MODELS))
def main(out: Path, names: tuple[str, ...]) -> None:
    """Run every command and print a row for each: MB at most, private and in all."""
    click.echo("| model | command | private MB | whole MB | CPU s |\n|---|---|---|---|---|")
    for name in names:
        folder = out / name
        model = make_checkpoint(folder / "model", MODELS[name])
        for command in COMMANDS[name]:
            arguments = command.format(model=model, folder=folder, text=TEXT)
            private, whole, seconds = peak(arguments)
            click.echo(f"| {name} | {command.split()[0]} | {private:.0f} | {whole:.0f} | {seconds:.0f} |")


def make_checkpoint(folder: Path, changes: dict[str, int]) -> Path:
    """A Llama checkpoint of this shape with random BF16 weights, in one shard for each layer."""
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((TINY / "config.json").read_text(encoding="utf-8")) | changes
    config.pop("head_dim", None)
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    rng = np.random.default_rng(0)
    # BF16 as the upper half of F32: sign, a small exponent, seven bits of mantissa
    pool = (rng.normal(0, 0.02, 1 << 20).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    one = np.uint16(0x3F80)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return np.resize(np.roll(pool, int(rng.integers(len(pool)))), (rows, columns))

    embedding = matrix(config["vocab_size"], hidden)
    shards = [{"model.embed_tokens.weight": embedding, "model.norm.weight": np.full(hidden, one)}]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shards.append(
            {
                f"{prefix}self_attn.q_proj.weight": matrix(hidden, hidden),
                f"{prefix}self_attn.k_proj.weight": matrix(kv, hidden),
                f"{prefix}self_attn.v_proj.weight": matrix(kv, hidden),
                f"{prefix}self_attn.o_proj.weight": matrix(hidden, hidden),
                f"{prefix}mlp.gate_proj.weight": matrix(wide, hidden),
                f"{prefix}mlp.up_proj.weight": matrix(wide, hidden),
                f"{prefix}mlp.down_proj.weight": matrix(hidden, wide),
                f"{prefix}input_layernorm.weight": np.full(hidden, one),
                f"{prefix}post_attention_layernorm.weight": np.full(hidden, one),
            }
        )
    index = {}
    for number, tensors in enumerate(shards, 1):
        shard = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_bf16(tensors, folder / shard)
        index.update(dict.fromkeys(tensors, shard))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    shutil.copy(TINY / "tokenizer.model", folder)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")  # last: it says that the folder is whole
    return folder


def save_bf16(tensors: dict[str, np.ndarray], path: Path) -> None:
    """Safetensors of BF16 given as its bits, u16: NumPy has no such type, so the header is written here."""
    header, end = {}, 0
    for name, bits in tensors.items():
        header[name] = {"dtype": "BF16", "shape": list(bits.shape), "data_offsets": [end, end + bits.nbytes]}
        end += bits.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for bits in tensors.values():
            bits.tofile(file)


def peak(arguments: str) -> tuple[float, float, float]:
    """Run gguf-golf: its largest private and whole resident memory, MB, and its CPU seconds."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gguf_golf", *arguments.split()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    status = Path(f"/proc/{process.pid}/status")
    private = whole = 0.0
    seconds = 0.0
    while process.poll() is None:
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
            ticks = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, ValueError):
            break
        if "VmRSS" not in fields:
            break
        private = max(private, int(fields["RssAnon"].split()[0]) / 1000)
        whole = max(whole, int(fields["VmRSS"].split()[0]) / 1000)
        seconds = (int(ticks[11]) + int(ticks[12])) / 100
        time.sleep(0.02)
    output = process.communicate()[0].decode("utf-8", "replace")
    if process.returncode:
        raise SystemExit(f"gguf-golf {arguments}\n{output}")
    return private, whole, seconds


if __name__ == "__main__":
    main()
