"""`gguf-golf inspect`: what a GGUF file says of itself: its recipe and hashes, and the bytes of each type."""

from pathlib import Path

from gguf_golf.models.hashing import file_sha256
from gguf_golf.plan.metadata import KEY_FINGERPRINT, KEY_IMATRIX, KEY_RECIPE
from gguf_golf.runtime.header import GgufHeader


def inspect(path: Path) -> str:
    """A page of text about any GGUF file, ours or not. Raises InputError if it is none."""
    with GgufHeader(path) as header:
        tensors = header.tensors()
        recipe = header.text(KEY_RECIPE)
        stated = {
            key: header.text(key) for key in ("general.architecture", "general.name", KEY_FINGERPRINT, KEY_IMATRIX)
        }
    size = path.stat().st_size
    data = sum(tensor.bytes for tensor in tensors)
    lines = [f"file: {path.name}, {size:,} bytes, {size - data:,} of them header and padding"]
    lines.append(f"sha256: {file_sha256(path)}")
    lines += [f"{key}: {value}" for key, value in stated.items() if value]
    lines += ["", "type        tensors       MB   share"]
    by_type: dict[str, list[int]] = {}
    for tensor in tensors:
        by_type.setdefault(tensor.type.lower(), []).append(tensor.bytes)
    for name, sizes in sorted(by_type.items(), key=lambda entry: -sum(entry[1])):
        lines.append(f"{name:<12}{len(sizes):>7}{sum(sizes) / 1e6:>9.2f}{100 * sum(sizes) / data:>7.1f}%")
    lines += ["", recipe.rstrip() if recipe else "no recipe: this file was not made by `gguf-golf quantize --recipe`"]
    return "\n".join(lines)
