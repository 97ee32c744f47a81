"""docs/python.md: its examples run, in their order, as they are written."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gguf_golf as gg
from tests.docs.conftest import ROOT

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_examples_run(desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(desk)
    names: dict[str, Any] = {}
    for example in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        exec(compile(example, str(ROOT / "docs" / "python.md"), "exec"), names)
    shown = capsys.readouterr().out
    assert "quantizing: " in shown and "Take " in shown
    for name in ("measured", "planned", "verdict", "small"):
        assert re.search(r"<(table|p|br|code)", names[name]._repr_html_())
    assert "<svg" in names["measured"]._repr_html_()


def test_every_function_is_on_the_page_and_says_what_it_does() -> None:
    for name in gg.__all__:
        offered = getattr(gg, name)
        assert f"gg.{name}" in PAGE, name
        if not isinstance(offered, type):
            function = inspect.unwrap(offered)
            assert function.__doc__, name
            assert all(p.annotation is not p.empty for p in inspect.signature(offered).parameters.values()), name


def test_rooms_stay_modules() -> None:
    program = (
        "import gguf_golf as gg, gguf_golf.plan.budget as budget\n"
        "from gguf_golf.report import write_report\n"
        "assert callable(gg.plan) and callable(gg.report) and budget.parse and gg.fit.Settings"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_import_loads_no_library() -> None:
    program = (
        "import sys, gguf_golf\nsys.exit(', '.join({'numpy', 'scipy', 'gguf', 'click'} & sys.modules.keys()) or None)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'sing'"):
        gg.sing  # noqa: B018
