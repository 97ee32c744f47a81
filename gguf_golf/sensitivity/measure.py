"""Measure a model's sensitivity: each tensor alone in two types, the rest exact, and single weights removed.

Finished tensors are noted in NAME.journal beside the output; a run that was interrupted resumes after them.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from gguf_golf.encode import Guide, open_encoder
from gguf_golf.errors import InputError
from gguf_golf.journal import Journal, open_journal
from gguf_golf.models import LazyTensor, Model, open_model
from gguf_golf.models.fingerprint import fingerprint
from gguf_golf.models.hashing import file_sha256
from gguf_golf.models.roles import is_quantizable
from gguf_golf.progress import ProgressBar
from gguf_golf.sensitivity import distortion, result
from gguf_golf.sensitivity.concentration import stability
from gguf_golf.sensitivity.estimate import estimate
from gguf_golf.sensitivity.measuring import Question, judged
from gguf_golf.sensitivity.result import Sensitivity, TensorSensitivity
from gguf_golf.sensitivity.steps import answering


def measure(
    model_path: Path,
    out: Path,
    *,
    imatrix_path: Path | None = None,
    hessian_path: Path | None = None,
    text_path: Path | None = None,
    n_ctx: int = 512,
    n_chunks: int = 1,
    quick: bool = False,
    threads: int | None = None,
) -> Sensitivity:
    """Measure the model on the first chunks of a text and write the sensitivity file `out`.

    The text should be another than that of the imatrix and the Hessians: it also judges how well they generalize.
    With Hessians, the errors of TCQ types are those of encoding with error feedback: quantize with the same file then.
    `quick` runs no text: damage is then the importance-weighted squared error, in arbitrary units. Raises InputError
    for a model that is not a GGUF in full precision, or a missing text.
    """
    if not quick and text_path is None:
        raise InputError("measuring takes a text (--text FILE): any that is not used for evaluation; or pass --quick")
    model = open_model(model_path)
    if not quick and not model_path.is_file():
        raise InputError(f"{model_path} is not a GGUF: make one with `gguf-golf convert {model_path} -o MODEL.gguf`")
    empty = Sensitivity(
        model=model_path.name,
        fingerprint=fingerprint(model),
        imatrix=None if imatrix_path is None else os.path.relpath(imatrix_path, out.parent),
        imatrix_sha256=None if imatrix_path is None else file_sha256(imatrix_path),
        hessian=None if hessian_path is None else os.path.relpath(hessian_path, out.parent),
        hessian_sha256=None if hessian_path is None else file_sha256(hessian_path),
        text=None if quick or text_path is None else text_path.name,
        text_sha256=None if quick or text_path is None else file_sha256(text_path),
        n_ctx=n_ctx,
        n_chunks=0 if quick else n_chunks,
        quick=quick,
        tensors=[],
    )
    candidates = distortion.CANDIDATES
    with open_journal(out.with_name(out.name + ".journal"), asdict(empty)) as journal:
        if quick:
            guide, encoder = Guide.open(imatrix_path, hessian_path), open_encoder("cpu", threads)
            entries = _each(
                model, journal, lambda todo: (judged(tensor, guide, encoder, None, candidates)[0] for tensor in todo)
            )
            measured = replace(empty, tensors=entries)
        else:
            assert text_path is not None
            types = tuple(quant_type.name for quant_type in candidates)
            question = Question(model_path, text_path, imatrix_path, hessian_path, n_ctx, n_chunks, types)
            with answering(question, out, threads) as answers:
                tensors = estimate(_each(model, journal, answers.tensors))
                if not any(tensor.measured for tensor in tensors):
                    raise InputError("the text reaches none of the model's linear layers: there is nothing to measure")
                supers, found_chunks = answers.super_weights(tensors)
            measured = replace(
                empty,
                n_chunks=found_chunks,
                tensors=tensors,
                super_weights=supers,
                stability=stability(tensors),
            )
        result.write(measured, out)
        journal.remove()
    return measured


def _each(
    model: Model, journal: Journal, measure_all: Callable[[Sequence[LazyTensor]], Iterator[TensorSensitivity]]
) -> list[TensorSensitivity]:
    """One entry for each quantizable tensor; the bar counts weights, as large tensors take longer."""
    wanted = [tensor for tensor in model.tensors if is_quantizable(tensor)]
    done = {entry.name: entry for entry in map(result.tensor_from_json, journal.records)}
    todo = [tensor for tensor in wanted if tensor.name not in done]
    total, left = (sum(math.prod(tensor.shape) for tensor in some) for some in (wanted, todo))
    with ProgressBar(total=total, initial=total - left, desc="sensitivity", unit="w", unit_scale=True) as bar:
        for tensor, entry in zip(todo, measure_all(todo), strict=True):
            bar.set_postfix_str(tensor.name, refresh=False)
            done[tensor.name] = entry
            journal.add(asdict(entry))
            bar.update(math.prod(tensor.shape))
    return [done[tensor.name] for tensor in wanted]
