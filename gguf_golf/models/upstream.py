"""Every architecture that is not Llama-shaped: through llama.cpp's own converter, from the pinned source.

It needs torch and transformers (the [hf] extra), so it runs as a program of its own, into a full-precision GGUF that is
kept in the cache: the second run on the same checkpoint starts at once.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gguf_golf.errors import InputError
from gguf_golf.models.checkpoint import stored_tensors
from gguf_golf.models.config import Config
from gguf_golf.progress import ProgressBar, announce
from gguf_golf.runtime import pin, source
from gguf_golf.runtime.cache import cache_dir, make_room, mark_used

WITHOUT_VOCAB = Path(__file__).with_name("upstream_without_vocab.py")
INSTALL = (
    "install it with `pip install 'gguf-golf[hf]'` (without a GPU install PyTorch's CPU build first, which is ten "
    "times smaller: PyTorch's installation page says how)"
)


def convert_upstream(config: Config, reason: str, *, vocab: bool = True) -> Path:
    """Convert the checkpoint with llama.cpp's converter, unless that was done before, and return the GGUF.

    `reason` says why this road is taken; without `vocab` the file has no tokenizer. Raises
    InputError where torch is not installed or the converter fails.
    """
    name = f"{config.directory.resolve().name}-{_key(config.directory, vocab=vocab)}.gguf"
    target = cache_dir() / "converted" / name
    if target.is_file():
        mark_used(target)
        return target
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"{reason}: llama.cpp's own converter is needed, and with it {' and '.join(missing)}; {INSTALL}"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as folder:
        made, log = Path(folder) / "model.gguf", target.with_suffix(".log")
        program = [] if vocab else [str(WITHOUT_VOCAB)]
        converter = str(source.source_dir() / "convert_hf_to_gguf.py")
        command = [sys.executable, *program, converter, str(config.directory)]
        status = _run(
            [*command, "--outfile", str(made), "--outtype", _output_type(config)], config.directory, made, log
        )
        if status != 0 or not made.is_file():
            raise InputError(
                f"llama.cpp's converter cannot take {config.directory} ({_last_line(log)}); its output is in {log}"
            )
        made.replace(target)
    log.unlink()
    make_room()
    return target


def _key(directory: Path, *, vocab: bool) -> str:
    """Names the conversion: a hash of the pin and of every file's name, size and time of change."""
    digest = hashlib.sha256(f"{pin.SHA256}{vocab}".encode())
    for path in sorted(path for path in directory.iterdir() if path.is_file()):
        status = path.stat()
        digest.update(f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _output_type(config: Config) -> str:
    """The type that loses nothing; the converter's own "auto" makes F16 of F32 weights."""
    if not any(config.directory.glob("*.safetensors")):
        return "f32"  # what a pickled checkpoint holds is not known before it is loaded
    dtypes = {tensor.dtype for tensor in stored_tensors(config).values() if len(tensor.shape) > 1}
    return "f32" if len(dtypes) > 1 else {"BF16": "bf16", "F16": "f16"}.get(dtypes.pop() if dtypes else "", "f32")


def _run(command: list[str], directory: Path, made: Path, log: Path) -> int:
    """Run the converter with its output in `log`; the bar follows the size of the file that it writes."""
    weights = sum(path.stat().st_size for path in directory.iterdir() if path.suffix in (".safetensors", ".bin"))
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}  # the source in the cache stays as it is
    announce(f"converting {directory.name}")
    with (
        log.open("wb") as output,
        ProgressBar(desc=f"converting {directory.name}", total=weights, unit="B", unit_scale=True) as bar,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env) as process,
    ):
        while process.poll() is None:
            time.sleep(0.2)
            if made.is_file() and (written := made.stat().st_size) > bar.n:
                bar.update(written - bar.n)
    return process.returncode


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing"
