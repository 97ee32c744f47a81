"""The tensors of one checkpoint, handed out by name with their shapes checked, so that none is missed or left over."""

from gguf_golf.errors import InputError
from gguf_golf.models.checkpoint import FLOAT_DTYPES, StoredTensor, stored_tensors
from gguf_golf.models.config import Config


class Weights:
    """What a checkpoint stores, by Hugging Face name; each tensor is taken once."""

    def __init__(self, config: Config) -> None:
        self._config = config
        stored = stored_tensors(config.directory)
        # a buffer that old versions of transformers saved; it follows from config.json
        self._left = {name: tensor for name, tensor in stored.items() if not name.endswith(".rotary_emb.inv_freq")}

    def __contains__(self, name: str) -> bool:
        """Whether the checkpoint stores this tensor and nothing has taken it yet."""
        return name in self._left

    def take(self, name: str, shape: tuple[int, ...]) -> StoredTensor:
        """The tensor of this name. Raises InputError if it is missing, of another shape, or of no plain float type."""
        tensor = self._left.pop(name, None)
        if tensor is None:
            raise InputError(
                f"{self._config.directory}: tensor {name} is missing from the checkpoint; a shard was not downloaded, "
                "or config.json belongs to another model"
            )
        if tensor.dtype not in FLOAT_DTYPES:
            raise InputError(
                f"{tensor.path}: {name} is {tensor.dtype}: start from full precision (BF16, F16 or F32 weights)"
            )
        if tensor.shape != shape:
            raise InputError(
                f"{tensor.path}: {name} is {list(tensor.shape)}, config.json wants {list(shape)}; "
                "take both from the same model"
            )
        return tensor

    def drop(self, name: str) -> None:
        """Leave this tensor out, if it is stored."""
        self._left.pop(name, None)

    def finish(self) -> None:
        """Raises InputError if tensors are left over: the model is not what config.json says."""
        if self._left:
            raise InputError(
                f"{self._config.directory}: {len(self._left)} tensors do not belong to {self._config.architecture} "
                f"({min(self._left)}, ...); merge adapters into the model first, or convert with llama.cpp's own "
                "converter and give its GGUF"
            )
