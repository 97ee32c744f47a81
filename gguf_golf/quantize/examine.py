"""A program of load_check.py: whether llama.cpp can load a file, and what it computes for one token.

It runs in a process of its own, as llama.cpp ends the process when it meets what it takes for impossible.
"""

import json
import sys
from pathlib import Path

import numpy as np

from gguf_golf.errors import GolfError
from gguf_golf.runtime.session import LoadedModel


def main() -> None:
    """Load the file that the command line names, with `--decode` also its weights; the finding as JSON, on the last
    line."""
    path, decode = Path(sys.argv[1]), "--decode" in sys.argv[2:]
    try:
        with LoadedModel(path, without_weights=not decode) as model:
            print(json.dumps(_check_token(model) if decode and _generates(model) else {}))
    except GolfError as error:
        print(json.dumps({"error": str(error)}))


def _generates(model: LoadedModel) -> bool:
    """Whether it predicts tokens; an embedding model does not."""
    architecture = model.metadata("general.architecture")
    return (
        model.metadata(f"{architecture}.pooling_type") is None
        and model.metadata(f"{architecture}.attention.causal") != "false"
    )


def _check_token(model: LoadedModel) -> dict[str, str]:
    token = max(model.text_start, 0)
    with model.context(8, threads=1) as context:
        logits = context.decode(np.array([token], np.int32), np.zeros(1, np.int32), np.ones(1, bool))
        if bad := int(logits.size - np.count_nonzero(np.isfinite(logits))):
            return {
                "overflow": f"{bad} of {logits.size} logits of the first token are NaN or infinite though all weights "
                "are finite: values overflow in llama.cpp (its caches are F16)"
            }
    return {}


if __name__ == "__main__":
    main()
