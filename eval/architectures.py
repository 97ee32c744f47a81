"""Which architectures convert, and whether they come out right: tiny models of every class, compared with transformers.

    python -m eval.architectures               # all, into docs/architectures.md (takes the [hf] extra; half an hour)
    python -m eval.architectures llama gemma3  # some, printed only

Finished rows are kept, so an interrupted run resumes, and one after a run of some classes makes the others; a change of
gguf_golf/models, of this file, or of the versions of llama.cpp and transformers makes all of them again.

Each class is made tiny and random by transformers, saved, converted, and compared: tokens, logits, an imatrix, a
conversion to tcq3 with it, and whether that loads. "saved" is the layout that transformers writes, "published" an older
one that most checkpoints on the Hub have: keys of config.json as they were called before transformers 5.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf_golf.journal import open_journal
from gguf_golf.runtime import pin
from gguf_golf.runtime.cache import cache_dir

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architectures.md"
MAX_KL = 1e-3

BASE: dict[str, Any] = {
    "vocab_size": 640,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
MOE = {"num_experts_per_tok": 2, "moe_intermediate_size": 64}
MLA = {"q_lora_rank": 32, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16}
MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_ssm": 128, "mamba_d_state": 16, "mamba_n_groups": 1}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "full_attention_interval": 4,
}


@dataclass(frozen=True)
class Tiny:
    """A class of transformers (its name without "Config") and the settings that make it tiny."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    tokenizer: str = "qwen2"
    untouched: bool = False  # `settings` alone, without BASE
    new: bool = False  # came with transformers 5: there is no older layout


CLASSES = {
    "llama": Tiny("Llama", {}, "llama3"),
    "llama-3.1": Tiny("Llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 128}}, "llama3"),
    "mistral": Tiny("Mistral", {"sliding_window": None}, "sentencepiece"),
    "mistral-sliding": Tiny("Mistral", {"sliding_window": 64}, "sentencepiece"),
    "ministral": Tiny("Ministral", {"sliding_window": 64, "head_dim": 16,
        "layer_types": ["full_attention", "sliding_attention"] * 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    "ministral3": Tiny("Ministral3", {"head_dim": 16}),
    "mixtral": Tiny("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}, "sentencepiece"),
    "qwen2": Tiny("Qwen2"),
    "qwen2-moe": Tiny("Qwen2Moe", MOE | {"num_experts": 4, "shared_expert_intermediate_size": 64}),
    "qwen3": Tiny("Qwen3", {"head_dim": 32}),
    "qwen3-moe": Tiny("Qwen3Moe", MOE | {"num_experts": 4, "head_dim": 32, "norm_topk_prob": True}),
    "qwen3-next": Tiny("Qwen3Next", MOE | LINEAR | {"num_experts": 4, "head_dim": 32,
        "shared_expert_intermediate_size": 64, "norm_topk_prob": True}),
    "qwen3.5": Tiny("Qwen3_5Text", LINEAR | {"head_dim": 32}),
    "gemma": Tiny("Gemma", {"head_dim": 32}, "gemma"),
    "gemma2": Tiny("Gemma2", {"head_dim": 32, "sliding_window": 64, "query_pre_attn_scalar": 32}, "gemma"),
    "gemma3": Tiny("Gemma3Text", {"head_dim": 32, "sliding_window": 64, "query_pre_attn_scalar": 32,
        "num_hidden_layers": 7}, "gemma"),
    "gemma4": Tiny("Gemma4Text", {"head_dim": 32, "global_head_dim": 64, "sliding_window": 64, "num_hidden_layers": 6,
        "vocab_size_per_layer_input": 640, "hidden_size_per_layer_input": 16}, "gemma", new=True),
    "phi": Tiny("Phi", {"num_key_value_heads": 4}),
    "phi3": Tiny("Phi3"),
    "phimoe": Tiny("Phimoe", {"num_local_experts": 4, "num_experts_per_tok": 2, "lm_head_bias": True,
        "attention_bias": True}),
    "gpt2": Tiny("GPT2", {"vocab_size": 640, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 512,
        "bos_token_id": 0, "eos_token_id": 1}, "gpt2", untouched=True),
    "gpt-neox": Tiny("GPTNeoX", {}, "gpt2"),
    "falcon": Tiny("Falcon", {"vocab_size": 640, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "bos_token_id": 0, "eos_token_id": 1, "multi_query": True}, "gpt2", untouched=True),
    "bloom": Tiny("Bloom", {"vocab_size": 640, "hidden_size": 64, "n_layer": 3, "n_head": 4, "bos_token_id": 0,
        "eos_token_id": 1}, "gpt2", untouched=True),
    "starcoder2": Tiny("Starcoder2", {}, "gpt2"),
    "stablelm": Tiny("StableLm", {"num_key_value_heads": 4}),
    "olmo": Tiny("Olmo"),
    "olmo2": Tiny("Olmo2"),
    "olmo3": Tiny("Olmo3", {"sliding_window": 64}),
    "olmoe": Tiny("Olmoe", {"num_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 4}),
    "granite": Tiny("Granite", {"embedding_multiplier": 2.0, "logits_scaling": 2.0, "residual_multiplier": 0.7,
        "attention_multiplier": 0.2}),
    "granite-moe": Tiny("GraniteMoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "granite-hybrid": Tiny("GraniteMoeHybrid", {"layer_types": ["mamba", "mamba", "attention", "mamba"],
        "num_local_experts": 0, "num_experts_per_tok": 0, "shared_intermediate_size": 128, "mamba_n_heads": 8,
        "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_expand": 2}),
    "deepseek-v2": Tiny("DeepseekV2", MLA | MOE | {"n_routed_experts": 4, "n_shared_experts": 1,
        "first_k_dense_replace": 1, "num_key_value_heads": 4, "n_group": 1, "topk_group": 1}),
    "deepseek-v3": Tiny("DeepseekV3", MLA | MOE | {"n_routed_experts": 8, "n_shared_experts": 1,
        "first_k_dense_replace": 1, "num_key_value_heads": 4, "n_group": 2, "topk_group": 1}),
    "glm4": Tiny("Glm4", {"head_dim": 16}),
    "glm4-moe": Tiny("Glm4Moe", MOE | {"head_dim": 16, "n_routed_experts": 4, "n_shared_experts": 1,
        "first_k_dense_replace": 1, "use_qk_norm": True}),
    "smollm3": Tiny("SmolLM3", {"num_hidden_layers": 5}, "llama3"),
    "cohere": Tiny("Cohere"),
    "cohere2": Tiny("Cohere2", {"sliding_window": 64}),
    "mamba": Tiny("Mamba", {"vocab_size": 640, "hidden_size": 64, "num_hidden_layers": 3, "state_size": 16,
        "bos_token_id": 0, "eos_token_id": 1}, "gpt2", untouched=True),
    "mamba2": Tiny("Mamba2", {"vocab_size": 640, "hidden_size": 64, "num_hidden_layers": 3, "state_size": 16,
        "num_heads": 8, "head_dim": 16, "n_groups": 1, "bos_token_id": 0, "eos_token_id": 1}, "gpt2", untouched=True),
    "lfm2": Tiny("Lfm2", {"layer_types": ["conv", "conv", "full_attention", "conv"], "block_ff_dim": 128,
        "block_auto_adjust_ff_dim": False}),
    "falcon-h1": Tiny("FalconH1", MAMBA2 | {"head_dim": 16}),
    "nemotron": Tiny("Nemotron"),
    "nemotron-h": Tiny("NemotronH", {"layers_block_type": ["mamba", "attention", "mlp", "mamba"], "mamba_num_heads": 8,
        "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 1, "head_dim": 16}),
    "gpt-oss": Tiny("GptOss", {"head_dim": 32, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 64},
        "gpt-4o"),
    "seed-oss": Tiny("SeedOss", {"head_dim": 16}),
    "ernie4.5": Tiny("Ernie4_5", {"head_dim": 16}),
    "ernie4.5-moe": Tiny("Ernie4_5_Moe", {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 64,
        "moe_num_shared_experts": 1, "moe_layer_start_index": 1}),
    "hunyuan": Tiny("HunYuanDenseV1", {"head_dim": 16}),
    "exaone4-sliding": Tiny("Exaone4", {"head_dim": 16, "sliding_window": 64}),
    "arcee": Tiny("Arcee", {"head_dim": 16}),
    "qwen3-embedding": Tiny("Qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
}  # fmt: skip

LAYOUTS = ("saved", "published")
CALIBRATION = ROOT / "gguf_golf" / "data" / "demo" / "calibration.txt"

WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
PATTERNS = {
    "gpt2": None,
    "qwen2": rf"{CONTRACTIONS}|{WORDS}|\p{{N}}|{REST}",
    "llama3": rf"{CONTRACTIONS}|{WORDS}|\p{{N}}{{1,3}}|{REST}",
    "gpt-4o": (
        rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}


@dataclass(frozen=True)
class Row:
    """What became of one class in one layout."""

    name: str
    class_name: str
    layout: str
    road: str = ""
    convert: str = ""
    tokens: str = ""
    logits: str = ""
    imatrix: str = ""
    tcq3: str = ""
    load: str = ""
    verdict: str = ""
    remark: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CLASSES)}; all by default")
    parser.add_argument("--layout", choices=LAYOUTS, help="one of the two layouts; both by default")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="classes at a time")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "LAYOUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(vars(examine(*arguments.one))))
        return
    layouts = [arguments.layout] if arguments.layout else LAYOUTS
    names = arguments.names or CLASSES
    wanted = [(name, layout) for name in names for layout in layouts if layout == "saved" or not CLASSES[name].new]
    rows = all_rows(wanted, arguments.jobs)
    if arguments.json:
        arguments.json.write_text(json.dumps([vars(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    if not arguments.names and not arguments.layout:
        PAGE.write_text(page(rows), encoding="utf-8")
        print(f"written: {PAGE}")
    sys.exit(any(row.verdict == "WRONG" for row in rows))


def all_rows(wanted: list[tuple[str, str]], jobs: int) -> list[Row]:
    """A row for each class and layout, printed: those of the journal, and the others made `jobs` at a time."""
    with open_journal(cache_dir() / "architectures.journal", made_with()) as journal, ThreadPoolExecutor(jobs) as pool:
        finished = {(record["name"], record["layout"]): Row(**record) for record in journal.records}
        missing = [each for each in wanted if each not in finished]
        for row in [finished[each] for each in wanted if each in finished]:
            print(as_line(row), flush=True)
        for row in pool.map(lambda each: examine_alone(*each), missing):
            print(as_line(row), flush=True)
            finished[row.name, row.layout] = row
            journal.add(vars(row))
    return [finished[each] for each in wanted]


def made_with() -> dict[str, str]:
    """What a row depends on, apart from its class."""
    code = hashlib.sha256()
    for path in [Path(__file__), *sorted((ROOT / "gguf_golf" / "models").rglob("*.py"))]:
        code.update(path.read_bytes())
    versions = {name: importlib.metadata.version(name) for name in ("transformers", "torch")}
    return {"code": code.hexdigest(), "llama.cpp": pin.SHA256} | versions


def examine_alone(name: str, layout: str) -> Row:
    """Examine in a process of its own: a crash of one class is one row."""
    command = [sys.executable, "-m", "eval.architectures", "--one", name, layout]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return Row(name, CLASSES[name].name, layout, verdict="not made", remark=lines[-1][:300])
    return Row(**json.loads(done.stdout.splitlines()[-1]))


def examine(name: str, layout: str) -> Row:
    """Make the model, convert it by the command line, and compare."""
    from gguf_golf.evaluate.transformers_engine import TransformersEngine
    from gguf_golf.models.families import family_of
    from gguf_golf.verify import compare, file_logits, other_tokens, token_ids

    tiny = CLASSES[name]
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
        checkpoint, work = Path(folder) / name, Path(folder)
        class_name = make(tiny, checkpoint)
        reference = TransformersEngine(checkpoint)
        if layout == "published":
            publish(name, checkpoint)
        base, imatrix, small = work / "base.gguf", work / "imatrix.gguf", work / "small.gguf"
        row: dict[str, Any] = {"name": name, "class_name": class_name, "layout": layout}
        row["road"] = "own" if family_of(class_name) else "llama.cpp's"
        status, said = golf("convert", checkpoint, "-o", base, "--type", "f32")
        if status:
            named = said.startswith("error: ")
            return Row(**row, convert="refused", verdict="refused" if named else "WRONG", remark=said[-400:])
        ids = token_ids(reference, 256)
        other = other_tokens(checkpoint, base)
        row |= {"convert": "yes", "tokens": f"{len(other)} texts differ" if other else "same"}
        own = file_logits(base, ids, threads=1)
        kl, _ = compare(reference.logits(ids), own)
        row |= {"logits": f"{kl:.1e}", "remark": said if said.startswith("note") else ""}
        failures = []
        for step, arguments in (
            ("imatrix", ("imatrix", base, "--text", CALIBRATION, "-o", imatrix, "--ctx", "128", "--chunks", "2")),
            ("tcq3", ("convert", base, "-o", small, "--type", "tcq3", "--imatrix", imatrix)),
        ):
            status, said = golf(*arguments)
            row[step] = "no" if status else "yes"
            failures += [f"{step}: {said[-300:]}"] if status else []
        if not failures:
            kl_small, _ = compare(own, file_logits(small, ids, threads=1))
            row["load"] = f"{kl_small:.1e}"
            failures += [] if kl_small < 5 else ["tcq3: the quantized file computes something else"]
        right = not other and kl < MAX_KL and not failures
        row["remark"] = "; ".join([*failures, *([row["remark"]] if row["remark"] else []), *other[:2]])
        return Row(**row, verdict="right" if right else "WRONG")


def golf(*arguments: object) -> tuple[int, str]:
    """Run a command of gguf-golf: (status, its last lines without progress bars and the temporary folder's name)."""
    command = [sys.executable, "-m", "gguf_golf", *map(str, arguments), "--threads", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False, timeout=500)
    lines = (done.stdout + done.stderr).replace("\r", "\n").splitlines()
    said = [line for line in lines if line.strip() and "%|" not in line and line.startswith(("error", "note"))]
    return done.returncode, re.sub(rf"{re.escape(tempfile.gettempdir())}/[^/\s]+/", "", "\n".join(said or lines[-1:]))


def make(tiny: Tiny, path: Path) -> str:
    """Save a random model and its tokenizer into `path`; the name of its class."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    import transformers

    torch.manual_seed(1)
    config_class = getattr(transformers, f"{tiny.name}Config")
    config = config_class(**(tiny.settings if tiny.untouched else BASE | tiny.settings))
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "conv" not in name:  # sharper than at initialization
                parameter.mul_(3)
            elif "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(path)
    write_tokenizer(path, tiny.tokenizer, config.vocab_size)
    return type(model).__name__


def write_tokenizer(path: Path, kind: str, vocab: int) -> None:
    """Train a small tokenizer of this kind and write its files."""
    if kind in ("sentencepiece", "gemma"):
        import sentencepiece

        pieces = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>", "eos_piece": "<eos>"}
        pieces |= {"bos_piece": "<bos>", "add_dummy_prefix": False}
        sentencepiece.SentencePieceTrainer.train(
            input=str(CALIBRATION), model_prefix=str(path / "tokenizer"), vocab_size=vocab, model_type="bpe",
            byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
            **(pieces if kind == "gemma" else {}),
        )  # fmt: skip
        (path / "tokenizer.vocab").unlink()
        settings: dict[str, Any] = {"add_bos_token": True, "add_eos_token": False}
        if kind == "gemma":
            settings |= {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>"}
        else:
            settings |= {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "legacy": True}
        settings |= {"unk_token": "<unk>", "pad_token": "<pad>"} if kind == "gemma" else {"unk_token": "<unk>"}
    else:
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

        pattern = PATTERNS[kind]
        tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
        split = [] if pattern is None else [pre_tokenizers.Split(Regex(pattern), "isolated")]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, byte_level]) if split else byte_level
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab, special_tokens=["<|begin|>", "<|end|>"], show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )  # fmt: skip
        tokenizer.train([str(CALIBRATION)], trainer)
        tokenizer.save(str(path / "tokenizer.json"))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin|>", "eos_token": "<|end|>"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def publish(name: str, path: Path) -> None:
    """Rewrite a saved checkpoint as it would be on the Hub from before transformers 5."""
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    rope = config.pop("rope_parameters", None) or {}
    local = rope.get("sliding_attention") if isinstance(rope.get("sliding_attention"), dict) else None
    rope = dict(rope.get("full_attention") or rope)
    if local is not None:
        config["rope_local_base_freq"] = local["rope_theta"]
    if "rope_theta" in rope:
        config["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    if rope.get("rope_type", "default") != "default":
        config["rope_scaling"] = rope
    if "dtype" in config:
        config["torch_dtype"] = config.pop("dtype")
    if config["model_type"] == "gpt_neox":
        config["rotary_emb_base"] = config.pop("rope_theta", 10000)
        config["rotary_pct"] = config.pop("partial_rotary_factor", 0.25)
    config["transformers_version"] = "4.40.0"
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if name == "qwen3-embedding":
        from safetensors.numpy import load_file, save_file

        tensors = load_file(path / "model.safetensors")
        kept = {key.removeprefix("model."): values for key, values in tensors.items() if key != "lm_head.weight"}
        save_file(kept, path / "model.safetensors", metadata={"format": "pt"})


COLUMNS = ("name", "class_name", "layout", "road", "convert", "tokens", "logits", "imatrix", "tcq3", "load", "verdict")


def as_line(row: Row) -> str:
    return "  ".join(f"{getattr(row, column):<12}" for column in COLUMNS) + ("  " + row.remark.replace("\n", " | "))


def page(rows: list[Row]) -> str:
    """The rows as a Markdown page."""
    counts = {
        verdict: sum(row.verdict == verdict for row in rows) for verdict in dict.fromkeys(r.verdict for r in rows)
    }
    import transformers

    lines = [
        "# Architectures",
        "",
        "<!-- written by python -m eval.architectures -->",
        "",
        f"Tiny random models of each class, made by transformers {transformers.__version__}, converted and compared",
        "with it: tokens of awkward texts, mean KL divergence of the logits at 256 positions (nats), an imatrix, a",
        "conversion to tcq3 with it, and the KL divergence of that file to the unquantized one. *Road*: `own` converts",
        "without torch, the other is llama.cpp's own converter with the tokenizer of gguf-golf. *Layout*: `saved` is",
        "what transformers writes, `published` has the older keys of most checkpoints on the Hub.",
        "",
        f"{len(rows)} rows: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items()) + ".",
        "",
        "| model | class | layout | road | converts | tokens | logits, KL | imatrix | tcq3 | KL of tcq3 | verdict |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append("| " + " | ".join(getattr(row, column) or "–" for column in COLUMNS) + " |")
    remarks = [f"- {row.name}, {row.layout}: {row.remark.splitlines()[0]}" for row in rows if row.remark]
    return "\n".join([*lines, "", "## Remarks", "", *remarks, ""])


if __name__ == "__main__":
    main()
