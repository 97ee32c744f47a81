"""What llama.cpp's converter misses: keys that a class implies before it runs, and keys of the GGUF afterwards."""

import re
from functools import cache
from pathlib import Path

import gguf
from gguf import GGUFWriter

from gguf_golf.errors import InputError
from gguf_golf.models import rope
from gguf_golf.models.config import TEXT_KEYS, Config
from gguf_golf.models.config_keys import unused_keys
from gguf_golf.models.model import MetadataField, Model, fields_of
from gguf_golf.runtime import source

OWN_YARN = ("deepseek2", "deepseek32", "glm-dsa", "grok", "mistral3", "mistral4")
"""Architectures for which converter and llama.cpp handle YaRN's attention factor and betas in a way of their own."""
_SILU, _GELU, _RELU2 = ("silu", "swish"), ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"), ("relu2",)
ACTIVATIONS = {
    **dict.fromkeys(
        ("Cohere", "Cohere2", "DeepseekV2", "DeepseekV3", "Ernie4_5", "Ernie4_5_Moe", "Exaone4", "FalconH1", "Glm4",
         "Glm4Moe", "Granite", "GraniteMoe", "GraniteMoeHybrid", "HunYuanDenseV1", "Mamba", "Mamba2", "Ministral3",
         "Olmo", "Olmo2", "Olmo3", "Olmoe", "Phi3", "Qwen2Moe", "Qwen3Next", "Qwen3_5", "Qwen3_5Moe", "SeedOss",
         "StableLm"), _SILU),
    **dict.fromkeys(("Falcon", "Gemma", "Gemma2", "Gemma4", "GPTNeoX", "Phi", "Starcoder2"), _GELU),
    "GPT2LMHeadModel": _GELU,
    **dict.fromkeys(("Arcee", "Nemotron", "NemotronH"), _RELU2),
}  # fmt: skip
"""By class (without "ForCausalLM"): the one activation of llama.cpp's graph, by transformers' names for it."""
ACTIVATION_KEYS = ("hidden_act", "hidden_activation", "activation_function", "activation", "mlp_hidden_act")
OTHER_SENSES = ("vision", "visual", "audio", "speech", "video")


def adapted_config(config: Config) -> dict[str, object]:
    """The values of config.json, and what its class implies where it does not say.

    Raises InputError for settings with which llama.cpp would compute something else.
    """
    values = dict(config.values)
    _check_assumptions(config)
    match config.architecture:
        case (
            "BambaForCausalLM" | "GraniteMoeHybridForCausalLM"
        ):  # transformers 5 has other names for the kinds of layers
            names = {"linear_attention": "mamba", "full_attention": "attention"}
            if kinds := values.get("layer_types"):
                values["layer_types"] = [names.get(kind, kind) for kind in kinds]
        case "DeepseekV3ForCausalLM":
            values = {"scoring_func": "sigmoid", "norm_topk_prob": True} | values
        case "FalconForCausalLM":
            if config.get("multi_query", True) and not config.get("new_decoder_architecture"):
                values["num_kv_heads"] = 1  # whatever else the file says
        case "GPT2LMHeadModel":
            values.setdefault("n_ctx", values.get("n_positions", 1024))
    return values


def _check_assumptions(config: Config) -> None:
    """Raises InputError for settings that llama.cpp's graph of this class does not read, and has another value of."""
    text, name = config.text(), config.architecture
    heads = text.values.get("num_attention_heads") or 1
    head_dim = text.values.get("head_dim") or 256
    assumed: dict[str, object] = {}
    match name:
        case "Qwen2MoeForCausalLM" | "OlmoeForCausalLM":
            assumed = {"norm_topk_prob": False}
        case "Qwen3NextForCausalLM" | "Qwen3_5MoeForCausalLM":
            assumed = {"norm_topk_prob": True}
        case "Gemma2ForCausalLM":
            width = text.values.get("hidden_size") or 2304
            assumed = {"query_pre_attn_scalar": width // heads if text.get("num_hidden_layers") == 46 else head_dim}
        case "Exaone4ForCausalLM" if text.get("num_hidden_layers") != 64:  # only the model of 64 layers has a window
            assumed = {"sliding_window": None}
        case "PhiMoEForCausalLM" | "PhimoeForCausalLM":
            raise InputError(
                f"{config.directory} is {name}, whose router weighs each expert against those left; llama.cpp weighs "
                "all by one softmax, which is another model: there is no way on"
            )
        case "FalconForCausalLM":
            assumed = {"alibi": False, "parallel_attn": True}
        case "GPT2LMHeadModel":
            assumed = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False}
    computed = ACTIVATIONS.get(name.removesuffix("ForCausalLM"), ())
    assumed |= {
        key: computed[0] for key in ACTIVATION_KEYS if computed and text.values.get(key) not in (None, *computed)
    }
    for key, value in assumed.items():
        if (given := text.values.get(key, value)) != value:
            computed_as = f"without {key}" if value is None else f"with {value}"
            raise InputError(
                f"{config.directory}/config.json: {key} is {given}; llama.cpp computes {name} {computed_as}, "
                "which would be another model"
            )


def corrected_metadata(config: Config, model: Model) -> list[MetadataField]:
    """The converter's metadata with the position encoding that config.json asks for; the rest goes into the notes.

    Raises InputError for a position encoding that llama.cpp does not compute.
    """
    text = config.text()
    changed = GGUFWriter(path=None, arch=model.architecture)
    _correct_yarn(text, model, changed)
    _cap_context(text, model, changed)
    _correct_feed_forward(model, changed)
    fields = {field.key: field for field in fields_of(changed) if field.key != gguf.Keys.General.ARCHITECTURE}
    inner = [key for key in config.values if key.endswith("_config")]
    if senses := [sense for sense in OTHER_SENSES if any(key.startswith(sense) for key in inner)]:
        config.note(f"only the language model is converted: {' and '.join(senses)} are left out")
    text.used.update(_converter_words(source.source_dir()), TEXT_KEYS, inner)
    if unused := unused_keys(text):
        config.note(f"nothing uses these keys of config.json: {', '.join(unused)}")
    kept = [fields.pop(field.key, field) for field in model.metadata]
    return [*kept, *fields.values()]


def _correct_yarn(text: Config, model: Model, writer: GGUFWriter) -> None:
    """llama.cpp reads rope.scaling.attn_factor; the converter writes a key that few architectures read."""
    kind = gguf.Keys.Rope.SCALING_TYPE.format(arch=model.architecture)
    if model.architecture in OWN_YARN or _value(model, kind) != "yarn":
        return
    given = rope.settings(text)
    given = given.get("full_attention") or given
    asked = rope.of(text, given, text.number("rope_theta", 10000.0))
    if asked.needs_frequencies:
        raise InputError(
            f"{text.directory}/config.json: YaRN with these betas or truncation; llama.cpp's {model.architecture} "
            "knows only the default ones"
        )
    asked.add_keys(writer)


def _cap_context(text: Config, model: Model, writer: GGUFWriter) -> None:
    """A sliding window that the file does not have is right up to its length."""
    arch = model.architecture
    size, in_use = text.get("sliding_window"), text.get("use_sliding_window", True)
    kinds = text.get("layer_types") or ["sliding_attention"]
    context = _value(model, gguf.Keys.LLM.CONTEXT_LENGTH.format(arch=arch))
    known = _value(model, gguf.Keys.Attention.SLIDING_WINDOW.format(arch=arch))
    if known or not in_use or "sliding_attention" not in kinds or not isinstance(size, int):
        return
    if isinstance(context, int) and size < context:
        writer.add_context_length(size)
        text.note(
            f"layers attend to the last {size} tokens only, which llama.cpp does not do for {arch}: "
            f"the file's context length is {size}, not {context}, up to which it is right"
        )


def _correct_feed_forward(model: Model, writer: GGUFWriter) -> None:
    """For some classes the converter writes 4 times the width, whatever the matrices are."""
    length = _value(model, gguf.Keys.LLM.FEED_FORWARD_LENGTH.format(arch=model.architecture))
    down = next((tensor for tensor in model.tensors if tensor.name == "blk.0.ffn_down.weight"), None)
    if isinstance(length, int) and down is not None and down.shape[-1] != length:
        writer.add_feed_forward_length(down.shape[-1])


def _value(model: Model, key: str) -> object:
    return next((field.value for field in model.metadata if field.key == key), None)


@cache
def _converter_words(folder: Path) -> set[str]:
    """Every quoted name in the converter: a key that is not among them is a key that it does not read."""
    files = sorted((folder / "conversion").glob("*.py"))
    return {word for path in files for word in re.findall(r"[\"'](\w+)[\"']", path.read_text(encoding="utf-8"))}
