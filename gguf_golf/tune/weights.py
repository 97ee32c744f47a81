"""The weights that are trained: latents in f32, the bytes that the encoder makes of them, and the model that has those.

The model computes with what is stored, and its gradients move the latents (a straight-through estimator); now and then
the latents are encoded again, with the encoder that writes files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gguf_golf.encode import Encoder, Guide
from gguf_golf.encode.magnitude import OutOfRangeError, encode_in_range
from gguf_golf.formats.types import QuantType
from gguf_golf.models import LazyTensor
from gguf_golf.quantize.stored import OutOfRange
from gguf_golf.tune.decode import decode
from gguf_golf.tune.mapping import MatrixLink, NormLink


@dataclass(frozen=True)
class Content:
    """What a tuned file holds beside what `quantize` would put there: bytes of matrices, f32 values of norms."""

    matrices: dict[str, NDArray[np.uint8]]
    norms: dict[str, NDArray[np.float32]]

    def tensors(self) -> list[dict[str, torch.Tensor]]:
        """The same as tensors, which torch saves and loads as plain data."""
        return [{name: torch.from_numpy(a) for name, a in part.items()} for part in (self.matrices, self.norms)]

    @classmethod
    def of_tensors(cls, parts: list[dict[str, torch.Tensor]]) -> "Content":
        """The inverse of `tensors`."""
        matrices, norms = ({name: tensor.numpy() for name, tensor in part.items()} for part in parts)
        return cls(matrices, norms)


class Matrix:
    """One quantized tensor: `latent` f32 [n_rows, k] on the device if it is trained, its type, and its place."""

    def __init__(self, tensor: LazyTensor, quant_type: QuantType, link: MatrixLink, device: str) -> None:
        self.tensor, self.quant_type, self.link, self._device = tensor, quant_type, link.to(device), device
        self.shape = (tensor.n_rows, tensor.shape[-1])
        self.data = np.empty((self.shape[0], quant_type.row_bytes(self.shape[1])), np.uint8)
        self.latent: torch.Tensor | None = None
        self.error_rms = 0.0

    def train(self) -> None:
        """Make the original weights the latents."""
        rows = self.tensor.load_rows(0, self.shape[0])
        self.latent = torch.from_numpy(rows).to(self._device).requires_grad_(True)

    def encode(self, guide: Guide, encoder: Encoder) -> torch.Tensor:
        """Encode the latents, or the original weights, and give back what they are stored as, f32 [n_rows, k].

        Raises OutOfRange for weights that the type cannot hold, or that are not numbers.
        """
        rows = self._rows()
        n_experts = self.tensor.n_experts
        each = self.shape[0] // n_experts
        for expert in range(n_experts):
            span = slice(expert * each, (expert + 1) * each)
            guidance = guide.of(self.tensor.name, self.quant_type, self.shape[1], expert, n_experts)
            try:
                self.data[span] = encode_in_range(encoder, rows[span], self.quant_type, guidance)
            except OutOfRangeError as error:
                raise OutOfRange(self.tensor.name, self.quant_type, error.peak) from error
        stored = decode(torch.from_numpy(self.data), self.quant_type, self.shape, self._device, encoder.threads)
        if self.latent is None:
            self.error_rms = float((torch.from_numpy(rows).to(self._device) - stored).square().mean().sqrt())
        return stored

    def _rows(self) -> NDArray[np.float32]:
        """The latents or the original weights, where the encoder reads them."""
        if self.latent is None:
            return self.tensor.load_rows(0, self.shape[0])
        if self._device == "cpu":
            staged = self.latent.detach()
        else:
            # pinned memory is many times faster to copy to and from, and torch keeps it for the next time
            staged = torch.empty(self.shape, pin_memory=True).copy_(self.latent.detach())
        rows: NDArray[np.float32] = staged.numpy()
        return rows


class Student:
    """The transformers model with the stored weights in it; `parameters` are its own, by name."""

    def __init__(
        self,
        model: Any,
        matrices: Sequence[Matrix],
        norms: Mapping[str, NormLink],
        guide: Guide,
        encoder: Encoder,
    ) -> None:
        self.model, self.matrices, self.norms = model, matrices, norms
        self.parameters: dict[str, torch.Tensor] = dict(model.named_parameters())
        self._guide, self._encoder = guide, encoder
        model.requires_grad_(False)
        self.refresh(matrices)

    def train_norms(self) -> list[torch.Tensor]:
        """Let the norms have gradients, and give them back."""
        return [self.parameters[link.parameter].requires_grad_(True) for link in self.norms.values()]

    def train_matrices(self, wanted: Sequence[Matrix]) -> list[Matrix]:
        """Make latents of these matrices, and let the parameters that they are made of have gradients."""
        for matrix in wanted:
            matrix.train()
            for piece in matrix.link.pieces:
                self.parameters[piece.parameter].requires_grad_(True)
        return list(wanted)

    def refresh(self, matrices: Sequence[Matrix]) -> None:
        """Encode the latents of these matrices and compute with the result from now on."""
        with torch.no_grad():
            for matrix in matrices:
                matrix.link.scatter(matrix.encode(self._guide, self._encoder), self.parameters)

    def pass_gradients(self) -> None:
        """Move the gradients of the stored weights to the latents."""
        gradients: dict[str, torch.Tensor] = {}
        for matrix in self.matrices:
            if matrix.latent is None:
                continue
            for piece in matrix.link.pieces:
                parameter = self.parameters[piece.parameter]
                gradients[piece.parameter] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            if matrix.latent.grad is None:
                matrix.latent.grad = torch.empty_like(matrix.latent)
            matrix.link.gather(gradients, matrix.latent.grad)
        for name in gradients:
            self.parameters[name].grad = None

    def content(self) -> Content:
        """What is stored at this moment."""
        norms = {}
        for name, link in self.norms.items():
            own = self.parameters[link.parameter].detach().float().cpu().numpy()
            norms[name] = (own * np.float32(link.scale) + np.float32(link.offset)).astype(np.float32)
        return Content({matrix.tensor.name: matrix.data.copy() for matrix in self.matrices}, norms)
