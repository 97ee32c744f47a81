"""The shaders' tables: current. What they mean is tested where a Vulkan device runs them (tests/patches/vulkan)."""

from gguf_golf.formats import glsl_tables


def test_tables_are_current() -> None:
    assert glsl_tables.TABLES.read_text() == glsl_tables.render()
