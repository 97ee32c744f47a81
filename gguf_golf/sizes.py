"""Sizes as people write them: 20GB, 700 MiB, 38_000_000."""

import re

from gguf_golf.errors import InputError

UNITS = {
    **{"": 1, "b": 1},
    **{"k": 10**3, "m": 10**6, "g": 10**9, "kb": 10**3, "mb": 10**6, "gb": 10**9},
    **{"ki": 2**10, "mi": 2**20, "gi": 2**30, "kib": 2**10, "mib": 2**20, "gib": 2**30},
}
"""Bytes by lower-case unit; 6G is 6GB."""

_SIZE = re.compile(r"(\d[\d_,]*(?:\.\d+)?)\s*([kmg]?i?b?)", re.IGNORECASE)


def parse_size(text: str) -> int:
    """The bytes that a size means. Raises InputError for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].lower() not in UNITS:
        raise InputError(f"cannot read the size {text!r}: give bytes, such as 20GB, 700MiB or 38000000")
    return int(float(re.sub("[_,]", "", match[1])) * UNITS[match[2].lower()])
