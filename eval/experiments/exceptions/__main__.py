"""Run the experiments on exceptions beside the weight: docs/byte-roi.md says what they ask and what they found.

    python -m eval.experiments.exceptions ../shared/models/golf-88m ../shared/data -o OUT --device cuda

DATA holds wikitext-2/wiki.valid.raw (calibration and ranking), wikitext-2/wiki.test.raw and, as the second domain,
choices/lambada/lambada_test.jsonl (both for judging alone). OUT/MODEL-SEED.jsonl is the journal of finished cells: a
run that was cut off goes on where it ended. Cells are made by priority, so that a short run answers every question.
"""

import itertools
import json
import time
import traceback
from pathlib import Path

import click
import torch

from gguf_golf.encode import open_encoder
from gguf_golf.errors import BuildError
from gguf_golf.journal import open_journal
from gguf_golf.threads import resolve

from . import absorbing, axes, codebooks, ranks, reference, rotation, rows, slots, sweep, trained, tuned, vocabulary
from .bench import Bench, Judge
from .storage import Storage
from .subject import Texts, load

EXPERIMENTS = {
    module.EXPERIMENT: module
    for module in (
        reference,
        rows,
        absorbing,
        sweep,
        codebooks,
        rotation,
        vocabulary,
        slots,
        ranks,
        axes,
        tuned,
        trained,
    )
}
"""Each declares its `cells`."""

ALL_CHUNKS = 10**6


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True)
@click.option("--only", default=",".join(EXPERIMENTS), show_default=True, help="Which experiments, comma-separated.")
@click.option("--device", default="cpu", show_default=True, help="Of PyTorch, and of the encoder where it has one.")
@click.option("--threads", type=int, help="Default: all cores.")
@click.option("--calibration", default=48, show_default=True, help="Chunks of wiki.valid for Hessians and gradients.")
@click.option("--ranking", default=4, show_default=True, help="Chunks of wiki.valid that rank tensors.")
@click.option("--chunks", default=24, show_default=True, help="Chunks of wiki.test to judge on.")
@click.option("--second", default=8, show_default=True, help="Chunks of the second domain to judge on.")
@click.option("--minutes", default=1e6, help="Stop after so many.")
@click.option("--limit", default=10**6, help="The first so many cells of each experiment.")
@click.option("--priority", default=2, show_default=True, help="The last that is made: 0 is a row for each mechanism.")
@click.option("--seed", default=0, show_default=True, help="Of random choices and of the calibration text.")
def main(
    model: Path,
    data: Path,
    out: Path,
    only: str,
    device: str,
    threads: int | None,
    calibration: int,
    ranking: int,
    chunks: int,
    second: int,
    minutes: float,
    limit: int,
    priority: int,
    seed: int,
) -> None:
    """Run experiments on one model, a transformers folder or a GGUF of a type that transformers dequantizes."""
    ends = time.monotonic() + 60 * minutes
    torch.set_num_threads(resolve(threads))
    name = model.name.removesuffix(".gguf")
    settings = {"calibration": calibration, "ranking": ranking, "chunks": chunks, "second": second, "seed": seed}
    valid, test = data / "wikitext-2" / "wiki.valid.raw", data / "wikitext-2" / "wiki.test.raw"
    try:
        encoder = open_encoder(device, threads)
    except BuildError as error:
        click.echo(f"encoding on the CPU: {error}")
        encoder = open_encoder("cpu", threads)
    texts = Texts(model, device)
    first = seed * (calibration + ranking)
    training = texts.chunks(valid, calibration, first)
    subject = load(model, device, training, seed)
    judges = {
        "wiki": Judge(subject, texts.chunks(test, chunks)),
        "second": Judge(subject, texts.chunks_of(_passages(data), second)),
    }
    ranked = Judge(subject, texts.chunks(valid, ranking, first + calibration))
    corpus = torch.cat([training, texts.chunks(valid, ALL_CHUNKS, first + calibration + ranking)])
    out.mkdir(parents=True, exist_ok=True)
    with open_journal(out / f"{name}-{seed}.jsonl", {"model": name, **settings}) as journal:
        bench = Bench(name, subject, Storage(encoder, device), judges, ranked, journal, training, corpus, seed)
        failed = 0
        wanted = only.split(",")
        cells = [cell for name in wanted for cell in itertools.islice(EXPERIMENTS[name].cells(), limit)]
        for cell in sorted(cells, key=lambda cell: cell.priority):
            if cell.priority > priority:
                break
            if time.monotonic() > ends:
                click.echo("out of time")
                break
            try:
                bench.judge(cell)
            except Exception:  # one mechanism that fails must not cost the others their run
                traceback.print_exc()
                failed += 1
    if failed:
        raise click.ClickException(f"{failed} cells failed, as said above")


def _passages(data: Path) -> str:
    """LAMBADA's passages as one text."""
    lines = (data / "choices" / "lambada" / "lambada_test.jsonl").read_text(encoding="utf-8").splitlines()
    return "\n\n".join(json.loads(line)["text"] for line in lines[:1000])


if __name__ == "__main__":
    main()
