"""Metal's rules that a C++ compiler does not know, checked in the text of our Metal sources."""

import re
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).parents[3] / "patches/src/ggml/src/ggml-metal/kernels").glob("tcq*.h"))


def code(path: Path) -> str:
    """The source without comments and strings."""
    text = re.sub(r"//.*", "", path.read_text(encoding="utf-8"))
    return re.sub(r'"[^"\n]*"', '""', text)


def functions(text: str) -> dict[str, str]:
    """Every function's name and body, for sources whose functions start and end in column 0."""
    return {
        match["name"]: match["body"]
        for match in re.finditer(
            r"^[\w ][^\n;={}#]*?(?P<name>\w+)\((?P<args>[^{};]*)\) \{\n(?P<body>.*?)^\}", text, re.M | re.S
        )
    }


@pytest.fixture(params=SOURCES, ids=lambda path: path.name)
def source(request: pytest.FixtureRequest) -> str:
    return code(request.param)


def test_sources_are_found() -> None:
    assert len(SOURCES) == 4
    assert {"dequantize_tcq", "tcq_get_parities"} <= functions(code(SOURCES[0].parent / "tcq.h")).keys()


def test_no_type_that_metal_lacks(source: str) -> None:
    assert not re.findall(r"\b(?:double|long double|std::\w+|size_t)\b", source)


def test_no_dynamic_memory_exceptions_or_virtual_functions(source: str) -> None:
    assert not re.findall(
        r"\b(?:new|delete|malloc|free|try|throw|catch|virtual|dynamic_cast|typeid|goto|thread_local)\b", source
    )


def test_no_atomics(source: str) -> None:
    assert "atomic" not in source


def test_no_recursion(source: str) -> None:
    bodies = functions(source)
    calls = {
        name: {other for other in bodies if re.search(rf"\b{other}\s*(?:<[^;{{}}]*?>)?\(", body)}
        for name, body in bodies.items()
    }
    for name in bodies:
        reached: set[str] = set()
        todo = set(calls[name])
        while todo:
            other = todo.pop()
            # overloads of one name call each other by design here only if they call themselves
            assert other != name, f"{name} calls itself"
            reached.add(other)
            todo |= calls[other] - reached


def test_arrays_have_constant_sizes(source: str) -> None:
    for size in re.findall(r"^\s+(?:\w+|device const \w+ \*)\s+\w+\[([^\]]+)\]\s*(?:=|;)", source, re.M):
        assert re.fullmatch(r"[\dA-Z_R*+ ]+|NR0", size), f"array of {size}"


def test_pointers_name_their_address_space(source: str) -> None:
    """Every pointer and reference lives in device, constant, thread or threadgroup memory."""
    for declaration in re.findall(
        r"[^,;(){}\n]*\b(?:char|float|uint32_t|uint16_t|block_\w+|type4x4|int8_t|int16_t)(?:<\w+>)?\s*[*&]\s*\w+",
        source,
    ):
        assert re.search(r"\b(?:device|constant|thread|threadgroup)\b", declaration), declaration.strip()


def test_function_constants_are_only_read(source: str) -> None:
    for name, rest in re.findall(r"\b(FC_\w+)\s*([^\w\s])", source):
        assert not rest.startswith("=") or rest.startswith("=="), f"{name} is assigned"


def test_static_data_is_in_constant_memory(source: str) -> None:
    """Metal allows variables outside functions, and static ones, in constant memory alone."""
    for line in re.findall(r"^\s*static\b[^\n(]*[;=]", source, re.M):
        assert "constant" in line, line
