"""The model card: front matter that the hub reads, a table of the files, how to run them, measured quality."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from gguf_golf import __version__
from gguf_golf.container.metadata import only_ours
from gguf_golf.quantize.inspect import Inspected
from gguf_golf.report import words
from gguf_golf.report.page import markdown_cell, markdown_text
from gguf_golf.report.verdict import Verdict

CARD_MARK = b"<!-- laid out by gguf-golf publish -->"


@dataclass(frozen=True)
class About:
    """What a file does not say: hub ids of the repository and of the original, its licence, who quantized it."""

    repo: str | None = None
    base_model: str | None = None
    license: str | None = None
    author: str | None = None


@dataclass(frozen=True)
class Published:
    """One model of the repository: what it holds, the names of its parts and their hashes."""

    inspected: Inspected
    names: list[str]
    sha256: list[str]

    @property
    def ours(self) -> list[str]:
        """What is in it that only gguf-golf's llama.cpp reads."""
        return only_ours((tensor.name, tensor.type) for tensor in self.inspected.tensors)


def card(published: Sequence[Published], about: About, results: Sequence[Path], verdict: Verdict | None) -> str:
    """The card as Markdown with YAML front matter. It names no path of this machine."""
    ordered = sorted(published, key=lambda each: -each.inspected.bytes)
    environment = Environment(
        loader=PackageLoader("gguf_golf.publish"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(size=words.size, cell=markdown_cell)
    return environment.get_template("card.md.j2").render(
        front=front_matter(ordered, about),
        mark=CARD_MARK.decode(),
        name=ordered[0].inspected.name or ordered[0].names[0].removesuffix(".gguf"),
        files=ordered,
        about=about,
        repo=about.repo or "ORGANIZATION/NAME",
        first=_first(ordered, verdict),
        advice=_advice(ordered, verdict),
        verdict=verdict,
        quality=None if not results else markdown_text(results),
        version=__version__,
    )


def front_matter(published: Sequence[Published], about: About) -> str:
    """The YAML that the hub reads. Strings are written as JSON, which is YAML, so no name can break it."""
    chats = any(each.inspected.chat_template for each in published)
    tags = ["gguf", "gguf-golf", "llama.cpp", *(["conversational"] if chats else [])]
    known: dict[str, Any] = {
        "base_model": about.base_model,
        "base_model_relation": about.base_model and "quantized",
        "license": about.license,
        "library_name": "gguf",
        "pipeline_tag": "text-generation",
        "quantized_by": about.author,
        "tags": tags,
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in known.items() if value]
    return "\n".join(["---", *lines, "---"])


def _first(published: Sequence[Published], verdict: Verdict | None) -> Published:
    """The file that the examples run: the verdict's, or the one in the middle."""
    picked = verdict.pick.model.sha256 if verdict and verdict.pick else None
    return next((each for each in published if picked in each.inspected.sha256), published[len(published) // 2])


def _advice(published: Sequence[Published], verdict: Verdict | None) -> dict[str, str]:
    """Who should take each file, by its first name; from the verdict alone."""
    if verdict is None:
        return {}
    steps = {step.model.sha256: step.band or "worth its bytes" for step in verdict.ladder}
    skipped = {skipped.model.sha256: skipped.reason for skipped in verdict.skipped}
    said = {}
    for each in published:
        digest = each.inspected.sha256[0]
        words_of_it = steps.get(digest) or skipped.get(digest, "")
        if verdict.pick and digest == verdict.pick.model.sha256:
            words_of_it = f"**take this one**: {words_of_it}"
        said[each.names[0]] = words_of_it
    return said
