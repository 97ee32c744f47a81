"""Question: does error feedback that was calibrated on one kind of text pay on another?

A model in one type, without and with error feedback, measured on several texts: KL divergence of the files, in nats.
Both use the calibration of `ladder.py` (OUT/NAME): importance from wiki.valid, or, with feedback, importance and
Hessians from wiki.valid and the text that comes with gguf-golf.

    python eval/experiments/feedback_domains.py OUT/golf-88m TEXT... --type tcq2

A TEXT that ends in .jsonl has one passage in the key "text" of each line (LAMBADA's).
"""

import json
import tempfile
from pathlib import Path

import click

from gguf_golf.evaluate.evaluate import evaluate
from gguf_golf.evaluate.on_text import TextSettings
from gguf_golf.quantize.convert import convert
from gguf_golf.quantize.job import Job


def plain_text(path: Path, folder: Path) -> Path:
    """The text itself, or the passages of a .jsonl as one text."""
    if path.suffix != ".jsonl":
        return path
    passages = (json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines())
    made = folder / f"{path.stem}.txt"
    made.write_text("\n\n".join(passages), encoding="utf-8")
    return made


@click.command()
@click.argument("case", type=click.Path(path_type=Path, exists=True))
@click.argument("texts", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--type", "type_name", default="tcq2", show_default=True)
@click.option("--chunks", default=40, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(
    case: Path, texts: tuple[Path, ...], type_name: str, chunks: int, device: str, threads: int, json_path: Path | None
) -> None:
    """Print a row for each text."""
    base = case / "base.gguf"
    jobs = {
        "plain": Job(case / "imatrix.gguf", device=device, threads=threads, progress=False),
        "feedback": Job(case / "mixed-imatrix.gguf", case / "hessian.gguf", device, threads, progress=False),
    }
    rows = []
    with tempfile.TemporaryDirectory(dir=case) as folder:
        files = [Path(folder) / f"{name}.gguf" for name in jobs]
        for path, job in zip(files, jobs.values(), strict=True):
            convert(base, path, type_name=type_name, job=job)
        print("| text | PPL of the original | KLD without | with feedback | less |\n|---|---|---|---|---|")
        for given in texts:
            text = TextSettings(plain_text(given, Path(folder)), n_chunks=chunks)
            original, *measured = (result.measures for result in evaluate(base, files, text, threads=threads))
            without, fed = ((m.kld_mean, m.kld_se) for m in measured)
            rows.append({"text": given.name, "base ppl": original.ppl, "plain": without, "feedback": fed})
            cells = [f"{kld:.4f} ± {kld_se:.4f}" for kld, kld_se in (without, fed)]
            less = f"{100 * (1 - fed[0] / without[0]):.0f}%"
            print(f"| {' | '.join([given.name, f'{original.ppl:.1f}', *cells, less])} |", flush=True)
    if json_path is not None:
        json_path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
