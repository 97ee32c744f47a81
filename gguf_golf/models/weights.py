"""The tensors of one checkpoint, handed out by name with their shapes checked, so that none is missed or left over."""

from collections.abc import Iterable

import numpy as np

from gguf_golf.errors import InputError
from gguf_golf.models.checkpoint import FLOAT_DTYPES, StoredTensor, stored_tensors
from gguf_golf.models.config import Config
from gguf_golf.models.unsupported import UnsupportedError

SLAB_WEIGHTS = 1 << 20


class Weights:
    """What a checkpoint stores, by Hugging Face name; each tensor is taken once."""

    def __init__(self, config: Config) -> None:
        self.config = config
        stored = stored_tensors(config)
        self.is_base = "embed_tokens.weight" in stored
        """Saved without its head, as embedding models are: names lack the prefix "model."."""
        if self.is_base:
            stored = {name if name.startswith("lm_head.") else f"model.{name}": t for name, t in stored.items()}
        # a buffer that old versions of transformers saved; it follows from config.json
        self._left = {name: tensor for name, tensor in stored.items() if not name.endswith(".rotary_emb.inv_freq")}

    def __contains__(self, name: str) -> bool:
        """Whether the checkpoint stores this tensor and nothing has taken it yet."""
        return name in self._left

    def take(self, name: str, shape: tuple[int, ...]) -> StoredTensor:
        """The tensor of this name. Raises InputError if it is missing, of another shape, or of no plain float type."""
        return self._take(name, shape, FLOAT_DTYPES, "start from full precision (BF16, F16 or F32 weights)")

    def take_codes(self, name: str, shape: tuple[int, ...]) -> StoredTensor:
        """The tensor of signed integers of this name. Raises InputError if it is missing, of another shape or type."""
        return self._take(name, shape, ("I8", "I16"), "codes of 8 or 16 bits are expected here; download it again")

    def take_bytes(self, name: str, shape: tuple[int, ...]) -> StoredTensor:
        """The tensor of bytes of this name. Raises InputError if it is missing, of another shape or type."""
        return self._take(name, shape, ("U8",), "bytes are expected here; download it again")

    def _take(self, name: str, shape: tuple[int, ...], dtypes: Iterable[str], otherwise: str) -> StoredTensor:
        tensor = self._left.pop(name, None)
        if tensor is None:
            raise InputError(
                f"{self.config.directory}: tensor {name} is missing from the checkpoint; a shard was not downloaded, "
                "or config.json belongs to another model"
            )
        if tensor.stored_dtype not in dtypes:
            raise InputError(f"{tensor.path}: {name} is {tensor.stored_dtype}: {otherwise}")
        if tensor.shape != shape:
            raise InputError(
                f"{tensor.path}: {name} is {list(tensor.shape)}, config.json wants {list(shape)}; "
                "take both from the same model"
            )
        return tensor

    def finish(self) -> None:
        """Raises UnsupportedError if tensors are left over: the model is not what config.json says."""
        if self._left:
            raise UnsupportedError(
                f"{self.config.directory}: {len(self._left)} tensors do not belong to {self.config.architecture} "
                f"({min(self._left)}, ...)"
            )


def same_values(first: StoredTensor, second: StoredTensor) -> bool:
    """Whether two matrices of one shape hold the same values. Reads some rows at a time, up to the first difference."""
    step = max(1, SLAB_WEIGHTS // first.shape[-1])
    return all(
        np.array_equal(first.read_rows(slice(i, i + step)), second.read_rows(slice(i, i + step)))
        for i in range(0, first.shape[0], step)
    )
