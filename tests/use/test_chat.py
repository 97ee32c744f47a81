"""`gguf-golf chat`: turns, commands, interruption, and the cache that makes a second turn cheap."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gguf_golf.errors import InputError
from gguf_golf.evaluate.chat_template import ChatTemplate
from gguf_golf.evaluate.generate import Sampling
from gguf_golf.runtime.session import Context
from gguf_golf.use.chat import Conversation, chat, terminal_reader


@pytest.fixture
def conversation(chatty: Path) -> Iterator[Conversation]:
    with Conversation(chatty, sampling=Sampling(), threads=1) as open_conversation:
        yield open_conversation


def talk(conversation: Conversation, *lines: str | type[BaseException]) -> str:
    """What the terminal shows when these lines are typed; an exception's type stands for a key such as Ctrl-C."""
    typed, shown = iter(lines), []

    def read(prompt: str) -> str:
        line = next(typed, EOFError)
        if isinstance(line, str):
            return line
        raise line

    chat(conversation, 8, read, shown.append)
    return "".join(shown)


def test_turns_are_answered_and_remembered(conversation: Conversation) -> None:
    shown = talk(conversation, "The city of", "And then?")
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"] * 2
    assert conversation.messages[1]["content"] in shown
    assert shown.count("tokens/s)") == 2


def test_an_answer_appears_as_it_is_made(conversation: Conversation) -> None:
    pieces = conversation.answer("The city of", 8)
    first = next(pieces)
    assert first and first != "".join([first, *pieces])


def test_what_was_typed_is_there_the_next_time_and_for_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readline = pytest.importorskip("readline")
    monkeypatch.setattr("builtins.input", readline.add_history)
    history = tmp_path / "cache" / "history"
    readline.clear_history()
    terminal_reader(history)("The city of London")
    readline.clear_history()
    terminal_reader(history)("")
    assert readline.get_history_item(1) == "The city of London"
    assert history.stat().st_mode & 0o077 == 0
    readline.clear_history()


def test_a_second_turn_decodes_only_what_is_new(conversation: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    original = Context.decode

    def counting(self, tokens, *rest):  # type: ignore[no-untyped-def]
        decoded.append(len(tokens))
        return original(self, tokens, *rest)

    monkeypatch.setattr(Context, "decode", counting)
    list(conversation.answer("A long message about the city of London and its many bridges over the river", 2))
    first = decoded[0]
    decoded.clear()
    list(conversation.answer("More", 2))
    assert decoded[0] < first


def test_the_reused_cache_changes_no_answer(conversation: Conversation, chatty: Path) -> None:
    list(conversation.answer("The city of", 6))
    reused = "".join(conversation.answer("And then?", 12))
    with Conversation(chatty, sampling=Sampling(), threads=1) as fresh:
        fresh.messages = conversation.messages[:2]
        assert "".join(fresh.answer("And then?", 12)) == reused


def test_one_process_renders_every_turn(chatty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    start = ChatTemplate._start

    def counting(self: ChatTemplate) -> Any:
        started.append(start(self))
        return started[-1]

    monkeypatch.setattr(ChatTemplate, "_start", counting)
    with Conversation(chatty, sampling=Sampling(), threads=1) as conversation:
        for _ in range(3):
            list(conversation.answer("The city of", 2))
        assert len(started) == 1 and started[0].poll() is None
    assert started[0].poll() is not None, "the process ends with the conversation"


def test_ctrl_c_stops_the_answer_and_not_the_program(
    conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = Context.decode, []

    def interrupted(self, *arguments):  # type: ignore[no-untyped-def]
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(Context, "decode", interrupted)
    shown = talk(conversation, "The city of", KeyboardInterrupt, "And then?")
    assert "stopped)" in shown
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"] * 2
    assert conversation.messages[1]["content"] in shown


def test_commands(conversation: Conversation, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    shown = talk(conversation, "/help", "/system Be brief.", "The city of", f"/save {file}", "/retry", "/temp 0.5")
    assert "/retry" in shown
    saved = json.loads(file.read_text())
    assert saved[0] == {"role": "system", "content": "Be brief."}
    assert saved == conversation.messages  # greedy: the second answer is the first one
    assert conversation.sampling.temperature == 0.5
    talk(conversation, "/undo")
    assert conversation.messages == saved[:1]
    talk(conversation, "The city of", "/clear")
    assert conversation.messages == saved[:1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/sing", "there is no /sing"),
        ("/temp hot", "takes a number"),
        ("/retry", "nothing was said yet"),
        ("/save", "name the file"),
        ("word " * 9000, "larger --ctx"),
    ],
)
def test_a_mistake_is_one_line_and_the_conversation_goes_on(
    conversation: Conversation, line: str, message: str
) -> None:
    shown = talk(conversation, line, "The city of")
    assert shown.startswith("error: ") and message in shown.splitlines()[0]
    assert len(conversation.messages) == 2


def test_save_replaces_no_file(conversation: Conversation, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    assert talk(conversation, "The city of", f"/save {tmp_path / 'mine.txt'}").endswith(
        f"File exists: '{tmp_path / 'mine.txt'}'\n"
    )
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_a_line_ending_in_a_backslash_continues(conversation: Conversation) -> None:
    talk(conversation, "The city\\", "of")
    assert conversation.messages[0]["content"] == "The city\nof"


def test_the_oldest_turns_leave_a_full_context(chatty: Path) -> None:
    with Conversation(chatty, system="Be brief.", sampling=Sampling(), n_ctx=96, threads=1) as conversation:
        for _ in range(8):
            list(conversation.answer("The city of London and the river", 8))
        assert conversation.messages[0] == {"role": "system", "content": "Be brief."}
        assert 3 <= len(conversation.messages) < 17


def test_control_characters_do_not_reach_the_terminal(
    conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gguf_golf.use.chat.stream", lambda *arguments, **options: iter(["a\x1b[2Jb", "\r👩‍🔬\n"]))
    shown = talk(conversation, "Hello")
    assert shown.startswith("a\\x1b[2Jb\\r👩\u200d🔬\n")


def test_a_file_without_a_template_says_what_to_use(tiny: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match=r"carries no chat template.*gguf-golf run"):
        Conversation(tiny("q8_0"), sampling=Sampling())
