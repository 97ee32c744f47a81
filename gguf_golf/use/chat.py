"""`gguf-golf chat`: a conversation at the terminal.

`Conversation` keeps the messages and the model's cache; `chat` is the loop around it: what is typed, what is shown.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from gguf_golf.errors import GolfError, InputError, printable
from gguf_golf.evaluate.chat_template import ChatTemplate
from gguf_golf.evaluate.generate import Sampling, stream
from gguf_golf.runtime.cache import cache_dir
from gguf_golf.runtime.session import LoadedModel

try:
    import readline
except ImportError:  # Windows
    readline = None  # type: ignore[assignment]

HELP = """\
/help            this list
/system TEXT     set the system message and start over
/clear           start over
/retry           answer the last message again
/undo            drop the last message and its answer
/temp NUMBER     set the sampling temperature; 0 always takes the most likely token
/save FILE       write the conversation as JSON (a list of role and content)
/exit            leave, as Ctrl-D does
Ctrl-C stops an answer. A line that ends in \\ continues on the next one."""

DEFAULT_CONTEXT = 8192
"""Tokens of context where the model allows as many and the user does not say."""


class Conversation:
    """Messages between a user and a model; use as a context manager.

    `n_ctx` None means what the model was trained for, at most DEFAULT_CONTEXT. Raises InputError if the file cannot be
    loaded or carries no chat template.
    """

    def __init__(
        self,
        path: Path,
        *,
        system: str | None = None,
        sampling: Sampling,
        n_ctx: int | None = None,
        threads: int | None = None,
    ) -> None:
        self.messages: list[dict[str, str]] = []
        self.sampling = sampling
        self._model = LoadedModel(path)
        try:
            self._template = ChatTemplate.of(self._model)
            if self._template.source is None:
                raise InputError(
                    f"{path}: carries no chat template, so it was probably not trained to chat; "
                    f"continue a text with it instead: gguf-golf run {path} --raw -p 'Once upon a time'"
                )
            self.n_ctx = min(n_ctx or DEFAULT_CONTEXT, self._model.n_ctx_train)
            self._context = self._model.context(self.n_ctx, n_batch=min(self.n_ctx, 512), threads=threads)
        except BaseException:
            self._model.close()
            raise
        self._cached: list[int] = []  # the tokens of the last prompt, which start the model's cache
        self.start_over(system)

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._template.close()
        self._context.close()
        self._model.close()

    @property
    def system(self) -> str | None:
        """The system message, if there is one."""
        return self.messages[0]["content"] if self.messages and self.messages[0]["role"] == "system" else None

    def start_over(self, system: str | None) -> None:
        """Forget all messages; the conversation starts with this system message."""
        self.messages = [] if system is None else [{"role": "system", "content": system}]

    def undo(self) -> str | None:
        """Drop the last message of the user and everything after it; returns it, None if there is none."""
        last = max((i for i, message in enumerate(self.messages) if message["role"] == "user"), default=None)
        if last is None:
            return None
        dropped = self.messages[last]["content"]
        del self.messages[last:]
        return dropped

    def answer(self, text: str, n_predict: int) -> Iterator[str]:
        """Pieces of the model's answer to `text`, at most `n_predict` tokens.

        An answer that the caller stops reading stays in the conversation as far as it went. The oldest turns are
        dropped when the context is full. Raises InputError if `text` alone does not fit, and as the template does;
        the message is then not part of the conversation.
        """
        self.messages.append({"role": "user", "content": text})
        try:
            prompt = self._prompt(n_predict)
        except BaseException:
            self.messages.pop()
            raise
        held = _common_start(self._cached, prompt)
        self._cached = list(prompt)
        pieces: list[str] = []
        room = min(n_predict, self.n_ctx - len(prompt))
        try:
            for piece in stream(self._context, np.array(prompt, np.int32), room, self.sampling, held=held):
                pieces.append(piece)
                yield piece
        finally:
            self.messages.append({"role": "assistant", "content": "".join(pieces)})

    def _prompt(self, n_predict: int) -> list[int]:
        """The conversation as tokens, with room for an answer: the oldest turns go first."""
        while True:
            text = self._template.render(self.messages)
            tokens = [int(token) for token in self._model.tokenize(text, parse_special=True)]
            if len(tokens) + min(n_predict, self.n_ctx // 4) <= self.n_ctx:
                return tokens
            oldest = 1 if self.system is not None else 0
            if len(self.messages) - oldest < 3:
                raise InputError(
                    f"the message has {len(tokens)} tokens and the context {self.n_ctx}: shorten it, or start with a "
                    f"larger --ctx (the model was trained for {self._model.n_ctx_train})"
                )
            del self.messages[oldest : oldest + 2]


def chat(
    conversation: Conversation, n_predict: int, read_line: Callable[[str], str], write: Callable[[str], None]
) -> None:
    """Talk until the end of input: `read_line(prompt)` gives what the user types and raises EOFError at the end."""
    while True:
        try:
            typed = _read_message(read_line)
        except EOFError:
            return
        except KeyboardInterrupt:  # clears the line, as a shell does
            write("\n")
            continue
        if not typed.strip():
            continue
        try:
            if typed.startswith("/"):
                command, _, argument = typed[1:].strip().partition(" ")
                if command in ("exit", "quit"):
                    return
                answered = _command(conversation, command, argument.strip(), write)
            else:
                answered = typed
            if answered is not None:
                _show_answer(conversation, answered, n_predict, write)
        except (GolfError, OSError) as error:
            write(f"error: {error}\n")


def terminal_reader(history: Path | None = None) -> Callable[[str], str]:
    """`input`, with line editing and a history that outlives the program, where Python has readline."""
    if readline is None:
        return input
    history = history or cache_dir() / "chat_history"
    history.parent.mkdir(parents=True, exist_ok=True)
    history.touch(mode=0o600)  # what a person types is theirs alone
    if history.stat().st_size:
        readline.read_history_file(history)
    readline.set_history_length(1000)

    def read(prompt: str) -> str:
        line = input(prompt)
        readline.write_history_file(history)
        return line

    return read


def _read_message(read_line: Callable[[str], str]) -> str:
    lines = [read_line("> ")]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(read_line("… "))
    return "\n".join(lines)


def _command(conversation: Conversation, command: str, argument: str, write: Callable[[str], None]) -> str | None:
    """Carry out a / command; returns the message to be answered, if the command asks for an answer."""
    match command:
        case "help" | "?":
            write(HELP + "\n")
        case "system":
            conversation.start_over(argument or None)
            write("(started over)\n")
        case "clear":
            conversation.start_over(conversation.system)
            write("(started over)\n")
        case "undo" | "retry":
            dropped = conversation.undo()
            if dropped is None:
                raise InputError("nothing was said yet")
            if command == "retry":
                return dropped
            write("(dropped the last message and its answer)\n")
        case "temp":
            conversation.sampling = _with_temperature(conversation.sampling, argument)
        case "save":
            if not argument:
                raise InputError("name the file: /save talk.json")
            with Path(argument).open("x", encoding="utf-8") as file:  # never over something that is there
                json.dump(conversation.messages, file, ensure_ascii=False, indent=1)
            write(f"(wrote {argument})\n")
        case _:
            raise InputError(f"there is no /{command}; /help lists what there is")
    return None


def _with_temperature(sampling: Sampling, text: str) -> Sampling:
    try:
        temperature = float(text)
    except ValueError:
        temperature = -1.0
    if not 0 <= temperature < 100:
        raise InputError(f"/temp takes a number from 0 up, such as 0.7, not {text!r}")
    return Sampling(temperature, sampling.top_p, sampling.seed)


def _show_answer(conversation: Conversation, text: str, n_predict: int, write: Callable[[str], None]) -> None:
    """Stream the answer; Ctrl-C stops it and not the program."""
    started, first, count, stopped = time.perf_counter(), 0.0, 0, ""
    pieces = conversation.answer(text, n_predict)
    try:
        for piece in pieces:
            first = first or time.perf_counter()
            count += 1
            write(printable(piece))
    except KeyboardInterrupt:
        stopped = ", stopped"
    finally:
        pieces.close()  # type: ignore[attr-defined]  # a generator: what was said so far joins the conversation
    rate = f", {(count - 1) / (time.perf_counter() - first):.1f} tokens/s" if count > 1 else ""
    wait = f", first after {first - started:.1f} s" if first else ""
    write(f"\n({count} tokens{wait}{rate}{stopped})\n")


def _common_start(one: list[int], other: list[int]) -> int:
    """How many tokens both start with; at least one token of `other` is left over."""
    n = 0
    while n < min(len(one), len(other) - 1) and one[n] == other[n]:
        n += 1
    return n
