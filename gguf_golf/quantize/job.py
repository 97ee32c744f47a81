"""What `convert` and `quantize` share: how to encode, and what may be taken as a source."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gguf_golf.encode import Encoder, Guide, open_encoder
from gguf_golf.models import Model


@dataclass(frozen=True)
class Job:
    """How to encode a model. The bytes depend on `imatrix` and `hessian`, never on `device` or `threads` (None: all).

    `imatrix` and `hessian` are files of `gguf-golf imatrix`. `allow_requantize` takes a source that is already
    quantized. `progress` shows a bar.
    """

    imatrix: Path | None = None
    hessian: Path | None = None
    device: str = "cpu"
    threads: int | None = None
    allow_requantize: bool = False
    progress: bool = True

    def guide(self) -> Guide:
        """What the job's files say of the inputs. Raises InputError and DataError as their readers do."""
        return Guide.open(self.imatrix, self.hessian)

    def encoder(self) -> Encoder:
        """The device's encoder. Raises InputError and BuildError as `open_encoder` does."""
        return open_encoder(self.device, self.threads)


DEFAULT_JOB = Job()


def resume_key(model: Model, guide: Guide) -> str:
    """What a partial file must have been made from to be continued, beside its own header.

    The first and last row of every tensor stand for the weights, so that another checkpoint of the same shape is
    noticed without reading it all.
    """
    digest = hashlib.sha256()
    for tensor in model.tensors:
        for row in {0, tensor.n_rows - 1}:
            digest.update(tensor.load_rows(row, row + 1).tobytes())
    if guide.imatrix is not None:
        for name, entry in sorted(guide.imatrix.entries.items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(entry.in_sum2).tobytes())
    if guide.hessians is not None:
        digest.update(guide.hessians.fingerprint())
    return digest.hexdigest()
