"""What `gguf-golf runtime info` prints: where the runtime came from, what it was built for, what it can do."""

from gguf_golf.formats import types
from gguf_golf.runtime import build, cpu, library, pin
from gguf_golf.runtime.source import source_dir


def describe() -> str:
    """The linked runtime in words, with its table of types; builds it when there is none. Raises BuildError."""
    runtime = library.current()
    made = library.manifest(runtime)
    facts = {
        "pin": f"llama-cpp-python {pin.VERSION}, sha256 {pin.SHA256}",
        "source": str(source_dir()),
        "runtime": str(runtime),
        "components": ", ".join(name for name in build.COMPONENTS if (runtime / name).is_dir()),
        "options": ", ".join(name for name, on in made["options"].items() if on) or "none",
        "compiler": made["compiler"]["c"],
        "flags": " ".join([made["compiler"]["c_flags"], *(f"-D{flag}" for flag in made["flags"])]),
        "built for": f"{made['architecture']}: {' '.join(made['cpu'])}",
        "this CPU": f"{cpu.architecture()}: {' '.join(sorted(cpu.features()))}",
    }
    return "\n".join(
        [
            *(f"{name:<12}{value}" for name, value in facts.items()),
            f"{'type':<12}{'id':>4}{'weights':>9}{'bytes':>7}{'bpw':>9}   (of one block)",
            *(f"{t.name:<12}{t.id:>4}{t.block_size:>9}{t.type_size:>7}{t.bpw:>9.4f}" for t in types.ALL.values()),
        ]
    )
