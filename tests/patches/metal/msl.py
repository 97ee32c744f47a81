"""From Metal Shading Language to C++: what the preprocessor and metal_stdlib beside this file cannot do."""

import re


def to_cpp(source: str) -> str:
    """The same source without Metal's attributes, with function constants as variables that a test can set.

    llama.cpp's own instantiations, one a line, are left out: some convert vectors in ways that C++ has no word for.
    Ours stand in macros, and stay.
    """
    source = re.sub(r"^constant (\w+ +\w+)\s*\[\[function_constant\(.*?\)\]\];", r"static \1;", source, flags=re.M)
    source = re.sub(r"^template \[\[host_name\(.*$", "", source, flags=re.M)
    return re.sub(r"\[\[.*?\]\]", "", source)
