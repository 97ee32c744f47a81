"""The road through llama.cpp's own converter: when it is taken, what it is told, and its failures. No torch here."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gguf_golf.errors import InputError
from gguf_golf.models import open_model, upstream
from tests.models.conftest import small_model_file

# Stands in for convert_hf_to_gguf.py: writes what it was told into its output, which is a real GGUF.
CONVERTER = """
import shutil, sys
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--outfile") + 1])
shutil.copy(Path(__file__).with_name("small.gguf"), out)
Path(__file__).with_name("calls").open("a").write(" ".join(sys.argv[4:]) + "\\n")
"""


@pytest.fixture
def converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the pinned source, an empty cache, and torch said to be installed."""
    source = tmp_path / "llama.cpp"
    source.mkdir()
    (source / "convert_hf_to_gguf.py").write_text(CONVERTER)
    (source / "conversion.py").write_text("def get_model_class(name): ...")
    small_model_file(source / "small.gguf")
    monkeypatch.setattr(upstream.source, "source_dir", lambda: source)
    monkeypatch.setattr(upstream, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(upstream.importlib.util, "find_spec", lambda name: object())
    return source


def rename_architecture(path: Path) -> Path:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"architectures": ["PhiForCausalLM"]}))
    return path


def test_without_torch_the_error_says_how_to_install_it(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(upstream.importlib.util, "find_spec", lambda name: None)
    path = rename_architecture(checkpoint("llama-biases"))
    with pytest.raises(InputError, match=r"PhiForCausalLM.*pip install 'gguf-golf\[hf\]'.*CPU build"):
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


def test_the_converters_own_tokenizer_step_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "conversion.py").write_text(
        "class Model:\n    def set_vocab(self): raise NotImplementedError\n\ndef get_model_class(name): return Model\n"
    )
    script = tmp_path / "convert.py"
    script.write_text(
        "import sys\nfrom types import SimpleNamespace\nfrom conversion import get_model_class\n"
        "model = get_model_class('X')()\nmodel.gguf_writer = SimpleNamespace(add_tokenizer_model=print)\n"
        "model.set_vocab()\nprint(*sys.argv[1:])\n"
    )
    command = [sys.executable, str(upstream.WITHOUT_VOCAB), str(script), "--outfile", "o"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["none", "--outfile", "o"]
