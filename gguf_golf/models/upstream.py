"""Every architecture that gguf-golf does not read itself: through llama.cpp's own converter, from the pinned source.

It needs torch and transformers (the [hf] extra), so it runs as a program of its own, into a full-precision GGUF that is
kept in the cache: the second run on the same checkpoint starts at once.
"""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gguf_golf.errors import InputError
from gguf_golf.models.checkpoint import stored_tensors, weight_files
from gguf_golf.models.config import Config, read_optional_json
from gguf_golf.models.upstream_config import adapted_config
from gguf_golf.progress import ProgressBar, announce
from gguf_golf.runtime import pin, source
from gguf_golf.runtime.cache import cache_dir, make_room, mark_used

PROGRAM = Path(__file__).with_name("upstream_run.py")
INSTALL = (
    "install it with `pip install 'gguf-golf[hf]'` (without a GPU install PyTorch's CPU build first, which is ten "
    "times smaller: PyTorch's installation page says how)"
)
CODE_FILES = ("config.json", "tokenizer_config.json")
NOISE = ("This GGUF file is for Little Endian only", "Duplicated key name", "Unknown RoPE type: default")
MAX_WARNINGS = 8


def convert_upstream(config: Config, reason: str, *, vocab: bool = True, trust_remote_code: bool = False) -> Path:
    """Convert the checkpoint with llama.cpp's converter, unless that was done before, and return the GGUF.

    `reason` says why this road is taken; without `vocab` the file has no tokenizer. The converter's warnings go into
    the config's notes. Raises InputError where torch is not installed, the checkpoint's own code would run and may not,
    or the converter fails.
    """
    values = adapted_config(config)
    name = f"{config.directory.resolve().name}-{_key(config.directory, values, vocab=vocab)}.gguf"
    target = cache_dir() / "converted" / name
    log = target.with_suffix(".log")
    if target.is_file():
        mark_used(target)
    else:
        _check_code(config.directory, trust_remote_code)
        if missing := [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]:
            raise InputError(
                f"{reason}: llama.cpp's own converter is needed, and with it {' and '.join(missing)}; {INSTALL}"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        settings = json.dumps({"vocab": vocab, "trust_remote_code": trust_remote_code})
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as folder:
            made, staged = Path(folder) / "model.gguf", Path(folder) / config.directory.resolve().name
            _stage(config, values, staged)
            script = str(source.source_dir() / "convert_hf_to_gguf.py")
            command = [sys.executable, str(PROGRAM), script, settings, str(staged)]
            status = _run([*command, "--outfile", str(made), "--outtype", _output_type(config)], staged, made, log)
            if status != 0 or not made.is_file():
                raise InputError(
                    f"llama.cpp's converter, which is needed because {reason}, cannot take {config.directory} "
                    f"({_reason(log)}); its output is in {log}"
                )
            made.replace(target)
        make_room()
    config.note(f"converted by llama.cpp's own converter, since {reason}")
    for warning in _warnings(log)[:MAX_WARNINGS]:
        config.note(f"llama.cpp's converter: {warning}")
    return target


def _check_code(directory: Path, trust_remote_code: bool) -> None:
    named = [name for name in CODE_FILES if "auto_map" in read_optional_json(directory / name)]
    if named and not trust_remote_code:
        raise InputError(
            f"{directory} brings its own Python code (auto_map in {' and '.join(named)}), which llama.cpp's converter "
            "may run: read that code, then convert with --trust-remote-code (gguf-golf convert); or remove auto_map if "
            "transformers knows the model"
        )


def _stage(config: Config, values: dict[str, object], folder: Path) -> None:
    """A folder of links to the checkpoint's files: the adapted config.json, and only the weights that are the model."""
    folder.mkdir()
    safetensors = set(config.directory.glob("*.safetensors")) | set(config.directory.glob("*.safetensors.index.json"))
    weights = set(weight_files(config)) if safetensors else set()
    if len(weights) > 1:
        weights |= set(config.directory.glob("*.safetensors.index.json"))
    for path in config.directory.iterdir():
        if path.name != "config.json" and (path not in safetensors or path in weights):
            (folder / path.name).symlink_to(path.resolve())
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")


def _key(directory: Path, values: dict[str, object], *, vocab: bool) -> str:
    """Names the conversion: a hash of the pin, this code, and of every file's name, size and time of change."""
    digest = hashlib.sha256(f"{pin.SHA256}{vocab}{json.dumps(values)}".encode())
    digest.update(PROGRAM.read_bytes())
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


def _lines(log: Path) -> list[str]:
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def _reason(log: Path) -> str:
    """The exception that ended the converter, or the last error that it logged; other lines are progress."""
    lines = _lines(log)
    raised = [line for line in lines if re.match(r"[A-Za-z_.]*(Error|Exception|Exit|Interrupt)\b", line)]
    logged = [line.split(":", 2)[-1] for line in lines if line.startswith(("ERROR:", "CRITICAL:"))]
    return (raised or logged or lines or ["it says nothing"])[-1].strip()


def _warnings(log: Path) -> list[str]:
    """What the converter warned of, each once."""
    found = [line.split(":", 2)[-1].strip(" *") for line in _lines(log) if line.startswith("WARNING:")]
    return [text for text in dict.fromkeys(found) if text and not any(noise in text for noise in NOISE)]
