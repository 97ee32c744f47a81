"""Question: what do protected rows buy within a budget, and what do they cost in speed?

    python eval/experiments/protected_rows.py ../shared/models/golf-88m ../shared/data/wikitext-2 -o OUT

Plans each budget twice, with protected rows among the candidates and without, writes the files without error feedback,
and measures both: mean KL divergence to the BF16 file on 40 x 512 tokens of wiki.test, and the CPU time of a token,
generated alone and in a batch of 512, with one thread. Imatrix from 32 x 512 tokens of wiki.valid, tensors ranked on
another chunk of it. Runs of the two files alternate, and the ratio is the median over pairs.
OUT keeps everything; a second run makes and measures only what is new. table.md is the result.
"""

import statistics
import sys
import time
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from types_on_real_models import converted

from gguf_golf.calibrate.collect import collect
from gguf_golf.calibrate.split import split
from gguf_golf.evaluate.evaluate import evaluate
from gguf_golf.evaluate.on_text import TextSettings
from gguf_golf.plan.constraints import Constraints
from gguf_golf.plan.make import make_recipe
from gguf_golf.quantize.from_recipe import quantize
from gguf_golf.quantize.job import Job
from gguf_golf.runtime.session import LoadedModel
from gguf_golf.sensitivity.measure import measure

N_CTX, CALIBRATION, GENERATED = 512, 32, 64


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.argument("wikitext", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True)
@click.option("--budgets", default="31MB,36MB", show_default=True)
@click.option("--chunks", default=40, show_default=True)
@click.option("--pairs", default=9, show_default=True, help="Pairs of timed runs; 0 times nothing.")
@click.option("--threads", type=int, help="Default: all cores.")
def main(model: Path, wikitext: Path, out: Path, budgets: str, chunks: int, pairs: int, threads: int | None) -> None:
    """Make what is not there, measure all, write table.md."""
    out.mkdir(parents=True, exist_ok=True)
    base = converted(model, out / "base.gguf", type_name="bf16")
    ranking, imatrix, sensitivity = out / "ranking.txt", out / "imatrix.gguf", out / "sensitivity.json"
    valid = wikitext / "wiki.valid.raw"
    if not ranking.exists():
        ranking.write_bytes(split(base, valid, N_CTX, CALIBRATION, 4, 1).ranking)
    if not imatrix.exists():
        collect(base, valid, n_chunks=CALIBRATION, threads=threads, process_output=True, out=imatrix)
    if not sensitivity.exists():
        measure(base, sensitivity, imatrix_path=imatrix, text_path=ranking, threads=threads)
    lines = ["| file | MB | protected rows | predicted KLD | KLD | PPL | CPU time of a token | in a batch of 512 |"]
    lines.append("|" + "---|" * 8)
    for budget in budgets.split(","):
        files, plans = [], []
        for protects in (False, True):
            name = f"{budget}-{'rows' if protects else 'plain'}"
            recipe, path = out / f"{name}.toml", out / f"{name}.gguf"
            constraints = Constraints(protects_rows=protects)
            _, plan = make_recipe(
                base, budget, recipe, sensitivity_path=sensitivity, constraints=constraints, force=True
            )
            if not path.exists():
                quantize(base, recipe, path, job=Job(threads=threads))
            files.append(path)
            plans.append(plan)
        _, *results = evaluate(base, files, TextSettings(wikitext / "wiki.test.raw", n_chunks=chunks), threads=threads)
        ratios = _time_ratios(files, pairs)
        for path, plan, result, times in zip(files, plans, results, (("1", "1"), ratios), strict=True):
            m = result.measures
            assert m is not None and m.kld_mean is not None
            rows = sum(line.rows for line in plan.recipe.tensors.values())
            lines.append(
                f"| {path.stem} | {result.bytes / 1e6:.2f} | {rows:,} | {plan.recipe.predicted_kld:.4f} | "
                f"{m.kld_mean:.4f} ± {m.kld_se:.4f} | {m.ppl:.2f} | {' | '.join(times)} |"
            )
    (out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    click.echo("\n".join(lines))


def _time_ratios(files: list[Path], pairs: int) -> tuple[str, str]:
    """CPU time of the second file over that of the first: of tokens generated one by one, and of a batch."""
    if not pairs:
        return "", ""
    found = []
    for n_batch in (1, N_CTX):
        times = [[_seconds(file, n_batch) for file in files] for _ in range(pairs)]
        ratios = sorted(second / first for first, second in times)
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        found.append(f"{statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})")
    return found[0], found[1]


def _seconds(file: Path, n_batch: int) -> float:
    """CPU seconds of GENERATED tokens one by one, or of one batch whose last token alone has logits."""
    tokens = np.random.default_rng(0).integers(300, 3000, N_CTX).astype(np.int32)
    with LoadedModel(file) as model, model.context(N_CTX, threads=1) as context:
        positions, last = np.arange(N_CTX, dtype=np.int32), np.zeros(N_CTX, np.bool_)
        last[-1] = True
        context.decode(tokens, positions, last)  # warm
        context.clear()
        started = time.process_time()
        if n_batch == N_CTX:
            context.decode(tokens, positions, last)
        else:
            for i in range(GENERATED):
                context.decode(tokens[i : i + 1], positions[i : i + 1], np.ones(1, np.bool_))
        return time.process_time() - started


if __name__ == "__main__":
    main()
