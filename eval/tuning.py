"""The table of docs/tuning.md: models tuned in one type or by a recipe, with the KLD on texts that decided nothing.

    python eval/tuning.py run JOBS.toml -o OUT --device cuda --measure wiki.test.raw --measure other.txt
    python eval/tuning.py table OUT

JOBS.toml lists `[[job]]`s in order of priority, each with `model` (a Hugging Face folder), `type` or `recipe`, and as
they are wanted `tokens`, `batch_tokens`, `own_tokens`, `only_norms`, `window`, `text`, `imatrix`, `start` (paths from
where the command runs). Each writes one line to OUT/rows.jsonl as soon as it is done; what is there already is not done
again.
"""

import json
import time
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from gguf_golf.errors import GolfError
from gguf_golf.quantize.job import Job
from gguf_golf.tune.settings import Settings
from gguf_golf.tune.tune import tune


@click.group()
def tables() -> None:
    """Tune, and make the table."""


@tables.command("run")
@click.argument("jobs", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", type=int)
@click.option("--measure", "measured", type=click.Path(path_type=Path, exists=True), multiple=True)
@click.option("--minutes", type=float, default=float("inf"), help="Begin no job later than that.")
def run(jobs: Path, out: Path, device: str, threads: int | None, measured: tuple[Path, ...], minutes: float) -> None:
    """Do the jobs that have no row yet."""
    begun = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    done = [row["job"] for row in rows(out)]
    for job in tomllib.loads(jobs.read_text(encoding="utf-8"))["job"]:
        if job in done:
            continue
        if time.monotonic() - begun > 60 * minutes:
            click.echo(f"no time is left for {job}")
            return
        click.echo(f"{time.monotonic() - begun:.0f} s: {job}")
        try:
            row = row_of(job, out, device, threads, measured)
        except GolfError as error:
            click.echo(f"failed: {error}")
            continue
        with (out / "rows.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def row_of(
    job: dict[str, Any], out: Path, device: str, threads: int | None, measured: tuple[Path, ...]
) -> dict[str, Any]:
    """Tune as the job says; the row."""
    path = out / "tuned.gguf"
    path.with_name(path.name + ".tune").unlink(missing_ok=True)
    begun = time.monotonic()
    settings = Settings(
        tuple(Path(text) for text in job.get("text", [])),
        measured,
        _path(job.get("start")),
        job.get("window"),
        job.get("tokens", Settings.tokens),
        batch_tokens=job.get("batch_tokens"),
        own_tokens=job.get("own_tokens"),
        only_norms=job.get("only_norms", False),
        device=device,
    )
    tuned = tune(
        Path(job["model"]),
        path,
        recipe=_path(job.get("recipe")),
        type_name=job.get("type"),
        embedding_type="q6_k",
        settings=settings,
        job=Job(_path(job.get("imatrix")), None, device, threads, progress=False, force=True, keep_lattice=False),
        say=lambda words: click.echo(f"  {words}"),
    )
    return {
        "job": job,
        "device": device,
        "bytes": tuned.written.file_bytes,
        "steps": tuned.steps,
        "tokens": tuned.tokens,
        "train_seconds": round(tuned.seconds, 1),
        "all_seconds": round(time.monotonic() - begun, 1),
        "held_out": [tuned.kld_before, tuned.kld],
        "measured": {
            each.text.name: {"before": asdict(each.before), "after": asdict(each.after)} for each in tuned.measured
        },
        "notes": tuned.notes,
    }


@tables.command("table")
@click.argument("out", type=click.Path(path_type=Path, exists=True))
def table(out: Path) -> None:
    """Print the rows as Markdown."""
    every = rows(out)
    texts = list(dict.fromkeys(text for row in every for text in row["measured"]))
    heads = ["model", "type", "MB", "trained", "on", "M tokens", "steps", "seconds", "held-out"]
    heads += [part for text in texts for part in (text, "ratio")]
    click.echo("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for row in every:
        job = row["job"]
        cells = [
            Path(job["model"]).name,
            job.get("type") or Path(job["recipe"]).stem,
            f"{row['bytes'] / 1e6:.1f}",
            "norms" if job.get("only_norms") else "weights, norms",
            ", ".join([Path(text).name for text in job.get("text", [])] + own_text(job)),
            f"{row['tokens'] / 1e6:.2f}",
            str(row["steps"]),
            f"{row['train_seconds']:.0f}",
            "{:.4f} → {:.4f}".format(*row["held_out"]),
        ]
        for text in texts:
            if text not in row["measured"]:
                cells += ["", ""]
                continue
            before, after = (row["measured"][text][when] for when in ("before", "after"))
            cells.append(f"{before['kld']:.4f} → {after['kld']:.4f} ± {after['error']:.4f}")
            cells.append(f"{after['kld'] / before['kld']:.2f}")
        click.echo("| " + " | ".join(cells) + " |")


def own_text(job: dict[str, Any]) -> list[str]:
    """Whether the model wrote some of the text."""
    return ["its own text"] if job.get("own_tokens", not job.get("text")) else []


def rows(out: Path) -> list[dict[str, Any]]:
    """What is measured so far."""
    path = out / "rows.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


if __name__ == "__main__":
    tables()
