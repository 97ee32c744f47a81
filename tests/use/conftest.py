"""golf-tiny with a chat template, so that it can be talked to."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.evaluate.test_generate import TEMPLATE, with_template


@pytest.fixture(scope="session")
def chatty(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_template(tiny("q8_0"), tmp_path_factory.mktemp("chat") / "chatty.gguf", TEMPLATE)
