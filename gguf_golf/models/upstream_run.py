"""Runs llama.cpp's converter, adapted: `python upstream_run.py CONVERT_HF_TO_GGUF_PY SETTINGS ARGUMENTS`.

A program of its own, since the converter takes torch and transformers. SETTINGS is a JSON object: "vocab", whether
the converter writes the tokenizer (it knows pre-tokenizers by a hash of what they make of one text, and stops at a
vocabulary that it has not met), and "trust_remote_code", whether Python code of the checkpoint may run.
"""

import importlib
import json
import runpy
import sys
from pathlib import Path
from typing import Any, NoReturn

REMOTE_CODE = "the checkpoint's own Python code would run"

NEMOTRON_LAYERS = {
    "mamba": "M",
    "linear_attention": "M",
    "attention": "*",
    "full_attention": "*",
    "mlp": "-",
    "moe": "E",
}


def main() -> None:
    """Adapt the one model class that the converter asks for, then run the converter."""
    script, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    if not settings["trust_remote_code"]:
        refuse_remote_code()
    sys.path.insert(0, str(script.parent))
    conversion: Any = importlib.import_module("conversion")
    get_model_class = conversion.get_model_class

    def adapted(*arguments: Any, **options: Any) -> Any:
        model_class = get_model_class(*arguments, **options)
        if not settings["vocab"]:
            for part in (model_class, *vars(model_class).values()):  # some classes choose between others within them
                if isinstance(part, type) and hasattr(part, "set_vocab"):
                    part.set_vocab = lambda self: self.gguf_writer.add_tokenizer_model("none")
        if getattr(
            model_class, "supports_mtp_export", False
        ):  # heads that predict further tokens; nothing here uses them
            model_class.no_mtp = True
        return model_class

    conversion.get_model_class = adapted
    base: Any = importlib.import_module("conversion.base")
    load_hparams = base.ModelBase.load_hparams

    def with_stored_keys(directory: Path, is_mistral_format: bool) -> dict[str, Any]:
        values: dict[str, Any] = load_hparams(directory, is_mistral_format)
        stored = Path(directory) / "config.json"
        if stored.is_file() and not is_mistral_format:
            add_missing(values, json.loads(stored.read_text(encoding="utf-8")))
        return values

    base.ModelBase.load_hparams = staticmethod(with_stored_keys)
    sys.argv = [str(script), *sys.argv[3:]]
    runpy.run_path(str(script), run_name="__main__")


def add_missing(values: dict[str, Any], stored: dict[str, Any]) -> None:
    """Add the keys of config.json that transformers renamed or dropped, and old names of what it calls otherwise."""
    for key, value in stored.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict) and key.endswith("_config"):
            add_missing(values[key], value)
        elif values.get(key) is None:
            values[key] = value
    rope = values.get("rope_parameters") or {}
    if "partial_rotary_factor" in rope:
        values.setdefault("rotary_pct", rope["partial_rotary_factor"])  # GPT-NeoX
    match values.get("model_type"):
        case "cohere2":
            values.setdefault("rotary_pct", 1.0)
        case "phi3" if rope:
            trained = values.get("original_max_position_embeddings") or values.get("max_position_embeddings")
            rope.setdefault("original_max_position_embeddings", trained)
        case "nemotron_h":
            kinds = values.get("layers_block_type") or []
            values.setdefault("hybrid_override_pattern", "".join(NEMOTRON_LAYERS[kind] for kind in kinds))
            if "E" not in values["hybrid_override_pattern"]:  # a dense model, though transformers has defaults for both
                for key in ("num_experts_per_tok", "n_routed_experts", "n_group", "topk_group"):
                    values.pop(key, None)


def refuse_remote_code() -> None:
    """Make transformers fail where it would import the checkpoint's code, whatever the converter passes to it."""
    remote: Any = importlib.import_module("transformers.dynamic_module_utils")

    def refuse(*_arguments: Any, **_options: Any) -> NoReturn:
        raise RuntimeError(REMOTE_CODE)

    remote.get_class_from_dynamic_module = remote.get_class_in_module = refuse


if __name__ == "__main__":
    main()
