"""What `convert` and `quantize` share: how to encode, and what may be taken as a source."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gguf_golf import __version__
from gguf_golf.encode import Encoder, Guide, open_encoder
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models import Model, open_model
from gguf_golf.models.fingerprint import fingerprint
from gguf_golf.models.gguf_file import split_parts
from gguf_golf.models.hashing import stamp
from gguf_golf.quantize import lattice
from gguf_golf.runtime import library


@dataclass(frozen=True)
class Job:
    """How to encode a model. The bytes depend on `imatrix` and `hessian`, never on `device` or `threads` (None: all).

    `imatrix` and `hessian` are files of `gguf-golf imatrix`. `allow_requantize` takes a source that is already
    quantized, `trust_remote_code` one whose own Python code llama.cpp's converter needs; `force` replaces a file that
    gguf-golf did not write. `keep_lattice` stores tensors exactly whose weights lie on a type's lattice already (see
    lattice.py). `encoded` is a folder where encoded tensors stay for the next file that has them too (see reuse.py).
    `progress` shows a bar.
    """

    imatrix: Path | None = None
    hessian: Path | None = None
    device: str = "cpu"
    threads: int | None = None
    allow_requantize: bool = False
    trust_remote_code: bool = False
    force: bool = False
    keep_lattice: bool = True
    encoded: Path | None = None
    progress: bool = True

    def open(self, source: Path) -> Model:
        """The source as a model. Raises InputError as `open_model` does."""
        return open_model(source, allow_requantize=self.allow_requantize, trust_remote_code=self.trust_remote_code)

    def guide(self) -> Guide:
        """What the job's files say of the inputs. Raises InputError and DataError as their readers do."""
        return Guide.open(self.imatrix, self.hessian)

    def lattice(self, model: Model, chosen: Mapping[str, QuantType]) -> dict[str, QuantType]:
        """The tensors to keep on their lattice, and its type. Raises DataError as `lattice.find` does."""
        return lattice.find(model, chosen) if self.keep_lattice else {}

    def encoder(self) -> Encoder:
        """The device's encoder. Raises InputError and BuildError as `open_encoder` does."""
        return open_encoder(self.device, self.threads)


DEFAULT_JOB = Job()


def made_from(source: Path, model: Model, guide: Guide) -> dict[str, Any]:
    """What a partial file must have been made from to be continued: the source as it is now, the same encoder, and the
    same guide. The model's fingerprint is there for sources whose times of change were kept by a copy."""
    imatrix = hashlib.sha256()
    if guide.imatrix is not None:
        for name, entry in sorted(guide.imatrix.entries.items()):
            imatrix.update(name.encode())
            imatrix.update(np.ascontiguousarray(entry.in_sum2).tobytes())
            imatrix.update(entry.counts.tobytes())
        if guide.imatrix.token_counts is not None:
            imatrix.update(guide.imatrix.token_counts.tobytes())
    return {
        "version": __version__,
        "runtime": str(library.folder()),  # named by a hash of the patches and of how it was built
        "source": [stamp(part) for part in ([source] if source.is_dir() else split_parts(source))],
        "fingerprint": fingerprint(model),
        "imatrix": imatrix.hexdigest(),
        "hessian": "" if guide.hessians is None else guide.hessians.fingerprint().hex(),
    }
