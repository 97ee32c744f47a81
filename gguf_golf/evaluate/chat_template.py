"""A file's chat template, rendered as transformers renders it, in a process of its own that cannot hang or fill memory.

The renderer is that of llama-cpp-python. A template is a program that comes with a model: it may loop forever, or ask
for more memory than there is. So it runs in a child process with limits; a child renders many chats.
"""

import importlib
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from gguf_golf.errors import InputError
from gguf_golf.runtime.session import LoadedModel, bindings

CPU_SECONDS = 10  # per chat; real templates take milliseconds
MEMORY_BYTES = 512 << 20
# the template's name of a special token, and GGUF's (sic)
SPECIAL_TOKENS = {
    "bos": "bos", "eos": "eos", "unk": "unknown", "sep": "seperator", "pad": "padding", "cls": "cls", "mask": "mask",
}  # fmt: skip


class ChatTemplate:
    """The chat template of a file, if `source` is not None. Use as a context manager or close it: it owns a process."""

    def __init__(self, path: Path, source: str | None, tokens: Mapping[str, str]) -> None:
        self.source = source
        self._path = path
        self._tokens = dict(tokens)
        self._child: subprocess.Popen[str] | None = None

    @classmethod
    def of(cls, model: LoadedModel) -> "ChatTemplate":
        """The template that a loaded file carries, with the texts of the file's special tokens."""
        tokens = {}
        for name, key in SPECIAL_TOKENS.items():
            identity = model.metadata(f"tokenizer.ggml.{key}_token_id")
            if identity is not None and int(identity) < model.n_vocab:
                tokens[f"{name}_token"] = model.piece(int(identity), special=True).decode("utf-8", "replace")
        return cls(model.path, model.chat_template(), tokens)

    def __enter__(self) -> "ChatTemplate":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process, if there is one; another `render` would start a new one."""
        if self._child is not None:
            self._child.kill()
            self._end()

    def render(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
        """The text of messages (role, content). Its special tokens are written out: tokenize it with parse_special.

        Raises InputError if the file has no template, or one that fails, refuses the messages, does not end within
        CPU_SECONDS or needs more than MEMORY_BYTES.
        """
        if self.source is None:
            raise InputError(f"{self._path}: carries no chat template; use --raw")
        child = self._child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        chat = {"messages": list(messages), "add_generation_prompt": add_generation_prompt}
        try:
            child.stdin.write(json.dumps(chat) + "\n")
            child.stdin.flush()
            answer = child.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer.endswith("\n"):
            endless = self._end() == -signal.SIGXCPU
            what = f"does not end within {CPU_SECONDS} s" if endless else "crashes its renderer"
            raise InputError(f"{self._path}: its chat template {what}; try --raw")
        rendered = json.loads(answer)
        if rendered.get("error") == "memory":
            raise InputError(f"{self._path}: its chat template needs more than {MEMORY_BYTES >> 20} MiB; try --raw")
        if "error" in rendered:
            raise InputError(f"{self._path}: its chat template {rendered['error']}; try --raw")
        return str(rendered["text"])

    def _start(self) -> "subprocess.Popen[str]":
        child = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C stops what the caller does, not the renderer
        )
        assert child.stdin is not None
        limits = {"cpu_seconds": CPU_SECONDS, "memory_bytes": MEMORY_BYTES}
        child.stdin.write(json.dumps({"template": self.source, "tokens": self._tokens, **limits}) + "\n")
        return child

    def _end(self) -> int:
        """Wait for the child; its exit status, negative for a signal."""
        assert self._child is not None
        with suppress(BrokenPipeError), self._child as child:
            pass
        self._child = None
        return int(child.returncode)


def _serve() -> None:
    """The child: render each chat of standard input to a line of standard output."""
    bindings()  # first: it chooses the libraries that the next line loads
    formatter = importlib.import_module("llama_cpp.llama_chat_format").Jinja2ChatFormatter
    job = json.loads(sys.stdin.readline())
    _limit(resource.RLIMIT_AS, _address_space() + job["memory_bytes"])
    for line in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + 1 + job["cpu_seconds"])
        print(json.dumps(_render(formatter, job["template"], job["tokens"], json.loads(line))), flush=True)


def _render(formatter: Any, template: str, tokens: dict[str, str], chat: Mapping[str, Any]) -> dict[str, str]:
    """{"text": the rendered chat}, or {"error": how the sentence "its chat template ..." ends}."""
    tokens = {"eos_token": "", "bos_token": "", **tokens}
    own = {name: tokens.pop(name) for name in ("eos_token", "bos_token")}
    try:
        renderer = formatter(template, **own, add_generation_prompt=chat["add_generation_prompt"])
        return {"text": renderer(messages=chat["messages"], documents=None, **tokens).prompt}
    except ValueError as error:
        return {"error": f"refuses the messages: {error}"}
    except MemoryError:
        return {"error": "memory"}
    except Exception as error:
        return {"error": f"cannot be rendered ({type(error).__name__}: {error})"}


def _limit(what: int, value: int) -> None:
    """Set a soft limit where the system has it (macOS has none on the address space)."""
    _, hard = resource.getrlimit(what)
    with suppress(ValueError, OSError):
        resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _address_space() -> int:
    """Bytes of address space that this process has taken, 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[0]) * resource.getpagesize() if statm.is_file() else 0


if __name__ == "__main__":
    _serve()
