"""The chat template is found wherever transformers finds it, in the same order."""

import json
from pathlib import Path

import pytest

from gguf_golf.errors import InputError
from gguf_golf.models.tokens.template import chat_template


def test_files_come_before_the_configuration(tmp_path: Path) -> None:
    assert chat_template(tmp_path, {}) is None
    assert chat_template(tmp_path, {"chat_template": "config"}) == "config"
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "json"}))
    assert chat_template(tmp_path, {"chat_template": "config"}) == "json"
    (tmp_path / "chat_template.jinja").write_text("jinja")
    assert chat_template(tmp_path, {"chat_template": "config"}) == "jinja"


def test_several_templates_keep_their_names(tmp_path: Path) -> None:
    listed = [{"name": "default", "template": "a"}, {"name": "rag", "template": "b"}]
    assert chat_template(tmp_path, {"chat_template": listed}) == listed
    (tmp_path / "chat_template.jinja").write_text("a")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("b")
    assert chat_template(tmp_path, {}) == listed


@pytest.mark.parametrize("template", [7, ["a"], [{"name": "default"}]])
def test_what_is_no_template_is_refused(template: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="chat template"):
        chat_template(tmp_path, {"chat_template": template})


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read as text"):
        chat_template(tmp_path, {})
