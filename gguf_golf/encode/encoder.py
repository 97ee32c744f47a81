"""What every encoder is, and the devices that have one. All of them write the same bytes."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gguf_golf.encode.cpu import CpuEncoder
from gguf_golf.encode.cuda import CudaEncoder
from gguf_golf.encode.guide import UNGUIDED, Guidance
from gguf_golf.errors import InputError
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.runtime import ggml


class Encoder(Protocol):
    """Encodes rows of weights on one device; `threads` is how many CPU threads it may use."""

    threads: int

    def encode(
        self, rows: NDArray[np.float32], quant_type: QuantType, guidance: Guidance = UNGUIDED
    ) -> NDArray[np.uint8]:
        """Rows f32 [n, k] to bytes u8 [n, row_bytes]. The bytes depend neither on the device nor on `threads`.

        Raises InputError for a type that has no encoder or needs an importance that is not given, for rows that its
        blocks do not divide, and for guidance about rows of another length.
        """


DEVICES: Mapping[str, Callable[[int | None], Encoder]] = {"cpu": CpuEncoder, "cuda": CudaEncoder}


def open_encoder(device: str = "cpu", threads: int | None = None) -> Encoder:
    """The encoder of a device; without `threads` it uses all CPUs.

    Raises InputError for an unknown device, and BuildError where the device is missing or writes other bytes.
    """
    if device not in DEVICES:
        raise InputError(f"there is no device {device!r} to encode on; devices are {', '.join(DEVICES)}")
    return DEVICES[device](threads)


def round_trip(
    encoder: Encoder, rows: NDArray[np.float32], quant_type: QuantType, guidance: Guidance
) -> NDArray[np.float32]:
    """Rows f32 [n, k] as they come back from a type. Raises InputError as `Encoder.encode` does."""
    data = encoder.encode(rows, quant_type, guidance)
    return ggml.dequantize(quant_type.id, data, len(rows), rows.shape[1], encoder.threads)
