"""The road through llama.cpp's own converter: when it is taken, what it is told, and its failures. No torch here."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gguf_golf.errors import InputError
from gguf_golf.models import open_model, upstream
from gguf_golf.models.config import Config, read_config
from gguf_golf.models.upstream_config import adapted_config
from tests.models.conftest import small_model_file

# Stands in for convert_hf_to_gguf.py: writes what it was told into its output, which is a real GGUF.
CONVERTER = """
import shutil, sys
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--outfile") + 1])
shutil.copy(Path(__file__).with_name("small.gguf"), out)
Path(__file__).with_name("calls").open("a").write(" ".join(sys.argv[4:]) + "\\n")
"""

LISTING = """
Path(__file__).with_name("calls").open("a").write(" ".join(p.name for p in Path(sys.argv[1]).iterdir()) + "\\n")
"""


@pytest.fixture
def converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the pinned source, an empty cache, and torch said to be installed."""
    source = tmp_path / "llama.cpp"
    source.mkdir()
    (source / "convert_hf_to_gguf.py").write_text(CONVERTER)
    (source / "conversion").mkdir()
    (source / "conversion" / "__init__.py").write_text("def get_model_class(name): ...")
    (source / "conversion" / "base.py").write_text("class ModelBase:\n    load_hparams = staticmethod(lambda *_: {})")
    small_model_file(source / "small.gguf")
    monkeypatch.setattr(upstream.source, "source_dir", lambda: source)
    monkeypatch.setattr(upstream, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(upstream.importlib.util, "find_spec", lambda name: object())
    return source


def rename_architecture(path: Path) -> Path:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"architectures": ["Phi3ForCausalLM"]}))
    return path


def test_without_torch_the_error_says_how_to_install_it(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(upstream.importlib.util, "find_spec", lambda name: None)
    path = rename_architecture(checkpoint("llama-biases"))
    with pytest.raises(InputError, match=r"Phi3ForCausalLM.*pip install 'gguf-golf\[hf\]'.*CPU build"):
        open_model(path)


@pytest.mark.parametrize(
    ("name", "output_type"), [("llama-biases", "bf16"), ("qwen3-sharded", "f16"), ("mistral-json", "f32")]
)
def test_the_conversion_loses_nothing_and_is_kept(
    name: str, output_type: str, checkpoint: Callable[[str], Path], converter: Path
) -> None:
    path = rename_architecture(checkpoint(name))
    for _ in range(2):
        assert [tensor.name for tensor in open_model(path).tensors] == ["w", "stack"]
    assert (converter / "calls").read_text().splitlines() == [f"--outtype {output_type}"]
    (path / "config.json").touch()  # a changed checkpoint is another one
    open_model(path)
    assert len((converter / "calls").read_text().splitlines()) == 2


@pytest.mark.parametrize("what", ["pre-tokenizer", "pickle", "quantized"])
def test_what_else_takes_this_road(what: str, checkpoint: Callable[[str], Path], converter: Path) -> None:
    path = checkpoint("llama-biases")
    if what == "pre-tokenizer":
        tokenizer = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
        (path / "tokenizer.json").write_text(json.dumps(tokenizer | {"pre_tokenizer": {"type": "Whitespace"}}))
    elif what == "pickle":
        (path / "model.safetensors").rename(path / "pytorch_model.bin")
    else:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))
    assert len(open_model(path, allow_requantize=True).tensors) == 2


def test_a_failure_shows_the_converters_last_words(checkpoint: Callable[[str], Path], converter: Path) -> None:
    (converter / "convert_hf_to_gguf.py").write_text("raise KeyError('n_ctx')")
    path = rename_architecture(checkpoint("llama-biases"))
    with pytest.raises(InputError, match=r"cannot take .*KeyError: 'n_ctx'.*its output is in .*\.log"):
        open_model(path)
    assert not list(converter.parent.glob("cache/converted/*.gguf"))


def test_the_pinned_source_has_the_converter() -> None:
    folder = upstream.source.source_dir()
    text = (folder / "convert_hf_to_gguf.py").read_text(encoding="utf-8")
    assert all(option in text for option in ("--outfile", "--outtype", '"f32", "f16", "bf16"'))
    assert (folder / "conversion" / "__init__.py").is_file()


def test_a_tokenizer_that_our_writer_knows_goes_over_the_converters(
    checkpoint: Callable[[str], Path], converter: Path
) -> None:
    fields = {field.key: field.value for field in open_model(rename_architecture(checkpoint("qwen2-yarn"))).metadata}
    assert fields["tokenizer.ggml.pre"] == "qwen2"
    assert fields["k.string"] == "naïve"  # the rest is the converter's


def run_adapted(tmp_path: Path, model: str, script: str, **settings: bool) -> str:
    """Run upstream_run.py on a stand-in for the converter; its output."""
    (tmp_path / "conversion").mkdir()
    (tmp_path / "conversion" / "__init__.py").write_text(f"{model}\ndef get_model_class(name): return Model\n")
    (tmp_path / "conversion" / "base.py").write_text(
        "class ModelBase:\n    load_hparams = staticmethod(lambda *_: {'kept': 1, 'rope_parameters': "
        "{'partial_rotary_factor': 0.25}, 'text_config': {'a': 1}})\n"
    )
    (tmp_path / "convert.py").write_text(script)
    chosen = json.dumps({"vocab": False, "trust_remote_code": True} | settings)
    command = [sys.executable, str(upstream.PROGRAM), str(tmp_path / "convert.py"), chosen, "--outfile", "o"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_the_converters_own_tokenizer_step_is_left_out(tmp_path: Path) -> None:
    """In classes that choose another one within them too; and heads that predict further tokens are left out."""
    script = (
        "import sys\nfrom types import SimpleNamespace\nfrom conversion import get_model_class\n"
        "for model in (get_model_class('X')(), get_model_class('X').Inner()):\n"
        "    model.gguf_writer = SimpleNamespace(add_tokenizer_model=print)\n    model.set_vocab()\n"
        "print(*sys.argv[1:], get_model_class('X').no_mtp)\n"
    )
    model = (
        "class Model:\n    supports_mtp_export = True\n    class Inner:\n        set_vocab = None\n"
        "    def set_vocab(self): raise NotImplementedError\n"
    )
    assert run_adapted(tmp_path, model, script).split() == ["none", "none", "--outfile", "o", "True"]


def test_keys_that_transformers_drops_reach_the_converter(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"kept": 2, "dropped": 3, "text_config": {"b": 4}}')
    script = (
        "import json\nfrom pathlib import Path\nfrom conversion.base import ModelBase\n"
        "print(json.dumps(ModelBase.load_hparams(Path(__file__).parent, False)))\n"
    )
    values = json.loads(run_adapted(tmp_path, "class Model: pass", script))
    assert (values["kept"], values["dropped"], values["text_config"]) == (1, 3, {"a": 1, "b": 4})
    assert values["rotary_pct"] == 0.25


def test_the_checkpoints_own_code_does_not_run_unasked(checkpoint: Callable[[str], Path], converter: Path) -> None:
    path = rename_architecture(checkpoint("llama-biases"))
    settings = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(
        json.dumps(settings | {"auto_map": {"AutoTokenizer": ["code.T", None]}})
    )
    with pytest.raises(InputError, match=r"own Python code \(auto_map in tokenizer_config.json\).*--trust-remote-code"):
        open_model(path)
    assert not (converter / "calls").exists()
    assert open_model(path, trust_remote_code=True).tensors


def test_the_converters_warnings_are_notes(checkpoint: Callable[[str], Path], converter: Path) -> None:
    script = (converter / "convert_hf_to_gguf.py").read_text()
    (converter / "convert_hf_to_gguf.py").write_text(
        script + "\nprint('INFO:hf-to-gguf:fine\\nWARNING:hf-to-gguf:** odd scale **\\nWARNING:x:odd scale')"
    )
    path = rename_architecture(checkpoint("llama-biases"))
    for _ in range(2):  # from the cache too
        notes = open_model(path).notes
        assert notes[0].startswith("converted by llama.cpp's own converter, since ")
        assert notes[0].endswith("is Phi3ForCausalLM")
        assert notes[1] == "llama.cpp's converter: odd scale"


def test_what_llama_cpp_drops_of_a_tokenizer_is_a_note_though_its_converter_writes_it(
    checkpoint: Callable[[str], Path], converter: Path
) -> None:
    path = checkpoint("llama-biases")
    tokenizer = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
    added = {"id": 300, "content": "<mask>", "special": True, "lstrip": True}
    changed = {"pre_tokenizer": {"type": "Whitespace"}, "normalizer": {"type": "NFC"}, "added_tokens": [added]}
    (path / "tokenizer.json").write_text(json.dumps(tokenizer | changed))
    notes = "\n".join(open_model(path).notes)
    assert "<mask> (lstrip)" in notes and "NFC" in notes


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("INFO:a:b\nTraceback (most recent call last):\n  File x\nKeyError: 'n'\nINFO:hf:done", "KeyError: 'n'"),
        ("ERROR:hf-to-gguf:Model X is not supported\nINFO:hf-to-gguf:bye", "Model X is not supported"),
        ("", "it says nothing"),
    ],
)
def test_the_reason_of_a_failure_is_the_error(log: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(log)
    assert upstream._reason(tmp_path / "log") == reason


def test_only_the_weights_that_are_the_model_are_converted(checkpoint: Callable[[str], Path], converter: Path) -> None:
    """Shards and an index left behind beside model.safetensors are not seen by the converter."""
    path = rename_architecture(checkpoint("qwen3-sharded"))
    shutil.copy(path / "model-00001-of-00003.safetensors", path / "model.safetensors")
    (converter / "convert_hf_to_gguf.py").write_text(CONVERTER + LISTING)
    open_model(path)
    seen = (converter / "calls").read_text().splitlines()[-1].split()
    assert [name for name in seen if "safetensors" in name] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("class_name", "settings"),
    [
        ("Qwen2MoeForCausalLM", {"norm_topk_prob": True}),
        ("Gemma2ForCausalLM", {"query_pre_attn_scalar": 100, "head_dim": 16}),
        ("Exaone4ForCausalLM", {"sliding_window": 16}),
        ("FalconForCausalLM", {"alibi": True, "hidden_act": "gelu"}),
        ("GPT2LMHeadModel", {"scale_attn_by_inverse_layer_idx": True, "hidden_act": None}),
        ("GPT2LMHeadModel", {"activation_function": "relu", "hidden_act": None}),
        ("Phi3ForCausalLM", {"hidden_act": "gelu"}),
        ("NemotronHForCausalLM", {"mlp_hidden_act": "silu", "hidden_act": None}),
    ],
)
def test_settings_that_llama_cpp_does_not_read_are_refused(
    class_name: str, settings: dict[str, object], checkpoint: Callable[[str], Path], converter: Path
) -> None:
    path = checkpoint("llama-biases")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"architectures": [class_name]} | settings))
    key = next(iter(settings))
    with pytest.raises(InputError, match=rf"config.json: {key} is .*llama.cpp computes {class_name} with") as raised:
        open_model(path)
    assert "None" not in str(raised.value)


def test_what_a_class_implies_is_said_to_the_converter(checkpoint: Callable[[str], Path]) -> None:
    config = read_config(checkpoint("llama-biases"))
    for class_name, key, value in (
        ("DeepseekV3ForCausalLM", "scoring_func", "sigmoid"),
        ("FalconForCausalLM", "num_kv_heads", 1),
        ("GPT2LMHeadModel", "n_ctx", 77),
    ):
        values = config.values | {"architectures": [class_name], "n_positions": 77, "hidden_act": None}
        assert adapted_config(Config(config.directory, values))[key] == value
