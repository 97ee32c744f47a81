"""Question: how much better would plans be if tensors were ranked on several chunks of text instead of one?

    gguf-golf sensitivity MODEL.gguf --imatrix imatrix.gguf --text PASSAGE_1.txt -o 1.json     (and so on, six passages)
    python eval/experiments/ranking_chunks.py MODEL.gguf 1.json 2.json 3.json 4.json 5.json 6.json

No file is written. Each sensitivity file, of one chunk, is a judge in turn: of the others, plans from one at a time and
from POOLED together are compared by the damage that the judge's own measurements give them. As the judge has no part in
either plan, its noise favours neither. Passages should not adjoin. Only coefficients differ: exponents, which matter
below 2 bits, and the errors of types are those of the first file throughout.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path

import click
import numpy as np

from gguf_golf.models import open_model
from gguf_golf.plan.budget import parse
from gguf_golf.plan.constraints import Constraints
from gguf_golf.plan.planner import Planner
from gguf_golf.sensitivity import result
from gguf_golf.sensitivity.estimate import estimate
from gguf_golf.sensitivity.result import Sensitivity

POOLED = 4


def pooled(files: Sequence[Sensitivity], first: Sensitivity) -> Sensitivity:
    """The tensors of `first` with coefficients from the anchors of all `files`: every segment of text counts alike."""
    tensors = []
    for own, *alike in zip(first.tensors, *(file.tensors for file in files), strict=True):
        anchor = own.measured[0]
        segments = [kld * anchor.error / each.measured[0].error for each in alike for kld in each.measured[0].kld]
        tensors.append(replace(own, measured=[replace(anchor, kld=segments), *own.measured[1:]]))
    estimated = [
        replace(tensor, exponent=own.exponent, exponent_sd=own.exponent_sd)
        for tensor, own in zip(estimate(tensors), first.tensors, strict=True)
    ]
    return replace(first, tensors=estimated)


@click.command()
@click.argument("model_path", metavar="MODEL", type=click.Path(path_type=Path, exists=True))
@click.argument("paths", metavar="SENSITIVITY...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--bits", default="3.1,4.3,5.0", show_default=True, help="Bits per weight of tensor data.")
def main(model_path: Path, paths: tuple[Path, ...], bits: str) -> None:
    """How much more damage plans from one chunk have than plans from several, by chunks that neither has seen."""
    if len(paths) < POOLED + 1:
        raise click.UsageError(f"{POOLED} files to pool and one to judge are {POOLED + 1}, not {len(paths)}")
    model, files = open_model(model_path), [result.read(path) for path in paths]
    numbers, source = range(len(files)), {"fingerprint": files[0].fingerprint}
    planners = {
        some: Planner(model, pooled([files[i] for i in some], files[0]), Constraints(), None, source)
        for some in chain(combinations(numbers, 1), combinations(numbers, POOLED))
    }
    for bpw in bits.split(","):
        chosen = {some: planner.plan(parse(f"{bpw}bpw", model)).chosen for some, planner in planners.items()}
        more = []
        for judge in numbers:
            damage = {some: planners[judge,].expected(plan) for some, plan in chosen.items() if judge not in some}
            one, several = (np.mean([d for some, d in damage.items() if len(some) == size]) for size in (1, POOLED))
            more.append(one / several - 1)
        error = np.std(more, ddof=1) / math.sqrt(len(more))
        by_judge = ", ".join(f"{each:+.1%}" for each in more)
        click.echo(f"{bpw} bpw: one chunk costs {np.mean(more):+.1%} ± {error:.1%} more than {POOLED} ({by_judge})")


if __name__ == "__main__":
    main()
