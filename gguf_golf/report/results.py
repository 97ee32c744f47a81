"""Results files read for a report (schema: docs/evaluation.md). They may come from strangers, so nothing is trusted.

Numbers that are not finite count as missing and are said in `notes`; a file of another kind, a newer schema or a model
without its name and size is refused. Optional parts may be absent.
"""

import hashlib
import json
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gguf_golf.container.metadata import needs
from gguf_golf.errors import InputError
from gguf_golf.evaluate.results import SCHEMA, SCHEMA_VERSION, TextMeasures
from gguf_golf.formats.protected import matrix_of
from gguf_golf.models.roles import EMBEDDINGS

Measures = dict[str, float]
"""The measures that are known, by their names in the schema; `kld_histogram` is kept apart."""

MEASURES = tuple(f.name for f in fields(TextMeasures) if f.name != "kld_histogram")
ROLES = ("base", "noise-floor", "quant")
_POSITIVE = ("ppl", "bpb", "tokens", "text_bytes")
_TEXT: dict[str, Any] = dict.fromkeys(("name", "file", "sha256", "n_ctx", "n_chunks"))
_TASK: dict[str, Any] = dict.fromkeys(("name", "file", "sha256", "seed"))
_LARGEST = 1e100  # beyond this no size or measure makes sense, and sums would overflow


@dataclass(frozen=True)
class Metric:
    """One score of one model on one task; `low`..`high` is a 95% interval. See docs/evaluation.md."""

    score: float
    low: float | None
    high: float | None
    above_chance: bool
    mcnemar_p: float | None
    lost: list[str]
    gained: list[str]
    retained: float | None
    retained_low: float | None
    retained_high: float | None


@dataclass(frozen=True)
class Task:
    """One model on one set of questions."""

    kind: str
    mode: str
    n: int
    chance: float
    primary: str
    metrics: dict[str, Metric]
    answers: dict[str, str]

    @property
    def metric(self) -> Metric:
        """The metric to show first."""
        return self.metrics[self.primary]


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file; `type` in lower case, `shape` (rows, columns) with experts in front if any."""

    name: str
    type: str
    shape: tuple[int, ...]
    bytes: int

    @property
    def bpw(self) -> float:
        """Bits per weight."""
        return 8 * self.bytes / max(1, math.prod(self.shape))


@dataclass
class Model:
    """One file; `label` is the short name that tells it from the others of its report.

    `chunks` holds the means over each chunk of text, by their names in the schema: the files' are in one order.
    """

    file: str
    role: str
    sha256: str
    bytes: int
    bytes_zstd: int | None
    bpw: float | None
    parameters: int | None
    measures: Measures
    histogram: list[int]
    chunks: dict[str, list[float]]
    texts: dict[str, Measures]
    tasks: dict[str, Task]
    speed: dict[str, float]
    tensors: list[Tensor]
    recipe: str | None
    tuned: str | None = None
    label: str = ""

    @property
    def layers_bpw(self) -> float | None:
        """Bits per weight of the layers alone, without embedding and head; None if the tensors are not listed."""
        layers = [tensor for tensor in self.tensors if (matrix_of(tensor.name) or tensor.name) not in EMBEDDINGS]
        weights = sum(math.prod(tensor.shape) for tensor in layers)
        return 8 * sum(tensor.bytes for tensor in layers) / weights if weights else None

    @property
    def is_stock(self) -> bool | None:
        """Whether unpatched llama.cpp reads the file; None if its tensors are not listed."""
        if not self.tensors:
            return None
        return not needs((tensor.name, tensor.type) for tensor in self.tensors)


@dataclass
class Source:
    """Where results came from: the file (None for results handed over in memory), and what makes it again."""

    name: str
    sha256: str | None
    command: str | None


@dataclass
class Results:
    """All that a report shows. `models` holds the base first if it was measured; `notes` what a reader must know."""

    models: list[Model]
    texts: list[dict[str, Any]]
    tasks: list[dict[str, Any]]
    speed: dict[str, Any] | None
    kld_edges: list[float]
    sources: list[Source]
    notes: list[str] = field(default_factory=list)

    def of(self, role: str) -> Model | None:
        """The base or the noise floor, if measured."""
        return next((model for model in self.models if model.role == role), None)

    @property
    def base(self) -> Model | None:
        return self.of("base")

    @property
    def noise_floor(self) -> Model | None:
        return self.of("noise-floor")

    def as_stored(self, model: Model) -> Model | None:
        """The row of a file that llama.cpp repacked, measured once more as it is stored."""
        stored = (row for row in self.models if row.role == "noise-floor" and row is not self.noise_floor)
        return next((row for row in stored if row.sha256 == model.sha256), None)

    def badge(self, model: Model) -> str:
        """What a table says beside the name of a row that is no quantized file as it is used, else nothing."""
        if model.role == "noise-floor":
            return "noise floor" if model is self.noise_floor else "as stored"
        return "original" if model.role == "base" else ""

    @property
    def quants(self) -> list[Model]:
        return [model for model in self.models if model.role == "quant"]


def read(source: Path | Mapping[str, Any]) -> Results:
    """Read a results file, or take a document that is still in memory; raises InputError if it is not one."""
    if isinstance(source, Mapping):
        return _Reader("results").results(source, None)
    try:
        data = source.read_bytes()
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from error
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: not a results JSON ({error}); write one with gguf-golf eval --json") from error
    return _Reader(source.name).results(document, hashlib.sha256(data).hexdigest())


def clean(text: object, limit: int = 200) -> str:
    """Text fit to be shown: no control characters, nothing that reorders its surroundings, not longer than `limit`."""
    shown = "".join(
        c if unicodedata.category(c) not in ("Cc", "Cf", "Cs") else "\N{REPLACEMENT CHARACTER}" for c in str(text)
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _clean_lines(text: str) -> str:
    return "\n".join(clean(line, 400) for line in text.expandtabs(4).splitlines())


class _Reader:
    """Takes one document apart; `where` names it in errors and notes."""

    def __init__(self, where: str) -> None:
        self.where = clean(where)
        self.not_numbers: list[str] = []

    def results(self, document: object, sha256: str | None) -> Results:
        if not isinstance(document, Mapping) or document.get("schema") != SCHEMA:
            raise InputError(f"{self.where}: not a results file of gguf-golf (no schema {SCHEMA!r})")
        version = document.get("version")
        if not isinstance(version, int) or version < 1:
            raise InputError(f"{self.where}: schema version {clean(version)!r} is not a number from 1")
        if version > SCHEMA_VERSION:
            raise InputError(
                f"{self.where}: schema version {version}, this program knows {SCHEMA_VERSION}; update gguf-golf"
            )
        settings = self._map(document.get("settings"))
        models = [self._model(entry, f"models[{i}]") for i, entry in enumerate(self._list(document.get("models")))]
        if not any(model.role == "quant" for model in models):
            raise InputError(f"{self.where}: holds no quantized file; name one: gguf-golf eval BASE.gguf QUANT.gguf")
        edges = [self._number(edge, "kld_edges") for edge in self._list(document.get("kld_edges"))]
        usable = all(edge is not None and edge > 0 for edge in edges) and edges == sorted(edges, key=lambda e: e or 0)
        command = document.get("command")
        results = Results(
            models=sorted(models, key=lambda model: ROLES.index(model.role)),
            texts=[_TEXT | self._settings(text) for text in self._list(settings.get("texts"))],
            tasks=[_TASK | self._settings(task) for task in self._list(settings.get("tasks"))],
            speed=self._settings(settings.get("speed")) or None,
            kld_edges=[edge for edge in edges if edge] if usable else [],
            sources=[Source(self.where, sha256, clean(command, 2000) if isinstance(command, str) else None)],
        )
        if self.not_numbers:
            count = len(self.not_numbers)
            results.notes.append(
                f"{self.where}: {count} value{'s are' if count > 1 else ' is'} not a finite number and counted as"
                f" not measured (first: {self.not_numbers[0]})"
            )
        return results

    def _settings(self, entry: object) -> dict[str, Any]:
        return {
            clean(key): clean(value) if isinstance(value, str) else value for key, value in self._map(entry).items()
        }

    def _model(self, entry: object, at: str) -> Model:
        entry = self._map(entry)
        size = self._number(entry.get("bytes"), f"{at}.bytes")
        role = entry.get("role", "quant")
        if not isinstance(entry.get("file"), str) or not entry["file"] or size is None or size <= 0:
            raise InputError(f"{self.where}: {at} needs a `file` name and its size in `bytes`")
        if role not in ROLES:
            raise InputError(f"{self.where}: {at} has the role {clean(role)!r}; roles are {', '.join(ROLES)}")
        measures, histogram = self._measures(entry, at)
        texts = {
            clean(name): self._measures(self._map(text), f"{at}.texts")[0]
            for name, text in self._map(entry.get("texts")).items()
        }
        tasks = {clean(name): self._task(task, at) for name, task in self._map(entry.get("tasks")).items()}
        recipe, tuned = entry.get("recipe"), entry.get("tuned")
        return Model(
            file=clean(entry["file"]),
            role=role,
            sha256=clean(entry.get("sha256") or ""),
            bytes=int(size),
            bytes_zstd=self._integer(entry.get("bytes_zstd"), f"{at}.bytes_zstd"),
            bpw=self._number(entry.get("bpw"), f"{at}.bpw"),
            parameters=self._integer(entry.get("parameters"), f"{at}.parameters"),
            measures=measures,
            histogram=histogram,
            chunks=self._chunks(self._map(entry.get("chunks")), f"{at}.chunks"),
            texts=texts,
            tasks={name: task for name, task in tasks.items() if task is not None},
            speed=self._speed(self._map(entry.get("speed")), f"{at}.speed"),
            tensors=[self._tensor(tensor, f"{at}.tensors") for tensor in self._list(entry.get("tensors"))],
            recipe=_clean_lines(recipe) if isinstance(recipe, str) else None,
            tuned=clean(tuned) if isinstance(tuned, str) else None,
        )

    def _speed(self, entry: Mapping[str, Any], at: str) -> dict[str, float]:
        """Medians under their own names, and of the runs behind them the ends, as NAME_min and NAME_max."""
        found: dict[str, float] = {}
        for name, value in entry.items():
            runs = [self._number(run, f"{at}.{name}") for run in (value if isinstance(value, list) else [value])]
            known = [run for run in runs if run is not None]
            if known and isinstance(value, list):
                short = clean(name).removesuffix("_runs")
                found |= {f"{short}_min": min(known), f"{short}_max": max(known)}
            elif known:
                found[clean(name)] = known[0]
        return found

    def _measures(self, entry: Mapping[str, Any], at: str) -> tuple[Measures, list[int]]:
        found = {name: self._number(entry.get(name), f"{at}.{name}") for name in MEASURES}
        measures = {
            name: value
            for name, value in found.items()
            if value is not None and (value > 0 or name not in _POSITIVE) and (value >= 0 or not name.endswith("_se"))
        }
        counts = [self._integer(count, f"{at}.kld_histogram") for count in self._list(entry.get("kld_histogram"))]
        return measures, [max(0, count or 0) for count in counts]

    def _chunks(self, entry: Mapping[str, Any], at: str) -> dict[str, list[float]]:
        """A list with one value missing is of no use: the others could not be paired with another file's."""
        found: dict[str, list[float]] = {}
        for name in ("nll", "kld", "top1"):
            values = [self._number(value, f"{at}.{name}") for value in self._list(entry.get(name))]
            known = [value for value in values if value is not None]
            if known and len(known) == len(values):
                found[name] = known
        return found

    def _task(self, entry: object, at: str) -> Task | None:
        entry = self._map(entry)
        metrics = {
            clean(name): metric
            for name, value in self._map(entry.get("metrics")).items()
            if (metric := self._metric(self._map(value), f"{at}.tasks"))
        }
        if not metrics:
            return None
        primary = clean(entry.get("primary"))
        answers = self._map(entry.get("answers")).items()
        return Task(
            kind=clean(entry.get("kind", "")),
            mode=clean(entry.get("mode", "")),
            n=self._integer(entry.get("n"), f"{at}.tasks.n") or 0,
            chance=self._number(entry.get("chance"), f"{at}.tasks.chance") or 0.0,
            primary=primary if primary in metrics else next(iter(metrics)),
            metrics=metrics,
            answers={clean(key): clean(value, 40) for key, value in answers if value is not None},
        )

    def _metric(self, entry: Mapping[str, Any], at: str) -> Metric | None:
        names = ("score", "low", "high", "mcnemar_p", "retained", "retained_low", "retained_high")
        numbers = {name: self._number(entry.get(name), f"{at}.{name}") for name in names}
        score = numbers.pop("score")
        for low, high in (("low", "high"), ("retained_low", "retained_high")):
            ends = numbers[low], numbers[high]
            if ends[0] is not None and ends[1] is not None and ends[0] > ends[1]:
                numbers[low] = numbers[high] = None  # no interval
        if score is None:
            return None
        return Metric(
            score=score,
            above_chance=entry.get("above_chance") is True,
            lost=[clean(key) for key in self._list(entry.get("lost"))],
            gained=[clean(key) for key in self._list(entry.get("gained"))],
            **numbers,
        )

    def _tensor(self, entry: object, at: str) -> Tensor:
        entry = self._map(entry)
        shape = tuple(self._integer(side, f"{at}.shape") or 0 for side in self._list(entry.get("shape")))
        size = self._integer(entry.get("bytes"), f"{at}.bytes") or 0
        return Tensor(clean(entry.get("name", "")), clean(entry.get("type", "")).lower(), shape, size)

    def _number(self, value: object, at: str) -> float | None:
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST:
            return float(value)
        self.not_numbers.append(at)
        return None

    def _integer(self, value: object, at: str) -> int | None:
        number = self._number(value, at)
        return None if number is None else int(number)

    @staticmethod
    def _map(value: object) -> Mapping[str, Any]:
        return value if isinstance(value, Mapping) else {}

    @staticmethod
    def _list(value: object) -> list[Any]:
        return value if isinstance(value, list) else []
