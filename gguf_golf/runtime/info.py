"""What `gguf-golf runtime info` prints: where the runtime came from, what it was built for, what it can do."""

from typing import Any

from gguf_golf.formats import quant_types
from gguf_golf.runtime import build, cpu, library, pin
from gguf_golf.runtime.cache import cache_dir
from gguf_golf.runtime.source import source_key


def describe() -> tuple[str, dict[str, Any]]:
    """The linked runtime in words, with the table of types, and the same as a document.

    Builds and installs nothing. Raises BuildError.
    """
    facts = {
        "pin": f"llama-cpp-python {pin.VERSION}, sha256 {pin.SHA256}",
        "source": str(cache_dir() / "source" / source_key()),
        **_runtime(),
        "this CPU": f"{cpu.architecture()}: {' '.join(sorted(cpu.features()))}",
    }
    text = "\n".join(
        [
            *(f"{name:<12}{value}" for name, value in facts.items()),
            f"{'type':<12}{'id':>4}{'weights':>9}{'bytes':>7}{'bpw':>9}   (of one block)",
            *(f"{t.name:<12}{t.id:>4}{t.block_size:>9}{t.type_size:>7}{t.bpw:>9.4f}" for t in quant_types.ALL.values()),
        ]
    )
    known = [
        {"name": t.name, "id": t.id, "weights": t.block_size, "bytes": t.type_size, "bpw": t.bpw}
        for t in quant_types.ALL.values()
    ]
    return text, {"schema": "gguf-golf/runtime-info", **facts, "types": known}


def _runtime() -> dict[str, str]:
    runtime = library.present()
    if runtime is None:
        return {"runtime": "none: run `gguf-golf runtime build`"}
    made = library.manifest(runtime)
    fits = library.fits(made)
    return {
        "runtime": str(runtime)
        + ("" if fits else " (not for these patches and this CPU: the next use builds another)"),
        "components": ", ".join(name for name in build.COMPONENTS if (runtime / name).is_dir()),
        "options": ", ".join(name for name, on in made["options"].items() if on) or "none",
        "compiler": made["compiler"]["c"],
        "flags": " ".join([made["compiler"]["c_flags"], *(f"-D{flag}" for flag in made["flags"])]),
        "built for": f"{made['architecture']}: {' '.join(made['cpu'])}",
    }
