"""Runs llama.cpp's converter without its tokenizer step, for tokenizers that this project writes itself.

A program of its own: `python upstream_without_vocab.py CONVERT_HF_TO_GGUF_PY ARGUMENTS`. The converter knows
pre-tokenizers by a hash of what they make of one text, and stops at a vocabulary that it has not met.
"""

import importlib
import runpy
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Replace `set_vocab` of the one model class that the converter asks for, then run the converter."""
    script = Path(sys.argv[1])
    sys.path.insert(0, str(script.parent))
    conversion: Any = importlib.import_module("conversion")
    get_model_class = conversion.get_model_class

    def without_vocab(*arguments: Any, **options: Any) -> Any:
        model_class = get_model_class(*arguments, **options)
        model_class.set_vocab = lambda self: self.gguf_writer.add_tokenizer_model("none")
        return model_class

    conversion.get_model_class = without_vocab
    sys.argv = [str(script), *sys.argv[2:]]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
