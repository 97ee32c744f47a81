"""The one error that means: nothing is wrong with the input, but this road cannot take it."""

from gguf_golf.errors import InputError


class UnsupportedError(InputError):
    """A checkpoint that only llama.cpp's own converter can take."""
