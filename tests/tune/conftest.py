"""A model that trains in seconds: the first layer of golf-tiny, as a Hugging Face folder."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the tune extra")
pytest.importorskip("transformers", reason="needs the tune extra")
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="session")
def one_layer(tmp_path_factory: pytest.TempPathFactory, tiny_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("one-layer") / "model"
    folder.mkdir()
    weights = load_file(tiny_dir / "model.safetensors")
    kept = {n: w for n, w in weights.items() if not n.startswith("model.layers.") or n.startswith("model.layers.0.")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tiny_dir / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    shutil.copy(tiny_dir / "tokenizer.model", folder)
    return folder
