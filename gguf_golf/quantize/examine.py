"""A program of load_check.py: `python examine.py FILE [CHECKPOINT]`, the finding as JSON on the last line.

Whether llama.cpp can load the file, what it computes for one token, and whether it cuts texts as the tokenizer of the
checkpoint does. A process of its own, as llama.cpp ends the process when it meets what it takes for impossible.
"""

import json
import sys
from pathlib import Path

import numpy as np

from gguf_golf.errors import GolfError
from gguf_golf.models.tokens.check import differences
from gguf_golf.runtime.session import LoadedModel


def main() -> None:
    """Load the file with its weights mapped, not copied, and print what was found."""
    path, *checkpoint = map(Path, sys.argv[1:])
    try:
        with LoadedModel(path, mapped=True) as model:
            found = _check_token(model) if _generates(model) else {}
            if checkpoint:
                found |= _check_tokenizer(model, checkpoint[0])
            print(json.dumps(found))
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


def _check_tokenizer(model: LoadedModel, checkpoint: Path) -> dict[str, str]:
    try:
        differing = differences(checkpoint, model)
    except Exception as error:  # tokenizers and sentencepiece raise what they like
        return {"tokens": f"the file's tokens could not be compared with the checkpoint's ({error})"}
    return {"tokens": f"WARNING: {len(differing)} awkward texts get other tokens: {differing[0]}"} if differing else {}


if __name__ == "__main__":
    main()
