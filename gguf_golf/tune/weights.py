"""The weights that are trained: latents in f32, the bytes that the encoder makes of them, and the model that has those.

The model computes with what is stored, and its gradients move the latents (a straight-through estimator); now and then
the latents are encoded again, with the encoder that writes files.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gguf_golf.encode import Encoder, Guidance, Guide
from gguf_golf.encode.cuda import CudaEncoder
from gguf_golf.encode.magnitude import HARMLESS, OutOfRangeError, encode_in_range, largest, within
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models import LazyTensor
from gguf_golf.quantize.stored import OutOfRange
from gguf_golf.tune.decode import decode
from gguf_golf.tune.mapping import MatrixLink, NormLink
from gguf_golf.tune.refit import CODEBOOKS, REFITS, Codebook, Refit

TRELLIS_STEPS = 2.5
"""How far a latent of a TCQ type goes in a step, in units of the relative encoding error, where those of other types go
1: a trellis is searched anew at every encoding and takes other paths, and at a high rate what they lose is more than
what is learned."""

TRUST = 1.5
"""A latent of a TCQ type that is further from what is stored, in units of the rms encoding error, gets no gradient
there (QuEST, arXiv:2502.05003): its code does not follow, and so the gradient says nothing of it."""

REFITTED_AT_ONCE = {"cuda": 1 << 26, "cpu": 1 << 22}
"""Weights of several matrices that are encoded again together: a GPU takes as long for one matrix as for dozens."""


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
        self.tensor, self.quant_type, self.link, self.device = tensor, quant_type, link.to(device), device
        self.shape = (tensor.n_rows, tensor.shape[-1])
        self.data = torch.empty((self.shape[0], quant_type.row_bytes(self.shape[1])), dtype=torch.uint8)
        self.stored = torch.empty(0)
        self.latent: torch.Tensor | None = None
        self._leaves: list[torch.Tensor] = []  # the latent's rows of each expert, in the same memory
        self._trusted = math.inf  # how far a latent may be from what is stored
        self._gradient: torch.Tensor | None = None
        self._importance: torch.Tensor | None = None

    def begin(self, guide: Guide, encoder: Encoder, data: torch.Tensor | None) -> None:
        """Store the original weights: as `data` has them, or encoded here.

        Codebooks are searched on a GPU. Raises OutOfRange for weights that the type cannot hold.
        """
        rows = self.tensor.load_rows(0, self.shape[0]) if data is None else None
        if rows is not None and (codebook := self._codebook(rows)):
            blocks = torch.from_numpy(rows).to(self.device).view(-1, self.quant_type.block_size)
            data = codebook.anew(blocks, self.importances(guide))
        if data is not None:
            self.put(data, encoder.threads)
        elif rows is not None:
            self._encode(rows, guide, encoder)

    def put(self, data: torch.Tensor, threads: int) -> None:
        """Store these bytes."""
        self.data = data.reshape(self.data.shape)
        self.stored = decode(self.data.cpu(), self.quant_type, self.shape, self.device, threads)

    def train(self, guide: Guide) -> list[tuple[torch.Tensor, float]]:
        """Make the original weights the latents: those of each expert, with the measure of their steps. That is the
        rms of the encoding error (see TRELLIS_STEPS for TCQ types), and less for an expert that gets fewer tokens than
        the mean: Adam's steps are as long where there is little but noise, and so it stays near its first encoding."""
        self.latent = torch.from_numpy(self.tensor.load_rows(0, self.shape[0])).to(self.device)
        error = float((self.latent - self.stored).square().mean().sqrt())
        if self.quant_type.tcq and error:
            self._trusted = TRUST * error
            error *= TRELLIS_STEPS * error / float(self.latent.square().mean().sqrt())
        routed = np.minimum(guide.routed(self.tensor.name, self.tensor.n_experts), 1)
        self._leaves = [self.latent[span].requires_grad_(True) for span, _ in self._experts(guide)]
        return [(leaf, error * float(share)) for leaf, share in zip(self._leaves, routed, strict=True)]

    def take(self, gradients: Mapping[str, torch.Tensor]) -> None:
        """Give the latents the gradients of the parameters that they are stored in."""
        assert self.latent is not None
        if self._gradient is None:
            self._gradient = torch.empty_like(self.latent)
        gathered = self.link.gather(gradients, self._gradient)
        if self._trusted < math.inf:
            gathered = gathered.masked_fill((self.latent - self.stored).abs() > self._trusted, 0)
        for leaf, gradient in zip(self._leaves, gathered.split(len(self._leaves[0])), strict=True):
            leaf.grad = gradient

    def encode(self, guide: Guide, encoder: Encoder) -> None:
        """Encode the latents with the encoder that writes files.

        Raises OutOfRange for weights that the type cannot hold, or that are not numbers.
        """
        assert self.latent is not None
        if self.device == "cpu":
            self._encode(self.latent.numpy(), guide, encoder)
        elif isinstance(encoder, CudaEncoder) and self.quant_type.tcq and within(_peak(self.latent), HARMLESS):
            torch.cuda.synchronize()
            for span, guidance in self._experts(guide):
                self.data[span] = torch.from_numpy(encoder.encode(self.latent[span], self.quant_type, guidance))
            self.stored = decode(self.data, self.quant_type, self.shape, self.device, encoder.threads)
        else:
            # pinned memory is many times faster to copy to and from, and torch keeps it for the next time
            self._encode(torch.empty(self.shape, pin_memory=True).copy_(self.latent).numpy(), guide, encoder)

    def refitted(self, data: torch.Tensor, weights: torch.Tensor, threads: int) -> None:
        """Store blocks that were encoded again on the device, and what they mean.

        On a CPU it is what llama.cpp rounds it to, so that an interrupted run resumes with the same bits.
        """
        if self.device == "cpu":
            self.put(data, threads)
        else:
            self.data, self.stored = data.view(self.data.shape), weights.view(self.shape)

    @property
    def n_weights(self) -> int:
        """How many weights the tensor has."""
        return self.shape[0] * self.shape[1]

    def superblocks(self) -> torch.Tensor:
        """The latents f32 [B, block_size]."""
        assert self.latent is not None
        return self.latent.view(-1, self.quant_type.block_size)

    def blocks(self) -> torch.Tensor:
        """The bytes as blocks u8 [B, type_size] on the device."""
        return self.data.to(self.device).view(-1, self.quant_type.type_size)

    def importances(self, guide: Guide) -> torch.Tensor:
        """Of every weight, f32 [B, block_size] on the device; ones where nothing is known."""
        if self._importance is None:
            every = [guidance.importance for _, guidance in self._experts(guide)]
            known = [np.ones(self.shape[1], np.float32) if each is None else each for each in every]
            self._importance = torch.from_numpy(np.stack(known)).to(self.device)
        rows = self._importance.repeat_interleave(self.shape[0] // len(self._importance), 0)
        return rows.view(-1, self.quant_type.block_size)

    def release(self) -> None:
        """Give back the memory of all but the bytes."""
        self.latent, self._leaves, self._gradient, self.stored = None, [], None, torch.empty(0)

    def _encode(self, rows: NDArray[np.float32], guide: Guide, encoder: Encoder) -> None:
        """With the encoder that writes files."""
        for span, guidance in self._experts(guide):
            try:
                self.data[span] = torch.from_numpy(encode_in_range(encoder, rows[span], self.quant_type, guidance))
            except OutOfRangeError as error:
                raise OutOfRange(self.tensor.name, self.quant_type, error.peak) from error
        self.stored = decode(self.data, self.quant_type, self.shape, self.device, encoder.threads)

    def _codebook(self, rows: NDArray[np.float32]) -> Codebook | None:
        """None for another type, on a CPU, where ggml is faster, and for weights that may be out of range."""
        on_gpu = self.device != "cpu" and within(largest(rows), HARMLESS)
        return CODEBOOKS.get(self.quant_type.name) if on_gpu else None

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

    def train_matrices(self, wanted: Sequence[Matrix]) -> list[tuple[torch.Tensor, float]]:
        """Make latents of these matrices, and let the parameters that they are made of have gradients; what
        `Matrix.train` gives back."""
        for matrix in wanted:
            for piece in matrix.link.pieces:
                self.parameters[piece.parameter].requires_grad_(True)
        return [latent for matrix in wanted for latent in matrix.train(self._guide)]

    def refresh(self, matrices: Sequence[Matrix]) -> None:
        """Encode the latents of these matrices and compute with the result from now on.

        Raises OutOfRange for weights that their type cannot hold, or that are not numbers.
        """
        for matrix in matrices:
            if matrix.quant_type.name not in REFITS:
                matrix.encode(self._guide, self._encoder)
        for name, refit in REFITS.items():
            self._refit(refit, [matrix for matrix in matrices if matrix.quant_type.name == name])
        self._place(matrices)

    def _refit(self, refit: Refit, matrices: Sequence[Matrix]) -> None:
        for group in _groups(matrices):
            latents = torch.cat([matrix.superblocks() for matrix in group])
            if not bool(torch.isfinite(latents).all()):
                raise OutOfRange(group[0].tensor.name, group[0].quant_type, math.nan)
            data, weights = refit.blocks(
                torch.cat([matrix.blocks() for matrix in group]),
                latents,
                torch.cat([matrix.importances(self._guide) for matrix in group]),
            )
            counts = [len(matrix.blocks()) for matrix in group]
            for matrix, new, stored in zip(group, data.split(counts), weights.split(counts), strict=True):
                matrix.refitted(new, stored, self._encoder.threads)

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
            matrix.take(gradients)
        for name in gradients:
            self.parameters[name].grad = None

    def content(self) -> Content:
        """What is stored at this moment."""
        norms = {}
        for name, link in self.norms.items():
            own = self.parameters[link.parameter].detach().float().cpu().numpy()
            norms[name] = (own * np.float32(link.scale) + np.float32(link.offset)).astype(np.float32)
        return Content({matrix.tensor.name: matrix.data.cpu().numpy().copy() for matrix in self.matrices}, norms)


def _peak(rows: torch.Tensor) -> float:
    return float(rows.abs().max())


def _groups(matrices: Sequence[Matrix]) -> Iterator[list[Matrix]]:
    """Matrices that are encoded again together: of up to REFITTED_AT_ONCE weights, or one."""
    group: list[Matrix] = []
    for matrix in matrices:
        if group and sum(each.n_weights for each in [*group, matrix]) > REFITTED_AT_ONCE[matrix.device]:
            yield group
            group = []
        group.append(matrix)
    if group:
        yield group
