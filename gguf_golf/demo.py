"""`gguf-golf demo`: the whole pipeline on the embedded 4M-parameter model, in about a minute.

Calibrate, convert at several types, measure all of them against the 16-bit original, and show the table, the verdict
and the report page.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_golf import texts
from gguf_golf.calibrate.collect import collect
from gguf_golf.errors import InputError
from gguf_golf.evaluate.evaluate import evaluate
from gguf_golf.evaluate.on_text import TextSettings
from gguf_golf.evaluate.results import document, write_json
from gguf_golf.evaluate.table import results_table
from gguf_golf.quantize.convert import convert
from gguf_golf.quantize.job import Job
from gguf_golf.report import write_report
from gguf_golf.tune import require_extra
from gguf_golf.tune.settings import Settings

# ours, each beside mainline's types of the nearest size
TYPES = ("tcq2", "tcq3", "tcq4", "tcq5", "iq2_s", "q2_k", "iq3_s", "q3_k", "iq4_xs", "q4_k", "q5_k")
CALIBRATION_CHUNKS = 32
CHUNKS = 24
TUNED_TYPE, TUNED_TOKENS, TUNED_TEXT = "q2_k", 10_240, 65_536  # bytes


@dataclass(frozen=True)
class Demo:
    """What the demo made: the table and the verdict as `text`, the results `document`, the report's `page`."""

    text: str
    document: dict[str, Any]
    page: Path


def demo(out: Path, say: Callable[[str], None]) -> Demo:
    """Run the demo into the folder `out`; `say` receives one line per step."""
    out.mkdir(parents=True, exist_ok=True)
    base, importance = out / "golf-tiny-bf16.gguf", out / "golf-tiny.imatrix.gguf"
    results, page = out / "results.json", out / "report.html"
    say("golf-tiny, a Llama of 4.2 million weights: converting it to 16 bits")
    convert(texts.DATA / "golf-tiny", base)
    say(f"measuring which input channels matter, on {CALIBRATION_CHUNKS} chunks of {texts.CALIBRATION.name}")
    collect(base, texts.CALIBRATION, n_chunks=CALIBRATION_CHUNKS, out=importance)
    quants = []
    for name in TYPES:
        quants.append(out / f"golf-tiny-{name}.gguf")
        say(f"converting every linear layer to {name}, the embedding to q6_k")
        convert(texts.DATA / "golf-tiny", quants[-1], type_name=name, job=Job(imatrix=importance))
    if (tuned := _tuned(out, importance, say)) is not None:
        quants.append(tuned)
    text = TextSettings(texts.EVALUATION, n_chunks=CHUNKS)
    say(f"measuring all of them against the 16-bit file, on {CHUNKS} chunks of {text.file.name}")
    measured = evaluate(base, quants, text, noise_floor=True)
    found = document(measured, {"texts": [text.to_json()]}, "gguf-golf demo")
    write_json(found, results)
    verdict = write_report([results], page)
    return Demo(f"{results_table(measured)}\n\n{verdict.as_text()}", found, page)


def _tuned(out: Path, importance: Path, say: Callable[[str], None]) -> Path | None:
    """TUNED_TYPE again, tuned for a few steps; None without the extra `tune`."""
    try:
        require_extra()
    except InputError as error:
        say(f"no file is tuned: {error}")
        return None
    from gguf_golf.tune.tune import tune  # an extra

    text = out / texts.CALIBRATION.name
    text.write_bytes(texts.CALIBRATION.read_bytes()[:TUNED_TEXT].rpartition(b"\n")[0])
    path = out / f"golf-tiny-{TUNED_TYPE}-tuned.gguf"
    say(f"tuning {TUNED_TYPE} on {TUNED_TOKENS:,} tokens of {text.name}")
    tune(
        texts.DATA / "golf-tiny",
        path,
        type_name=TUNED_TYPE,
        embedding_type="q6_k",
        settings=Settings((text,), tokens=TUNED_TOKENS, n_ctx=256, batch_tokens=1024),
        job=Job(imatrix=importance, force=True, progress=False),
    )
    return path
