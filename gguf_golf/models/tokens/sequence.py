"""Normalizers and pre-tokenizers of a tokenizer.json as a flat list of steps."""

from typing import Any


def sequence(step: Any, key: str) -> list[dict[str, Any]]:
    """The steps, with those of nested sequences (under `key`) in place of each sequence; none for null."""
    if step is None:
        return []
    if step.get("type") == "Sequence":
        return [inner for part in step[key] for inner in sequence(part, key)]
    return [step]
