"""`gguf-golf demo`: the whole road on the embedded 4M-parameter model, in a minute.

Calibrate, convert at several types, measure all of them against the 16-bit original, and show the table, a plot of
damage against bytes, and the report page.
"""

from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from pathlib import Path

import plotext

from gguf_golf.calibrate import imatrix
from gguf_golf.calibrate.collect import collect
from gguf_golf.evaluate.evaluate import evaluate
from gguf_golf.evaluate.on_text import TextSettings
from gguf_golf.evaluate.results import ModelResult, document, write_json
from gguf_golf.evaluate.table import render
from gguf_golf.quantize.convert import convert
from gguf_golf.report import write_report

# ours, each beside mainline's types of the nearest size
TYPES = ("tcq2", "tcq3", "tcq4", "tcq5", "iq2_s", "q2_k", "iq3_s", "q3_k", "iq4_xs", "q4_k", "q5_k")
CALIBRATION_CHUNKS = 64
CHUNKS = 40


def demo(out: Path, say: Callable[[str], None]) -> Path:
    """Run the demo into the folder `out`; `say` receives what a user should read. Returns the report page's path."""
    out.mkdir(parents=True, exist_ok=True)
    base, importance, results = out / "golf-tiny-bf16.gguf", out / "golf-tiny.imatrix.gguf", out / "results.json"
    text = TextSettings(out / "demo.txt", n_chunks=CHUNKS)
    with as_file(files("gguf_golf") / "data") as data:
        text.file.write_bytes((data / "demo" / "demo.txt").read_bytes())
        say("golf-tiny, a Llama of 4.2 million weights: converting it to 16 bits")
        convert(data / "golf-tiny", base)
        say(f"measuring which input channels matter, on {CALIBRATION_CHUNKS} chunks of other text")
        imatrix.write(collect(base, data / "demo" / "calibration.txt", n_chunks=CALIBRATION_CHUNKS), importance)
        quants = []
        for name in TYPES:
            quants.append(out / f"golf-tiny-{name}.gguf")
            say(f"converting every linear layer to {name}, the embedding to q6_k")
            convert(data / "golf-tiny", quants[-1], type_name=name, imatrix_path=importance)
    say(f"measuring all of them against the 16-bit file, on {CHUNKS} chunks of {text.file.name}")
    measured = evaluate(base, quants, text, noise_floor=True)
    write_json(document(measured, {"texts": [text.to_json()]}, "gguf-golf demo"), results)
    say(render(measured))
    say(plot(measured))
    page = out / "report.html"
    write_report([results], page)
    return page


def plot(results: Sequence[ModelResult]) -> str:
    """KL divergence against megabytes as text, our types and mainline's as two series."""
    ours: tuple[list[float], list[float]] = ([], [])
    mainline: tuple[list[float], list[float]] = ([], [])
    for result in results:
        damage = result.measures.kld_mean if result.measures else None
        if damage and result.role == "quant":
            megabytes, klds = ours if "tcq" in result.file else mainline
            megabytes.append(result.bytes / 1e6)
            klds.append(damage)
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(90, 20)
    plotext.yscale("log")
    plotext.scatter(*mainline, marker="x", label="x  mainline types")
    plotext.scatter(*ours, marker="o", label="o  ours (TCQ)")
    plotext.xlabel("megabytes")
    plotext.ylabel("KL divergence to 16 bits (log scale: lower is better)")
    return str(plotext.build())
