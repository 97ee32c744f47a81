"""Where a binary wheel has the runtime that it brings along; a checkout and the pure wheel have none.

binary_wheel.py puts it there. A runtime that was built on this machine comes first: it is tuned for its CPU.
"""

from pathlib import Path

FOLDER = Path(__file__).parent / "prebuilt"
RUNTIME = FOLDER / "runtime"
"""manifest.json, lib/ and tools/, as `build` makes them with --portable."""

BINDINGS = FOLDER / "bindings"
"""A folder for sys.path with the package llama_cpp, without libraries."""
