"""Every kind of task, by name. `python -m gguf_golf.evaluate.tasks.kinds` prints the table of docs/evaluation.md."""

from typing import Any

from gguf_golf.errors import InputError, did_you_mean
from gguf_golf.evaluate.tasks.kind import TaskKind
from gguf_golf.evaluate.tasks.kinds.arc import ARC
from gguf_golf.evaluate.tasks.kinds.gpqa import GPQA
from gguf_golf.evaluate.tasks.kinds.hellaswag import HELLASWAG
from gguf_golf.evaluate.tasks.kinds.lambada import LAMBADA
from gguf_golf.evaluate.tasks.kinds.mmlu import MMLU
from gguf_golf.evaluate.tasks.kinds.piqa import PIQA
from gguf_golf.evaluate.tasks.kinds.winogrande import WINOGRANDE

KINDS: dict[str, TaskKind[Any]] = {kind.name: kind for kind in (HELLASWAG, WINOGRANDE, ARC, PIQA, MMLU, LAMBADA, GPQA)}


def find_kind(name: str) -> TaskKind[Any]:
    """The kind of this name. Raises InputError that suggests one if there is none."""
    if name not in KINDS:
        raise InputError(f"there is no kind of task named {name!r}{did_you_mean(name, KINDS)}")
    return KINDS[name]


def kinds_table() -> str:
    """What each kind reads and compares, as Markdown."""
    rows = [f"| `{kind.name}` | {kind.file} | {kind.compared} |" for kind in KINDS.values()]
    return "\n".join(["| kind | file | what is compared |", "|---|---|---|", *rows])
