"""Question: does `gguf-golf fit`, killed at any step and started again, end with the same bytes?

Runs it once undisturbed, and once killed (SIGKILL) a while after each of several signs of progress appears; prints the
times and both files' SHA-256.

    python eval/experiments/kill_and_resume.py ../shared/models/golf-88m ../shared/data/wikitext-2 OUT --budget 41MB
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from gguf_golf.models.hashing import file_sha256

# In the order in which they appear: convert, calibrate, rank (early and late), quantize, evaluate.
SIGNS = (
    "gguf-golf-work/*/base.gguf.partial",
    "gguf-golf-work/*/base.gguf",
    "gguf-golf-work/*/imatrix.gguf",
    "gguf-golf-work/*/sensitivity.json.journal",
    "*.gguf.partial",
    "*.gguf",
)


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.argument("wikitext", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--budget", default="41MB", show_default=True)
@click.option("--feedback", is_flag=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--wait", default=3.0, show_default=True, help="Seconds from a sign to the kill.")
def main(model: Path, wikitext: Path, out: Path, budget: str, feedback: bool, threads: int, wait: float) -> None:
    """Fit in OUT/whole and, killed again and again, in OUT/killed; exit 1 unless both files are the same."""

    def command(folder: Path) -> list[str]:
        folder.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-c", "from gguf_golf.cli import main; main()", "fit", str(model), "--budget", budget]
        words += ["--text", str(wikitext / "wiki.valid.raw"), "--eval-text", str(wikitext / "wiki.test.raw")]
        words += ["--threads", str(threads), "-o", str(folder / "out.gguf")]
        return [*words, "--feedback"] if feedback else words

    began = time.monotonic()
    subprocess.run(command(out / "whole"), check=True)
    print(f"undisturbed: {time.monotonic() - began:.0f} s")
    began, folder = time.monotonic(), out / "killed"
    for sign in SIGNS:
        process = subprocess.Popen(command(folder))
        while process.poll() is None and not any(folder.glob(sign)):
            time.sleep(0.05)
        time.sleep(wait)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            print(f"\nkilled {wait:g} s after {sign} appeared, {time.monotonic() - began:.0f} s in all", flush=True)
        process.wait()
    subprocess.run(command(folder), check=True)
    print(f"killed {len(SIGNS)} times: {time.monotonic() - began:.0f} s in all")
    hashes = [file_sha256(out / name / "out.gguf") for name in ("whole", "killed")]
    print("\n".join(hashes))
    if hashes[0] != hashes[1]:
        raise click.ClickException("the files differ")


if __name__ == "__main__":
    main()
