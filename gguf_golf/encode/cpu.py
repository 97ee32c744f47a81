"""The encoder that every machine has: ggml's own functions, and TCQ with error feedback, on CPU threads."""

import numpy as np
from numpy.typing import NDArray

from gguf_golf.encode import feedback
from gguf_golf.encode.guide import UNGUIDED, Guidance
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.runtime import ggml
from gguf_golf.threads import resolve


class CpuEncoder:
    """An `Encoder` on the CPU."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = resolve(threads)

    def encode(
        self, rows: NDArray[np.float32], quant_type: QuantType, guidance: Guidance = UNGUIDED
    ) -> NDArray[np.uint8]:
        """See `Encoder.encode`."""
        if guidance.feedback is not None:
            return feedback.encode(quant_type, rows, guidance.feedback, self.threads)
        return ggml.quantize(quant_type.id, rows, guidance.importance, self.threads)
