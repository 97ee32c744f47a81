"""Several results files made one, if they may be: numbers from different texts or bases are never put side by side."""

import itertools
from collections.abc import Sequence

from gguf_golf.errors import InputError
from gguf_golf.report.results import Model, Results, clean


def merge(parts: Sequence[Results]) -> Results:
    """One Results of all parts, the files of each quantized model joined by hash, with short labels.

    Raises InputError where two parts measured against different bases, on different texts, or on different questions
    under one name. Speeds under other settings than the first's are dropped, and a note says so.
    """
    first, *others = parts
    for part in others:
        _check_base(first, part)
        _check_texts(first, part)
        _check_tasks(first, part)
        _join(first, part)
    _label(first.models)
    return first


def _refuse(first: Results, part: Results, what: str) -> InputError:
    names = f"{first.sources[0].name} and {part.sources[0].name}"
    return InputError(f"{names}: {what}; their numbers cannot be compared, make a page of each")


def _check_base(first: Results, part: Results) -> None:
    if first.base and part.base and first.base.sha256 != part.base.sha256:
        raise _refuse(first, part, f"measured against different bases ({first.base.file}, {part.base.file})")


def _check_texts(first: Results, part: Results) -> None:
    """Pooled measures depend on the whole list of texts; a part without texts (tasks alone) fits to any."""
    if first.texts and part.texts and sorted(_texts(first)) != sorted(_texts(part)):
        raise _refuse(first, part, f"measured on different texts ({_say(first)} and {_say(part)})")


def _texts(results: Results) -> list[tuple[str, ...]]:
    return [tuple(str(text.get(key)) for key in ("sha256", "n_ctx", "n_chunks")) for text in results.texts]


def _say(results: Results) -> str:
    return ", ".join(
        clean(f"{text.get('name')}: {text.get('n_chunks')} x {text.get('n_ctx')} tokens, {str(text.get('sha256'))[:8]}")
        for text in results.texts
    )


def _check_tasks(first: Results, part: Results) -> None:
    known = {task.get("name"): task for task in first.tasks}
    for task in part.tasks:
        same = known.get(task.get("name"), task)
        if same != task:
            differ = [key for key in {*same, *task} if same.get(key) != task.get(key)]
            what = f"the task {clean(task.get('name'))!r} differs in {clean(', '.join(sorted(differ)))}"
            raise _refuse(first, part, what)


def _join(first: Results, part: Results) -> None:
    if first.kld_edges and part.kld_edges and first.kld_edges != part.kld_edges:
        raise _refuse(first, part, "histograms with different bins")
    first.kld_edges = first.kld_edges or part.kld_edges
    first.texts = first.texts or part.texts
    first.tasks += [task for task in part.tasks if task not in first.tasks]
    if part.texts and _texts(part) != _texts(first):  # the same texts in another order: their chunks are no pairs
        for model in part.models:
            model.chunks = {}
    first.sources += part.sources
    first.notes += part.notes
    if part.speed and first.speed and part.speed != first.speed:
        first.notes.append(
            f"{part.sources[0].name}: its speeds were measured under other settings than"
            f" {first.sources[0].name}'s, and are not shown"
        )
        for model in part.models:
            model.speed = {}
    first.speed = first.speed or part.speed
    for model in part.models:
        _add(first, model)
    first.models.sort(key=lambda model: model.role == "quant")
    first.models.sort(key=lambda model: model.role != "base")


def _add(first: Results, model: Model) -> None:
    same = next((m for m in first.models if m.role == model.role and m.sha256 and m.sha256 == model.sha256), None)
    if same is None:
        first.models.append(model)
        return
    differ = [name for name, value in model.measures.items() if same.measures.get(name, value) != value]
    if differ:
        first.notes.append(f"{model.file}: measured twice with different results ({differ[0]}); the first are shown")
    same.measures = same.measures or model.measures
    same.histogram = same.histogram or model.histogram
    same.chunks = same.chunks or model.chunks
    same.texts = same.texts or model.texts
    same.tasks = {**model.tasks, **same.tasks}
    same.speed = same.speed or model.speed
    same.tensors = same.tensors or model.tensors
    same.recipe = same.recipe or model.recipe
    same.bytes_zstd = same.bytes_zstd or model.bytes_zstd


def shared_start(names: Sequence[str]) -> str:
    """What all names begin with."""
    letters = itertools.takewhile(lambda same: len(set(same)) == 1, zip(*names, strict=False))
    return "".join(same[0] for same in letters)


def _label(models: Sequence[Model]) -> None:
    """Short names: what file names share in front is dropped, equal names are told apart by their hash."""
    stems = [model.file.removesuffix(".gguf") for model in models]
    shared = shared_start(stems)
    cut = 0 if shared in stems else max(shared.rfind(mark) for mark in "-_.") + 1
    labels = [stem[cut:] for stem in stems]
    for model, label in zip(models, labels, strict=True):
        model.label = "noise floor" if model.role == "noise-floor" else label
    named = [model.label for model in models]
    for model in models:
        if named.count(model.label) > 1:
            model.label += f" ({model.role})" if model.role == "base" else f" ({model.sha256[:6]})"
