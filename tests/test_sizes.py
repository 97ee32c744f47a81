"""Sizes as people write them."""

import pytest

from gguf_golf.errors import InputError
from gguf_golf.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("20GB", 20 * 10**9),
        ("700 MiB", 700 * 2**20),
        ("38_000_000", 38_000_000),
        ("1.5 kb", 1500),
        (" 7 ", 7),
        ("2G", 2 * 10**9),
    ],
)
def test_sizes_are_read_with_or_without_a_unit(text: str, n: int) -> None:
    assert parse_size(text) == n


@pytest.mark.parametrize("text", ["", "2T", "many", "-1GB", "1GB2", "nan"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match="such as 20GB"):
        parse_size(text)
