"""The files that the documentation's commands and examples speak of, small."""

import json
import shutil
from pathlib import Path

import pytest

from tests.evaluate.test_generate import TEMPLATE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def desk(tiny_dir: Path, demo_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MyModel (golf-tiny with a chat template), calibration.txt and test.txt."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(tiny_dir, folder / "MyModel")
    (folder / "MyModel" / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    text = demo_text.read_text(encoding="utf-8")
    (folder / "test.txt").write_text(text[:60_000], encoding="utf-8")
    (folder / "calibration.txt").write_text(text[60_000:], encoding="utf-8")
    return folder
