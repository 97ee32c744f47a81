"""Question: at equal bits per weight, how much of the damage of mainline's best types do the TCQ types do?

    python eval/experiments/equal_bytes.py ../shared/models/golf-88m ../shared/data/wikitext-2 -o OUT

Every linear layer in one type, the embedding Q6_K in all files; one imatrix and one set of Hessians from 32 x 512
tokens of wiki.valid; mean KL divergence to the BF16 file on 40 x 512 tokens of wiki.test. Mainline's best at a number
of bits is the lower envelope of its types: the lower convex hull of ln KLD over the linear layers' bits per weight,
its ends extended.
OUT keeps the files, equal-bytes.json and table.md; a second run makes and measures only what is new.
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from types_on_real_models import calibrated, converted

from gguf_golf.evaluate.evaluate import evaluate
from gguf_golf.evaluate.on_text import TextSettings
from gguf_golf.formats import quant_types
from gguf_golf.quantize.job import Job

MAINLINE = (
    *("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "q2_k", "iq3_xxs", "iq3_s", "q3_k"),
    *("iq4_xs", "q4_k", "q5_k", "q6_k"),
)


@dataclass(frozen=True)
class Point:
    """One type: bits per weight of the linear layers, mean KLD and its standard error in nats, perplexity."""

    type: str
    feedback: bool
    bpw: float
    kld: float
    kld_se: float
    ppl: float


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.argument("wikitext", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True)
@click.option("--chunks", default=40, show_default=True)
@click.option("--threads", type=int, help="Default: all cores.")
def main(model: Path, wikitext: Path, out: Path, chunks: int, threads: int | None) -> None:
    """Make the files that are not there, measure all, write equal-bytes.json and table.md."""
    base = converted(model, out / "bf16.gguf", type_name="bf16")
    hessian = out / "hessian.gguf"
    importance = calibrated(base, wikitext, out, hessian, threads)
    jobs = [(name, False) for name in (*MAINLINE, *quant_types.TCQ)] + [(name, True) for name in quant_types.TCQ]
    files = [
        converted(
            model,
            out / f"{name}{'-feedback' * feedback}.gguf",
            type_name=name,
            job=Job(importance, hessian if feedback else None, threads=threads),
        )
        for name, feedback in jobs
    ]
    text = TextSettings(wikitext / "wiki.test.raw", n_chunks=chunks)
    _, *results = evaluate(base, files, text, threads=threads)
    points = []
    for (name, feedback), result in zip(jobs, results, strict=True):
        m = result.measures
        assert m is not None and m.kld_mean is not None and m.kld_se is not None
        points.append(Point(name, feedback, quant_types.get(name).bpw, m.kld_mean, m.kld_se, m.ppl))
    lines = ",\n".join(json.dumps(asdict(point)) for point in points)
    (out / "equal-bytes.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    (out / "table.md").write_text(table(points), encoding="utf-8")
    click.echo(table(points))


def envelope(points: Sequence[Point]) -> list[Point]:
    """Corners of the lower convex hull of ln KLD over bits per weight, by bits."""
    hull: list[Point] = []
    for point in sorted(points, key=lambda p: (p.bpw, p.kld)):
        if hull and hull[-1].bpw == point.bpw:
            continue  # another type of the same size, and worse
        while len(hull) > 1 and line(hull[-2], point, hull[-1].bpw) <= hull[-1].kld:
            hull.pop()
        hull.append(point)
    return hull


def line(a: Point, b: Point, bpw: float) -> float:
    """KLD at `bpw` on the log-linear line through two types."""
    slope = math.log(b.kld / a.kld) / (b.bpw - a.bpw)
    return a.kld * math.exp(slope * (bpw - a.bpw))


def best_of(hull: Sequence[Point], bpw: float) -> tuple[float, str]:
    """Mainline's best KLD at `bpw`, and between which types, or from which line it is extended."""
    a, b = next(((a, b) for a, b in pairwise(hull) if bpw <= b.bpw), (hull[-2], hull[-1]))
    extended = "" if a.bpw <= bpw <= b.bpw else ", extended"
    return line(a, b, bpw), f"{a.type}, {b.type}{extended}"


def table(points: Sequence[Point]) -> str:
    """Two Markdown tables: mainline's types, and ours against them."""
    mainline = [point for point in points if point.type in MAINLINE]
    hull = envelope(mainline)
    lines = ["| type | bpw | KLD | PPL |", "|---|---|---|---|"]
    for p in sorted(mainline, key=lambda p: p.bpw):
        lines.append(f"| {p.type} | {p.bpw:.3f} | {p.kld:.4f} ± {p.kld_se:.4f} | {p.ppl:.2f} |")
    lines += [
        "",
        "| type | bpw | mainline's best there | between | KLD plain | share | KLD with feedback | share |",
        "|---|---|---|---|---|---|---|---|",
    ]
    of = {(p.type, p.feedback): p for p in points}
    for name in quant_types.TCQ:
        plain, fed = of[name, False], of[name, True]
        best, between = best_of(hull, plain.bpw)
        cells = [f"{p.kld:.4f} ± {p.kld_se:.4f} | {p.kld / best:.2f}" for p in (plain, fed)]
        lines.append(f"| {name} | {plain.bpw:.3f} | {best:.4f} | {between} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
