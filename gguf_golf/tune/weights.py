"""The weights that are trained: latents in f32, the bytes that the encoder makes of them, and the model that has those.

The model computes with what is stored, and its gradients move the latents (a straight-through estimator); now and then
the latents are encoded again, with the encoder that writes files.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gguf_golf.encode import Encoder, Guidance, Guide
from gguf_golf.encode.magnitude import HARMLESS, OutOfRangeError, encode_in_range, largest, within
from gguf_golf.formats.types import QuantType
from gguf_golf.models import LazyTensor
from gguf_golf.quantize.stored import OutOfRange
from gguf_golf.tune.decode import decode
from gguf_golf.tune.mapping import MatrixLink, NormLink
from gguf_golf.tune.refit import CODEBOOKS, REFITS, Codebook, Refit

HOLD = 0.0
"""How much the encoder prefers what is stored: it encodes the latents moved towards it by this share."""


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
    """One quantized tensor: its type, its place, what is `stored` f32 [n_rows, k] and its bytes `data` u8, and `latent`
    f32 [n_rows, k] if it is trained."""

    def __init__(self, tensor: LazyTensor, quant_type: QuantType, link: MatrixLink, device: str) -> None:
        self.tensor, self.quant_type, self.link, self._device = tensor, quant_type, link.to(device), device
        self.shape = (tensor.n_rows, tensor.shape[-1])
        self.data = torch.empty((self.shape[0], quant_type.row_bytes(self.shape[1])), dtype=torch.uint8)
        self.stored = torch.empty(0)
        self.latent: torch.Tensor | None = None

    def begin(self, guide: Guide, encoder: Encoder, data: torch.Tensor | None) -> None:
        """Store the original weights: as `data` has them, or encoded here.

        What ggml takes minutes for is searched on the device. Raises OutOfRange for weights that the type cannot hold.
        """
        rows = self.tensor.load_rows(0, self.shape[0]) if data is None else None
        if rows is not None and (codebook := self._codebook(rows)):
            data = self._anew(codebook, torch.from_numpy(rows).to(self._device), guide)
        if data is not None:
            self.put(data, encoder.threads)
        elif rows is not None:
            self._encode(rows, guide, encoder)

    def put(self, data: torch.Tensor, threads: int) -> None:
        """Store these bytes."""
        self.data = data.reshape(self.data.shape)
        self.stored = decode(self.data.cpu(), self.quant_type, self.shape, self._device, threads)

    def train(self) -> float:
        """Make the original weights the latents; the rms of the encoding error."""
        rows = torch.from_numpy(self.tensor.load_rows(0, self.shape[0])).to(self._device)
        self.latent = rows.requires_grad_(True)
        return float((rows.detach() - self.stored).square().mean().sqrt())

    def encode(self, guide: Guide, encoder: Encoder) -> None:
        """Encode the latents, if there are any.

        Raises OutOfRange for weights that the type cannot hold, or that are not numbers.
        """
        if self.latent is None:
            return
        latent = self.latent.detach()
        target = torch.lerp(latent, self.stored, HOLD)
        if self.quant_type.name in REFITS:
            self._refit(REFITS[self.quant_type.name], target, guide, encoder.threads)
        elif self._device == "cpu":
            self._encode(target.numpy(), guide, encoder)
        else:
            # pinned memory is many times faster to copy to and from, and torch keeps it for the next time
            self._encode(torch.empty(self.shape, pin_memory=True).copy_(target).numpy(), guide, encoder)

    def release(self) -> None:
        """Give back the memory of all but the bytes."""
        self.latent, self.stored = None, torch.empty(0)

    def _encode(self, rows: NDArray[np.float32], guide: Guide, encoder: Encoder) -> None:
        """With the encoder that writes files."""
        for span, guidance in self._experts(guide):
            try:
                self.data[span] = torch.from_numpy(encode_in_range(encoder, rows[span], self.quant_type, guidance))
            except OutOfRangeError as error:
                raise OutOfRange(self.tensor.name, self.quant_type, error.peak) from error
        self.stored = decode(self.data, self.quant_type, self.shape, self._device, encoder.threads)

    def _refit(self, refit: Refit, rows: torch.Tensor, guide: Guide, threads: int) -> None:
        """On the device, from what is stored."""
        if not bool(torch.isfinite(rows).all()):
            raise OutOfRange(self.tensor.name, self.quant_type, float("nan"))
        data, stored = self.data.to(self._device), []
        for span, importance in self._importances(guide):
            data[span], weights = refit.rows(data[span], rows[span], importance)
            stored.append(weights)
        self.data = data
        # as llama.cpp rounds it on a CPU, where an interrupted run resumes with the same bits
        self.stored = torch.cat(stored)
        if self._device == "cpu":
            self.put(data, threads)

    def _codebook(self, rows: NDArray[np.float32]) -> Codebook | None:
        """None for another type, and where weights may be out of its range, of which ggml's encoder is asked."""
        return CODEBOOKS.get(self.quant_type.name) if within(largest(rows), HARMLESS) else None

    def _anew(self, codebook: Codebook, rows: torch.Tensor, guide: Guide) -> torch.Tensor:
        """Bytes on the device, from nothing."""
        return torch.cat([codebook.anew(rows[span], importance) for span, importance in self._importances(guide)])

    def _importances(self, guide: Guide) -> Iterator[tuple[slice, torch.Tensor | None]]:
        """The rows of each expert, and f32 [k] on the device."""
        for span, guidance in self._experts(guide):
            known = guidance.importance
            yield span, None if known is None else torch.from_numpy(known).to(self._device)

    def _experts(self, guide: Guide) -> Iterator[tuple[slice, Guidance]]:
        """The rows of each expert and what is known of their inputs; a dense matrix is one expert."""
        n_experts = self.tensor.n_experts
        each = self.shape[0] // n_experts
        for expert in range(n_experts):
            guidance = guide.of(self.tensor.name, self.quant_type, self.shape[1], expert, n_experts)
            yield slice(expert * each, (expert + 1) * each), guidance


class Student:
    """The transformers model with the stored weights in it; `parameters` are its own, by name."""

    def __init__(
        self,
        model: Any,
        matrices: Sequence[Matrix],
        norms: Mapping[str, NormLink],
        guide: Guide,
        encoder: Encoder,
        start: Mapping[str, torch.Tensor],
    ) -> None:
        """`start` has bytes u8 of matrices that are encoded already, by name."""
        self.model, self.matrices, self.norms = model, matrices, norms
        self.parameters: dict[str, torch.Tensor] = dict(model.named_parameters())
        self._guide, self._encoder = guide, encoder
        model.requires_grad_(False)
        for matrix in matrices:
            matrix.begin(guide, encoder, start.get(matrix.tensor.name))
        self._place(matrices)

    def train_norms(self) -> list[torch.Tensor]:
        """Let the norms have gradients, and give them back."""
        return [self.parameters[link.parameter].requires_grad_(True) for link in self.norms.values()]

    def train_matrices(self, wanted: Sequence[Matrix]) -> list[float]:
        """Make latents of these matrices, let the parameters that they are made of have gradients, and give back each
        matrix's rms encoding error."""
        for matrix in wanted:
            for piece in matrix.link.pieces:
                self.parameters[piece.parameter].requires_grad_(True)
        return [matrix.train() for matrix in wanted]

    def refresh(self, matrices: Sequence[Matrix]) -> None:
        """Encode the latents of these matrices and compute with the result from now on."""
        for matrix in matrices:
            matrix.encode(self._guide, self._encoder)
        self._place(matrices)

    def put(self, content: Content) -> None:
        """Compute with this content."""
        for matrix in self.matrices:
            matrix.put(torch.from_numpy(content.matrices[matrix.tensor.name]), self._encoder.threads)
        self._place(self.matrices)
        with torch.no_grad():
            for name, link in self.norms.items():
                own = (content.norms[name] - np.float32(link.offset)) / np.float32(link.scale)
                self.parameters[link.parameter].copy_(torch.from_numpy(own))

    def restore(self, matrices: Sequence[Matrix], data: Sequence[torch.Tensor]) -> None:
        """Compute with these bytes of these matrices."""
        for matrix, each in zip(matrices, data, strict=True):
            matrix.put(each, self._encoder.threads)
        self._place(matrices)

    def _place(self, matrices: Sequence[Matrix]) -> None:
        with torch.no_grad():
            for matrix in matrices:
                matrix.link.scatter(matrix.stored, self.parameters)

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
        return Content({matrix.tensor.name: matrix.data.cpu().numpy().copy() for matrix in self.matrices}, norms)
