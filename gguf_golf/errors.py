"""The one exception family: every error that a user can cause or fix is a GolfError."""

import difflib
from collections.abc import Iterable
from unicodedata import category


class GolfError(Exception):
    """An error whose message says what was wrong, where, and what to do. The CLI prints it without a traceback.

    Messages quote names from strangers' files, so control characters are escaped: they would reach a terminal.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    """`text` as a terminal may see it: characters that control it, or the direction of writing, as their escapes."""
    controls = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join(repr(c)[1:-1] if category(c) in controls and c not in "\n\t\u200c\u200d" else c for c in text)


class InputError(GolfError):
    """A file or an argument cannot be used as it is."""


class DataError(GolfError):
    """The numbers in a file cannot be used: NaN or Inf weights, logits that are not finite, counts of zero."""


class BuildError(GolfError):
    """The patched runtime could not be fetched, built or loaded."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """How an error about an unknown name ends: the known name that is most like it, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(names)}"
