"""The one exception family: every error that a user can cause or mend is a GolfError."""


class GolfError(Exception):
    """An error whose message says what was wrong, where, and what to do. The CLI prints it without a traceback."""


class InputError(GolfError):
    """A file or an argument cannot be used as it is."""


class DataError(GolfError):
    """The numbers in a file cannot be used: NaN or Inf weights, logits that are not finite, counts of zero."""


class BuildError(GolfError):
    """The patched runtime could not be fetched, built or loaded."""
