"""The data that suites measure on: where each set comes from, under which licence, and the hashes of its files.

A suite names a file as "data:NAME/FILE". `gguf-golf data fetch NAME` downloads a set, or takes a copy that is already
here, into the data folder; nothing is used whose hash differs.
"""

import hashlib
import io
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gguf_golf.errors import InputError, did_you_mean
from gguf_golf.files import named_errors, sync
from gguf_golf.runtime.cache import cache_dir

PREFIX = "data:"
LIMIT = 1 << 30
"""Bytes beyond which a download is not what it should be."""


@dataclass(frozen=True)
class DataSet:
    """One set. `files` maps its files to their SHA-256; a folder has that of the lines "SHA256  NAME" of its files.

    `urls` says where each file comes from, as it is or as the member of a zip archive ("URL#MEMBER"); a set without
    them has to be converted by hand, and `note` says how.
    """

    what: str
    licence: str
    files: Mapping[str, str]
    urls: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


_WIKITEXT = "https://huggingface.co/datasets/ggml-org/ci/resolve/main/wikitext-2-raw-v1.zip#wikitext-2-raw/"

DATASETS: dict[str, DataSet] = {
    "wikitext-2": DataSet(
        "WikiText-2 raw, test and validation text",
        "CC BY-SA 3.0 and GFDL",
        {
            "wiki.test.raw": "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08",
            "wiki.valid.raw": "4cd0f6876d07a413aa911261ff6d363c72d757d47f0fdd6015702014c89cb9c7",
        },
        {name: _WIKITEXT + name for name in ("wiki.test.raw", "wiki.valid.raw")},
    ),
    "hellaswag": DataSet(
        "HellaSwag, validation questions",
        "MIT",
        {"hellaswag_val_full.txt": "d572539320eb2050e858ca34b495bbe2103e3b3f1391a9c3bcdf215b0bb93bd1"},
        {
            "hellaswag_val_full.txt": (
                "https://raw.githubusercontent.com/klosax/hellaswag_text_data/main/hellaswag_val_full.txt"
            )
        },
    ),
    "piqa": DataSet(
        "PIQA, validation questions and their labels",
        "the authors' terms (yonatanbisk.com/piqa)",
        {
            "valid.jsonl": "93503cc97c679e459b065c3d13e848282e44b2a25213985bed3e5d458abef72d",
            "valid-labels.lst": "b4192dc3a2a0363d9d60ccf79800cbbe2f32ebb17726efdde6970e0b8131bceb",
        },
        {name: f"https://yonatanbisk.com/piqa/data/{name}" for name in ("valid.jsonl", "valid-labels.lst")},
    ),
    "lambada": DataSet(
        "LAMBADA, OpenAI's test file",
        "MIT, as published with GPT-2",
        {"lambada_test.jsonl": "4aa8d02cd17c719165fc8a7887fddd641f43fcafa4b1c806ca8abc31fabdb226"},
        {"lambada_test.jsonl": "https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl"},
    ),
    "gpqa": DataSet(
        "GPQA; its authors ask that no question appears in plain text",
        "CC BY 4.0",
        {
            "dataset.zip": "461ae7329f15a3e35f8184d2dac24b990f34fdf12f366ca4062d8e6638cd08dc",
            "README.md": "543e4d4550b90627b30f8adb93e39d24d2909bc6d5fc5109e576c9b0383e2a2e",  # has the password
        },
        {name: f"https://github.com/idavidrein/gpqa/raw/main/{name}" for name in ("dataset.zip", "README.md")},
    ),
    "mmlu": DataSet(
        "MMLU, test and dev questions, one CSV per subject",
        "MIT",
        {
            "test": "dc9f1087a5aaddee37e8c99147726202d55255b5b5d2aab850ab720821a64c62",
            "dev": "3fe1b6a90e40013ca35477271213371d297b983b6f97df52a21318e9dc8cb47c",
        },
        note="convert the authors' files to CSV with the header question,choice0,choice1,choice2,choice3,answer",
    ),
}


def data_dir() -> Path:
    """Where fetched sets are kept, one folder each."""
    return cache_dir() / "data"


def find(name: str) -> Path:
    """The file or folder that a suite names "data:`name`". Raises InputError with the command that fetches it."""
    set_name, _, file = name.partition("/")
    dataset = _named(set_name)
    if file not in dataset.files:
        raise InputError(f"data:{name}: {set_name} has {', '.join(dataset.files)}{did_you_mean(file, dataset.files)}")
    path = data_dir() / set_name / file
    if not path.exists():
        raise InputError(f"{PREFIX}{name} is not here yet: run `gguf-golf data fetch {set_name}`")
    return path


def is_here(name: str) -> bool:
    """Whether every file of a set has been fetched."""
    return all((data_dir() / name / file).exists() for file in DATASETS[name].files)


def fetch(name: str, source: Path | None = None) -> Path:
    """Put a set into the data folder, from its origin or from a folder `source` that holds its files.

    Returns the set's folder. Raises InputError for a download that fails or has another hash.
    """
    dataset = _named(name)
    folder = data_dir() / name
    if source is None and not dataset.urls:
        raise InputError(
            f"{name} cannot be downloaded as it is: {dataset.note}; then `data fetch {name} --from FOLDER`"
        )
    with named_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for file, digest in dataset.files.items():
            with tempfile.TemporaryDirectory(dir=folder, prefix=".") as aside:
                made = Path(aside) / file
                _bring(dataset, file, source, made)
                if (found := tree_sha256(made)) != digest:
                    raise InputError(
                        f"{file} of {name} has SHA-256 {found[:12]}..., not {digest[:12]}...: it is not the file that "
                        "results elsewhere are measured on; nothing was kept"
                    )
                target = folder / file
                if target.is_dir():
                    shutil.rmtree(target)
                made.replace(target)
            sync(folder)
    return folder


def tree_sha256(path: Path) -> str:
    """The SHA-256 of a file, or of a folder's lines "SHA256  NAME", by name."""
    if not path.is_dir():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = [f"{tree_sha256(file)}  {file.relative_to(path).as_posix()}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _bring(dataset: DataSet, file: str, source: Path | None, target: Path) -> None:
    if source is None:
        target.write_bytes(_download(dataset.urls[file]))
        return
    given = source / file
    if given.is_dir():
        shutil.copytree(given, target)
    elif given.is_file():
        shutil.copyfile(given, target)
    else:
        raise InputError(f"{source} has no {file}: --from takes a folder with {', '.join(dataset.files)}")


def _download(url: str) -> bytes:
    address, _, member = url.partition("#")
    try:
        with urllib.request.urlopen(address, timeout=60) as response:
            data = response.read(LIMIT)
        return zipfile.ZipFile(io.BytesIO(data)).read(member) if member else bytes(data)
    except (OSError, urllib.error.URLError, zipfile.BadZipFile, KeyError) as error:
        raise InputError(
            f"{address} cannot be downloaded ({error}): get it where the network is, and use --from FOLDER"
        ) from error


def _named(name: str) -> DataSet:
    if name not in DATASETS:
        raise InputError(f"there is no data set {name!r}{did_you_mean(name, DATASETS)}")
    return DATASETS[name]
