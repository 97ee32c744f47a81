"""The engine `transformers`: a Hugging Face folder as its own library runs it, whatever it is quantized with.

`gguf-golf verify` takes the same as the reference for what a conversion must compute. It needs the [hf] extra.
"""

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_golf.errors import InputError
from gguf_golf.models.upstream import INSTALL


class TransformersEngine:
    """A checkpoint loaded by transformers; plain weights compute in F32, quantized ones as their library has it."""

    def __init__(self, checkpoint: Path, *, trust_remote_code: bool = False) -> None:
        self.model, self.tokenizer = _load(checkpoint, trust_remote_code)

    def tokenize(self, text: str) -> NDArray[np.int32]:
        """Token ids int32 [n], special tokens added as the tokenizer does by itself."""
        return np.array(self.tokenizer(text, verbose=False)["input_ids"], np.int32)

    def logits(self, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
        """The logits f32 [n, n_vocab] after each of n tokens."""
        import torch

        ids = torch.from_numpy(np.asarray(tokens, np.int64)[None]).to(self.model.device)
        with torch.no_grad():
            logits = self.model(input_ids=ids, use_cache=False).logits
        return np.asarray(logits[0].float().cpu().numpy())

    def close(self) -> None:
        """Free the weights."""
        del self.model


def open_engine(path: Path, threads: int) -> TransformersEngine:
    """The engine for `gguf-golf eval --engine transformers:PATH`. Raises InputError where it cannot be loaded."""
    engine = TransformersEngine(path)
    import torch

    torch.set_num_threads(threads)
    return engine


def _load(checkpoint: Path, trust_remote_code: bool) -> tuple[Any, Any]:
    if missing := [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]:
        raise InputError(f"{checkpoint}: running it with transformers takes {' and '.join(missing)}; {INSTALL}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(checkpoint, trust_remote_code=trust_remote_code)
        plain = getattr(config, "quantization_config", None) is None
        settings = {
            "dtype": torch.float32 if plain else "auto",
            "attn_implementation": "eager",
            "trust_remote_code": trust_remote_code,
        }
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=trust_remote_code)
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, **settings)
        except ValueError:  # a class that sees images too
            model = transformers.AutoModelForImageTextToText.from_pretrained(checkpoint, **settings)
    except Exception as error:  # whatever a checkpoint can make transformers raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise InputError(f"{checkpoint}: transformers cannot load it ({reason})") from error
    return model.eval(), tokenizer
