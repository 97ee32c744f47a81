"""Numbers and sizes as people read them. Sizes are decimal: 1 MB is 10^6 bytes."""

import math


def size(count: float) -> str:
    """Bytes in the unit that leaves at least one digit before the point, three significant digits."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= 0.9995 * factor:
            return f"{_significant(count / factor, 3)} {unit}"
    return f"{count:.0f} bytes"


def number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits; a dash where it is not known."""
    if value is None:
        return "–"
    if value != 0 and abs(value) < 1e-4:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return _significant(value, digits)


def measured(value: float | None, margin: float | None, factor: float = 1.0) -> str:
    """A value and its margin (half a 95% interval), both cut where the margin's second digit stands."""
    if value is None:
        return "–"
    value *= factor
    if margin is None or margin == 0:
        return number(value)
    margin *= factor
    if abs(value) < 1e-4 and margin < 1e-4:
        return f"{number(value)} ± {number(margin)}"
    digits = min(6, max(0, 1 - math.floor(math.log10(margin))))
    return f"{value:,.{digits}f} ± {margin:,.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return "–" if value is None else f"{100 * value:.{digits}f}%"


def interval(low: float | None, high: float | None) -> str:
    """A 95% interval of a share, in percent; nothing if unknown."""
    return "" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"


def cut(ratio: float) -> str:
    """What a step that leaves `ratio` of the damage does to it."""
    names = {1 / 2: "halves", 1 / 3: "cuts to a third", 1 / 4: "cuts to a quarter", 1 / 5: "cuts to a fifth"}
    names[1 / 10] = "cuts to a tenth"
    for share, words in names.items():
        if abs(math.log(max(ratio, 1e-9) / share)) < 0.12:
            return f"{words} the damage" if share == 1 / 2 else words.replace("cuts", "cuts the damage")
    if ratio < 0.1:
        return "leaves less than a tenth of the damage"
    return f"takes away {100 * (1 - ratio):.0f}% of the damage"


def times(ratio: float) -> str:
    """How many times the damage of another file."""
    return f"{ratio:.0f} times" if ratio >= 10 else f"{ratio:.1f} times"


def listing(names: list[str]) -> str:
    """a, b and c."""
    return "".join(names) if len(names) < 2 else f"{', '.join(names[:-1])} and {names[-1]}"


def _significant(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, max(0, decimals))
    decimals = digits - 1 - math.floor(math.log10(abs(rounded))) if rounded else decimals
    return f"{rounded:,.{max(0, decimals)}f}"
