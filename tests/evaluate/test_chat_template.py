"""Chat templates: rendered as transformers renders them, and stopped when they do not end."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from gguf_golf.errors import InputError
from gguf_golf.evaluate import chat_template
from gguf_golf.evaluate.chat_template import ChatTemplate

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
MESSAGES = [{"role": "user", "content": "Tell <me> é & 'now'"}]


def render(source: str, tokens: dict[str, str] = TOKENS) -> str:
    with ChatTemplate(Path("model.gguf"), source, tokens) as template:
        return template.render(MESSAGES)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", "<s>Tell <me> é & 'now'</s>"),
        ("{{ unk_token }}{{ pad_token }}", "<unk>"),
        ("{% for m in [1, 2, 3] %}{% if m == 2 %}{% continue %}{% endif %}{{ m }}{% endfor %}", "13"),
        ("{% for m in [1, 2, 3] %}{{ m }}{% break %}{% endfor %}", "1"),
        ("{% generation %}{{ messages[0].role }}{% endgeneration %}", "user"),
        ("{{ messages | tojson }}", json.dumps(MESSAGES, ensure_ascii=False)),
        ("{{ {'b': 1, 'a': 'é<'} | tojson }}", '{"b": 1, "a": "é<"}'),
        ("{% if tools is not none or documents is not none %}wrong{% endif %}right", "right"),
        ("{% if true %}\n  a\n{% endif %}\n", "  a\n"),
        ("{% if add_generation_prompt %}go{% endif %}", "go"),
    ],
)
def test_a_template_renders_as_in_transformers(source: str, text: str) -> None:
    assert render(source) == text
    utilities = pytest.importorskip("transformers.utils.chat_template_utils", reason="needs the extra [hf]")
    rendered, _ = utilities.render_jinja_template(
        [MESSAGES], chat_template=source, add_generation_prompt=True, **TOKENS
    )
    assert rendered == [text]


def test_the_year_is_todays() -> None:
    before = str(datetime.now().year)
    assert render("{{ strftime_now('%Y') }}") in (before, str(datetime.now().year))


def test_one_process_renders_many_chats() -> None:
    with ChatTemplate(Path("model.gguf"), "{{ messages[0].content }}{{ add_generation_prompt }}", {}) as template:
        first = template.render([{"role": "user", "content": "a\u2028b"}])
        child = template._child
        assert (first, template.render(MESSAGES, False)) == ("a\u2028bTrue", f"{MESSAGES[0]['content']}False")
        assert template._child is child


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('no users') }}", "refuses the messages: no users"),
        ("{% for %}", "cannot be rendered"),
        ("{{ ''.__class__.__mro__ }}", "cannot be rendered"),
        ("{{ 1 / 0 }}", "cannot be rendered"),
    ],
)
def test_a_template_that_fails_or_attacks_is_an_error(source: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"model\.gguf: its chat template {message}"):
        render(source)


def test_a_template_that_takes_too_long_is_stopped_and_the_next_chat_is_rendered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The limit is made small: the template here would end within minutes."""
    monkeypatch.setattr(chat_template, "CPU_SECONDS", 1)
    loops = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
    source = "{% if messages[0].content == 'long' %}" + loops + "{% endif %}done"
    with ChatTemplate(Path("model.gguf"), source, {}) as template:
        with pytest.raises(InputError, match="does not end within 1 s"):
            template.render([{"role": "user", "content": "long"}])
        assert template.render(MESSAGES) == "done"


def test_a_template_that_needs_much_memory_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is made small: 64 MiB of text harm nobody."""
    monkeypatch.setattr(chat_template, "MEMORY_BYTES", 32 << 20)
    with pytest.raises(InputError, match="needs more than 32 MiB"):
        render("{{ 'x' * 67108864 }}")


def test_a_file_without_a_template_says_so() -> None:
    with ChatTemplate(Path("model.gguf"), None, {}) as template, pytest.raises(InputError, match="--raw"):
        template.render(MESSAGES)
