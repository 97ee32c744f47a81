"""`gguf-golf publish`: a folder of GGUFs and results laid out as a repository: card, parts, checksums, report."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gguf_golf.errors import InputError
from gguf_golf.evaluate.results import SCHEMA
from gguf_golf.files import PART_NAME, write_text
from gguf_golf.models.gguf_file import split_parts
from gguf_golf.models.hashing import file_sha256
from gguf_golf.publish.card import CARD_MARK, About, Published, card
from gguf_golf.publish.split import split
from gguf_golf.quantize.inspect import Inspected, inspect
from gguf_golf.report.page import write_report

OUT_NAME = "repository"
DEFAULT_SPLIT = "45GB"
"""The hub takes files of up to 50 GB."""


@dataclass(frozen=True)
class Repository:
    """What was laid out: the folder, its files by name with their sizes, and what a publisher should know."""

    folder: Path
    files: dict[str, int]
    notes: list[str]


def lay_out(
    folder: Path, out: Path, about: About, *, split_bytes: int, say: Callable[[str], None] = lambda words: None
) -> Repository:
    """Lay out `out` from the GGUFs and results JSON of `folder`; files are linked where the disk allows, else copied.

    Full-precision files and imatrices in `folder` are left out unless they are the only ones. Raises InputError if
    there is nothing to publish, or `out` holds files that are not an earlier layout's.
    """
    models = [(path, inspect(path)) for path in sorted(folder.glob("*.gguf")) if _is_model(path)]
    quantized = [(path, found) for path, found in models if not _is_plain(found)]
    chosen = quantized or models
    if not chosen:
        raise InputError(f"{folder} holds no GGUF model to publish; name the folder that `gguf-golf sweep -o` wrote")
    _empty(out)
    results = _results(folder)
    published, notes = [], []
    for path, found in chosen:
        size = path.stat().st_size
        if size > split_bytes and not PART_NAME.fullmatch(path.name):
            say(f"splitting {path.name}")
            names = [part.name for part in split(path, out, split_bytes)]
        else:
            names = [part.name for part in split_parts(path)]
            for name in names:
                _link(path.with_name(name), out / name)
        published.append(Published(found, names, [file_sha256(out / name) for name in names]))
    for path in sorted(folder.glob("*imatrix*.gguf")):
        _link(path, out / path.name)
    verdict = None
    if results:
        verdict = write_report(results, out / "report.html", csv=out / "table.csv")
        for path in results:
            _link(path, out / path.name)
    else:
        notes.append(f"no results in {folder}: the card says nothing about quality (gguf-golf eval --json)")
    if about.license is None:
        notes.append("no licence: pass --license, or the hub shows none")
    if about.base_model is None:
        notes.append("no base model: pass --base-model, or nobody finds this by the original's page")
    write_text(out / "README.md", card(published, about, results, verdict), mark=CARD_MARK)
    sums = [f"{digest}  {name}" for each in published for name, digest in zip(each.names, each.sha256, strict=True)]
    write_text(out / "SHA256SUMS", "\n".join(sums) + "\n")
    sizes = {path.name: path.stat().st_size for path in sorted(out.iterdir()) if path.is_file()}
    return Repository(out, sizes, notes)


def upload(repository: Repository, repo: str, *, private: bool) -> str:
    """Upload a layout to the hub under `repo` (ORGANIZATION/NAME); returns its address.

    Raises InputError where huggingface_hub is missing, nobody is logged in, or the hub refuses.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
    except ImportError:
        raise InputError("uploading needs `pip install 'gguf-golf[hub]'`; --dry-run lays out without it") from None
    try:
        api = HfApi()
        address = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=repository.folder)
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{repo}: the hub refuses ({reason}); log in with `hf auth login`") from error
    return str(address)


def _is_model(path: Path) -> bool:
    part = PART_NAME.fullmatch(path.name)
    return "imatrix" not in path.name and "hessian" not in path.name and (part is None or int(part["part"]) == 1)


def _is_plain(found: Inspected) -> bool:
    return {share.type for share in found.types} <= {"f32", "f16", "bf16"}


def _results(folder: Path) -> list[Path]:
    """The results files of the folder: JSON that names our schema near its start."""
    return [path for path in sorted(folder.glob("*.json")) if SCHEMA.encode() in path.open("rb").read(200)]


def _empty(out: Path) -> None:
    """Make an empty folder of `out`; only a layout of ours, or nothing, may be there."""
    if out.exists():
        readme = out / "README.md"
        if any(out.iterdir()) and not (readme.is_file() and CARD_MARK in readme.read_bytes()):
            raise InputError(f"{out} is not empty and was not laid out by gguf-golf publish: name another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True)


def _link(source: Path, target: Path) -> None:
    """A second name for a file, or a copy on another disk."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
