"""The files that the documentation's commands and examples speak of, small."""

import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from gguf_golf import api  # noqa: F401  # before Settings is replaced
from gguf_golf.fit import Settings
from gguf_golf.formats import quant_types
from gguf_golf.sensitivity import distortion
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


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """One thread, as nobody knows what else runs here; few types to plan with, and few chunks to choose by."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gguf_golf.fit.Settings", partial(Settings, calibration_chunks=4, control_chunks=2))
        few = ("tcq2", "tcq3", "tcq4", "q4_k", "q6_k")
        patch.setattr(distortion, "CANDIDATES", tuple(quant_types.get(name) for name in few))
        if not hasattr(os, "sched_setaffinity"):
            yield
            return
        cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cpus)})
        yield
        os.sched_setaffinity(0, cpus)
