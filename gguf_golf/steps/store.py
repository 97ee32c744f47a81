"""Where outputs of steps lie, by content hash, and which step made which: a folder, or any URL that fsspec knows.

    objects/SHA256       an output, or an input that not every machine sees
    steps/KEY.json       the output of the step with this key: its hash, its size, who made it in how many seconds

A file appears whole or not at all, and the record of a step only after its output.
"""

import hashlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from gguf_golf import files
from gguf_golf.errors import DataError, InputError
from gguf_golf.models.hashing import BLOCK, file_sha256
from gguf_golf.runtime.cache import cache_dir
from gguf_golf.steps.step import File


@dataclass(frozen=True)
class Made:
    """The record of a finished step: its output's hash and bytes, the machine that made it, and seconds of work."""

    sha256: str
    bytes: int
    host: str
    seconds: float


class Store(Protocol):
    """What keeps outputs. `url` is what a worker opens the same one with."""

    url: str

    def find(self, key: str) -> Made | None:
        """The record of a step that has finished and whose output is there."""
        ...

    def put(self, key: str, parts: Iterable[Any], seconds: "Stopwatch") -> Made:
        """Keep the output of a step, and then its record."""
        ...

    def publish(self, file: File) -> None:
        """Make an input available to machines that do not see it."""
        ...

    def fetch(self, sha256: str) -> Path | None:
        """The object as a local file that can be mapped; None if the store has none of this hash."""
        ...

    def forget(self, key: str) -> None:
        """Drop the output of a step that nobody will ask for again, and its record."""
        ...


class Stopwatch(Protocol):
    def __call__(self) -> float:
        """Seconds since the step began."""
        ...


def open_store(place: str | Path) -> Store:
    """A folder, or a URL such as s3://bucket/prefix, which takes fsspec and its package for that protocol.

    Raises InputError for a place that cannot be written to, and for a protocol that is not known or installed.
    """
    text = str(place)
    if "://" in text and not text.startswith("file://"):
        return UrlStore(text)
    folder = Path(text.removeprefix("file://")).resolve()
    files.check_output(folder / "objects" / "new")
    return FolderStore(folder)


class FolderStore:
    """A folder that every machine sees under the same path."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder, str(folder)

    def find(self, key: str) -> Made | None:
        """See `Store.find`."""
        try:
            made = Made(**json.loads(self._record(key).read_bytes()))
            is_whole = self._object(made.sha256).stat().st_size == made.bytes
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return made if is_whole else None

    def put(self, key: str, parts: Iterable[Any], seconds: Stopwatch) -> Made:
        """See `Store.put`."""
        digest, size = hashlib.sha256(), 0
        with self._new("objects", key) as partial:
            with partial.open("wb") as file:
                for part in parts:
                    data = memoryview(part).cast("B")
                    file.write(data)
                    digest.update(data)
                    size += len(data)
            files.sync(partial)
            os.replace(partial, self._object(digest.hexdigest()))
        made = Made(digest.hexdigest(), size, socket.gethostname(), round(seconds(), 3))
        with self._new("steps", key) as partial:
            partial.write_text(json.dumps(asdict(made)))
            os.replace(partial, self._record(key))
        return made

    def publish(self, file: File) -> None:
        """Nothing: a machine that sees this folder is taken to see the inputs too."""

    def add(self, path: Path, sha256: str) -> None:
        """Take over a local file, which has this hash."""
        self._object(sha256).parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, self._object(sha256))

    def fetch(self, sha256: str) -> Path | None:
        """See `Store.fetch`."""
        path = self._object(sha256)
        return path if path.is_file() else None

    def forget(self, key: str) -> None:
        """See `Store.forget`. Another step may have made the same object: it is made again then.

        What a killed worker had written of it goes, too.
        """
        made = self.find(key)
        self._record(key).unlink(missing_ok=True)
        if made is not None:
            self._object(made.sha256).unlink(missing_ok=True)
        for partial in self.folder.glob(f"*/.{key}.*"):
            partial.unlink(missing_ok=True)

    @contextmanager
    def _new(self, kind: str, key: str) -> Iterator[Path]:
        """A name to write to, that nothing else uses; it is gone at the end, if it has not been renamed."""
        folder = self.folder / kind
        partial = folder / f".{key}.{uuid.uuid4().hex}"
        with files.named_errors(folder, partial):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                yield partial
            finally:
                partial.unlink(missing_ok=True)

    def _object(self, sha256: str) -> Path:
        return self.folder / "objects" / sha256

    def _record(self, key: str) -> Path:
        return self.folder / "steps" / f"{key}.json"


class UrlStore:
    """An object store, with what was read of it in the cache folder of this machine.

    Whatever it cannot do (no permission, no such bucket, no network) is an InputError with the store's own words.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            import fsspec

            with self._named():
                self._fs, self._root = fsspec.core.url_to_fs(self.url)
        except ImportError:
            raise InputError(f"the store {url} takes an extra: pip install 'gguf-golf[store]'") from None
        self._here = FolderStore(cache_dir() / "fetched" / hashlib.sha256(self.url.encode()).hexdigest()[:16])
        with self._named():  # not with the first result, hours from now
            for kind in ("objects", "steps"):
                self._fs.makedirs(f"{self._root}/{kind}", exist_ok=True)
            test = f"{self._root}/.{uuid.uuid4().hex}"
            self._fs.pipe_file(test, b"may be deleted")
            self._fs.rm_file(test)

    def find(self, key: str) -> Made | None:
        """See `Store.find`."""
        with self._named():
            try:
                made = Made(**json.loads(self._fs.cat_file(f"{self._root}/steps/{key}.json")))
            except (FileNotFoundError, TypeError, json.JSONDecodeError):
                return None
            return made if self._fs.exists(f"{self._root}/objects/{made.sha256}") else None

    def put(self, key: str, parts: Iterable[Any], seconds: Stopwatch) -> Made:
        """See `Store.put`."""
        made = self._here.put(key, parts, seconds)
        local = self._here.fetch(made.sha256)
        assert local is not None
        self._upload(local, f"{self._root}/objects/{made.sha256}")
        with self._named():
            self._fs.pipe_file(f"{self._root}/steps/{key}.json", json.dumps(asdict(made)).encode())
        self._here.forget(key)
        return made

    def publish(self, file: File) -> None:
        """See `Store.publish`."""
        target = f"{self._root}/objects/{file.sha256}"
        with self._named():
            there = self._fs.exists(target)
        if not there:
            self._upload(file.path, target)

    def fetch(self, sha256: str) -> Path | None:
        """See `Store.fetch`. Raises DataError for bytes with another hash."""
        here = self._here.fetch(sha256)
        if here is not None:
            return here
        partial = self._here.folder / f".{uuid.uuid4().hex}"
        partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._named():
                try:
                    self._fs.get_file(f"{self._root}/objects/{sha256}", str(partial))
                except FileNotFoundError:
                    return None
            if file_sha256(partial) != sha256:
                raise DataError(f"{self.url}/objects/{sha256} holds other bytes: delete it, and run again")
            self._here.add(partial, sha256)
        finally:
            partial.unlink(missing_ok=True)
        return self._here.fetch(sha256)

    def forget(self, key: str) -> None:
        """See `Store.forget`."""
        made = self.find(key)
        with self._named():
            for name in [f"steps/{key}.json", *([] if made is None else [f"objects/{made.sha256}"])]:
                if self._fs.exists(f"{self._root}/{name}"):
                    self._fs.rm_file(f"{self._root}/{name}")

    def _upload(self, local: Path, target: str) -> None:
        """A reader of half a file finds another hash; records come after what they speak of."""
        with local.open("rb") as source, self._named(), self._fs.open(target, "wb") as sink:
            shutil.copyfileobj(source, sink, BLOCK)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors within the block are the store's."""
        try:
            yield
        except Exception as error:  # of any kind: each protocol's package has its own
            raise InputError(
                f"the store {self.url}: {error or type(error).__name__}; check the address, this machine's "
                "credentials for it, and that the protocol's package is installed on every machine"
            ) from error
