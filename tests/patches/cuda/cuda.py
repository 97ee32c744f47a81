"""From CUDA C++ to C++: what the preprocessor and the headers beside this file cannot do."""

import re

_ASM = re.compile(
    r'asm(?: volatile)?\("([a-z][a-zA-Z0-9.]*)([^"]*?);"\s*:\s*(?:"=[rf]"\((\w+)\))?\s*:\s*(.*?)\);', re.DOTALL
)
_LAUNCH = re.compile(r"(\w+(?:<[^<>]*>)?)<<<([^>]*?)>>>\((.*?)\);", re.DOTALL)


def to_cpp(source: str) -> str:
    """A CUDA source whose PTX calls functions, whose launches run, and whose shared memory is static."""
    source = _ASM.sub(_call, source)
    source = _LAUNCH.sub(_run, source)
    return source.replace("static __shared__", "static").replace("__shared__", "static")


def _call(match: re.Match[str]) -> str:
    """One instruction of PTX as a call of ptx_NAME with its inputs, and what its text has as a number."""
    name, text, output, inputs = match.groups()
    values = re.findall(r'"[rlf]"\(((?:[^()]|\([^()]*\))*)\)', inputs)
    values += re.findall(r"\b0x[0-9a-f]+\b", text)
    call = f"ptx_{name.replace('.', '_')}({', '.join(values)});"
    return f"{output} = {call}" if output else call


def _run(match: re.Match[str]) -> str:
    """A launch as a loop over thread blocks; a macro's line ends stay escaped because they are the argument list's."""
    kernel, shape, arguments = match.groups()
    grid, block = shape.split(",")[:2]
    return f"emulate({grid}, {block}, [&] {{ {kernel}({arguments}); }});"
