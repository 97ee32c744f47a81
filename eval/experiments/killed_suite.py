"""Question: does a suite that is killed again and again end with the same results as one that is left alone?

    python eval/experiments/killed_suite.py eval/suites/short.toml OUT BASE.gguf QUANT.gguf...

Runs the suite undisturbed and, with an empty cache of its own, killed (SIGKILL) at even steps of the time that the
first run took; exit 1 unless both results files are the same, byte for byte. The suite must not measure speed.
"""

import subprocess
import sys
import time
from pathlib import Path

import click

from gguf_golf.models.hashing import file_sha256

PROGRAM = """
import sys
from pathlib import Path
from gguf_golf.cli import main
from gguf_golf.evaluate import evaluate
evaluate.cache_dir = lambda: Path("cache")
main()
"""


@click.command()
@click.argument("suite", type=click.Path(path_type=Path, exists=True, resolve_path=True))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, resolve_path=True))
@click.option("--kills", default=3, show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(suite: Path, out: Path, models: tuple[Path, ...], kills: int, threads: int) -> None:
    """Run SUITE on MODELS (the base first) in OUT/whole, and killed in OUT/killed."""
    words = ["eval", "--suite", str(suite), *map(str, models), "--threads", str(threads), "--json", "results.json"]

    def begin(name: str) -> subprocess.Popen[bytes]:
        (out / name).mkdir(parents=True, exist_ok=True)
        return subprocess.Popen([sys.executable, "-c", PROGRAM, *words], cwd=out / name, stdout=subprocess.DEVNULL)

    started = time.monotonic()
    if begin("whole").wait() != 0:
        raise click.ClickException("the undisturbed run failed")
    whole = time.monotonic() - started
    print(f"\nundisturbed: {whole:.0f} s")
    started = time.monotonic()
    for _ in range(kills):
        process = begin("killed")
        try:
            process.wait(whole / (kills + 1))
            print("\nended before it was killed")
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            print(f"\nkilled, {time.monotonic() - started:.0f} s in all", flush=True)
    if begin("killed").wait() != 0:
        raise click.ClickException("the resumed run failed")
    print(f"\nkilled {kills} times: {time.monotonic() - started:.0f} s in all")
    hashes = [file_sha256(out / name / "results.json") for name in ("whole", "killed")]
    print("\n".join(hashes))
    if hashes[0] != hashes[1]:
        raise click.ClickException("the results differ")


if __name__ == "__main__":
    main()
