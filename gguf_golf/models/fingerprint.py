"""What tells one set of weights from another, in whatever file it lies."""

import hashlib

from gguf_golf.models.model import Model


def fingerprint(model: Model) -> str:
    """SHA-256 over the name, shape, first and last row (as f32) of every tensor, in order of name.

    The Hugging Face directory and the GGUF made from it in the same precision have the same fingerprint. It reads two
    rows a tensor, not the model.
    """
    digest = hashlib.sha256()
    for tensor in sorted(model.tensors, key=lambda tensor: tensor.name):
        digest.update(f"{tensor.name} {tensor.shape}\n".encode())
        for row in sorted({0, tensor.n_rows - 1}):
            digest.update(tensor.load_rows(row, row + 1).tobytes())
    return digest.hexdigest()
