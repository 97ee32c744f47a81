"""The subject of the experiments: a transformers model as matrices, with what calibration knows of each.

Weights are replaced in the running model, so no kernel is needed for what is only simulated. Experts that transformers
fuses into one parameter are taken apart, so that every matrix is a linear layer with inputs of its own.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from gguf_golf.calibrate.chunks import text_chunks, with_bos
from gguf_golf.quantize.cached import as_gguf
from gguf_golf.runtime.session import LoadedModel

N_CTX = 512
VOCABULARY = "vocabulary"
"""The matrix that is both the embedding and the head."""


@dataclass
class Source:
    """What enters one or several matrices: `halves` f64 [2, k, k], sums of x x^T over even and odd batches of text,
    divided by the number of all tokens (of which an expert sees a part)."""

    halves: Tensor

    @property
    def hessian(self) -> Tensor:
        """f32 [k, k]: E[x x^T] over all tokens; zero for tokens that do not come here."""
        return self.halves.sum(0).float()


@dataclass
class Matrix:
    """One linear layer. `tensor` is the stored tensor that it is part of: all experts of a layer share one.

    `original` f32 [n, k]; `gradients` f64 [2, n], E[g^2] of its outputs over even and odd batches, per token that comes
    here, for the log-likelihood of labels that the model draws itself (its Fisher information); `lookups` f32 [n, k],
    E[g^2] of the looked-up embedding over all tokens, for the vocabulary alone.
    """

    name: str
    tensor: str
    module: nn.Linear
    original: Tensor
    source: Source
    gradients: Tensor
    lookups: Tensor | None = None

    @property
    def kind(self) -> str:
        """vocabulary, attention or mlp."""
        if self.name == VOCABULARY:
            return VOCABULARY
        return "attention" if "attn" in self.name else "mlp"

    @property
    def hessian(self) -> Tensor:
        """f32 [k, k] of the input."""
        return self.source.hessian

    @property
    def row_weights(self) -> Tensor:
        """f32 [n]: E[g^2] of each output."""
        return self.gradients.mean(0).float()

    def damage(self, error: Tensor) -> float:
        """KLD in nats that Fisher's quadratic form predicts for an error f32 [n, k]."""
        return float(self.row_damages(error).sum())

    def row_damages(self, error: Tensor) -> Tensor:
        """The same by row, f32 [n]: half of E[g_i^2] e_i H e_i, and for the vocabulary what looking up wrong rows
        adds."""
        damages = self.row_weights * ((error @ self.hessian) * error).sum(1)
        if self.lookups is not None:
            damages = damages + (self.lookups * error.square()).sum(1)
        return damages / 2

    def gains(self, error: Tensor) -> Tensor:
        """f32 [n, k]: by how much the predicted damage falls if this one error becomes zero.

        With error feedback errors compensate for each other, so that removing one can do harm: gains can be negative.
        """
        product = error @ self.hessian
        gains = self.row_weights[:, None] * (2 * error * product - error.square() * self.hessian.diagonal())
        if self.lookups is not None:
            gains = gains + self.lookups * error.square()
        return gains / 2


class _Experts(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Fused experts as linear layers; computes what transformers' own loop does."""

    def __init__(self, fused: Any) -> None:
        super().__init__()
        self.act = fused.act_fn
        gate, up = fused.gate_up_proj.chunk(2, dim=1)
        for name, stack in (("gate_proj", gate), ("up_proj", up), ("down_proj", fused.down_proj)):
            setattr(self, name, nn.ModuleList(_linear(weight) for weight in stack))

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """x [tokens, d], chosen and weights [tokens, experts per token]."""
        out = torch.zeros_like(x)
        for expert, (gate, up, down) in enumerate(zip(self.gate_proj, self.up_proj, self.down_proj, strict=True)):
            token, place = torch.where(chosen == expert)
            if len(token):
                inputs = x[token]
                y = down(self.act(gate(inputs)) * up(inputs)) * weights[token, place, None]
                out = out.index_add(0, token, y.to(out.dtype))
        return out


def _linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    return layer


@dataclass
class Subject:
    """A loaded model and its matrices, by name. `fixed_bytes` is all that stays as it is: norms, routers;
    `token_counts` int64 [n_vocab], how often each token is in the calibration text."""

    model: Any
    device: str
    matrices: dict[str, Matrix]
    fixed_bytes: int
    token_counts: Tensor
    original_norms: dict[str, Tensor] = field(default_factory=dict)
    _content: dict[str, Tensor] = field(default_factory=dict)
    _hooks: list[Any] = field(default_factory=list)

    @property
    def norms(self) -> dict[str, nn.Parameter]:
        """The norms' weights, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.ndim == 1}

    def fill(
        self,
        weights: Mapping[str, Tensor],
        norms: Mapping[str, Tensor] | None = None,
        inputs: Mapping[str, nn.Module] | None = None,
    ) -> None:
        """Put these weights and norms into the model, and the original ones wherever there are none; `inputs` says what
        is done to what enters a matrix."""
        for name, norm in self.norms.items():
            norm.data.copy_((norms or {}).get(name, self.original_norms[name]))
        for name, matrix in self.matrices.items():
            self.put(matrix, weights.get(name, matrix.original))
        while self._hooks:
            self._hooks.pop().remove()
        for name, change in (inputs or {}).items():
            hook = self.matrices[name].module.register_forward_pre_hook(lambda _, x, change=change: change(*x))
            self._hooks.append(hook)

    def put(self, matrix: Matrix, content: Tensor) -> None:
        """Let the model compute with this content of a matrix, f32 [n, k]."""
        if self._content.get(matrix.name) is not content:
            matrix.module.weight.data.copy_(content)
            self._content[matrix.name] = content

    def __post_init__(self) -> None:
        self.original_norms = {name: norm.detach().clone() for name, norm in self.norms.items()}

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        """f32 [n, n_ctx / 2 - 1, n_vocab] for the second half of each chunk, as llama-perplexity judges."""
        return log_probabilities(self.model, tokens)


def log_probabilities(model: Any, tokens: Tensor) -> Tensor:
    """See `Subject.log_probabilities`."""
    hidden = model.model(tokens).last_hidden_state[:, tokens.shape[1] // 2 : -1]
    return torch.log_softmax(model.lm_head(hidden).float(), -1)


class Texts:
    """Chunks of tokens as llama.cpp makes them."""

    def __init__(self, path: Path, device: str) -> None:
        self._gguf, self._device = as_gguf(path), device

    def chunks(self, text: Path, n: int, first: int = 0) -> Tensor:
        """int64 [n, N_CTX] on the device, from chunk `first` on."""
        with LoadedModel(self._gguf, vocab_only=True) as model:
            found = text_chunks(model, text, N_CTX, first + n)[first:]
            return torch.from_numpy(np.stack([with_bos(model, each) for each in found])).long().to(self._device)

    def chunks_of(self, text: str, n: int) -> Tensor:
        """The same of a string."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "text.txt"
            path.write_text(text, encoding="utf-8")
            return self.chunks(path, n)


def load(path: Path, device: str, calibration: Tensor, seed: int) -> Subject:
    """Load a transformers folder or a GGUF that transformers dequantizes, and calibrate it on chunks [n, N_CTX]."""
    transformers.utils.logging.disable_progress_bar()
    where = {"gguf_file": path.name} if path.is_file() else {}
    folder = path.parent if path.is_file() else path
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, **where
    )
    for module in list(model.modules()):
        if hasattr(getattr(module, "experts", None), "gate_up_proj"):
            module.experts = _Experts(module.experts)
    model = model.to(device).eval().requires_grad_(False)
    torch.linalg.solve(torch.eye(2, device=device), torch.eye(2, device=device))  # loads cuSOLVER; threads cannot
    if model.lm_head.weight is not model.model.embed_tokens.weight:
        raise SystemExit(f"{path}: the experiments are made for models whose head is tied to the embedding")
    layers = dict(_layers(model))
    sources, gradients, lookups = _calibrate(model, layers, calibration, seed)
    matrices = {
        name: Matrix(name, _tensor(name), layer, layer.weight.detach().clone(), sources[name], gradients[name])
        for name, layer in layers.items()
    }
    matrices[VOCABULARY].lookups = lookups
    fixed = sum(p.numel() for p in model.parameters()) - sum(m.original.numel() for m in matrices.values())
    counts = torch.bincount(calibration.flatten(), minlength=len(lookups))
    return Subject(model, device, matrices, 4 * fixed, counts)


def _layers(model: Any) -> Iterator[tuple[str, nn.Linear]]:
    for name, module in model.model.layers.named_modules():
        if isinstance(module, nn.Linear):
            yield name, module
    yield VOCABULARY, model.lm_head


def _tensor(name: str) -> str:
    return name.rpartition(".")[0] if name.rpartition(".")[2].isdigit() else name


def _calibrate(
    model: Any, layers: Mapping[str, nn.Linear], chunks: Tensor, seed: int
) -> tuple[dict[str, Source], dict[str, Tensor], Tensor]:
    """Hessians of the inputs, E[g^2] of the outputs, and E[g^2] of looked-up embeddings, f32 [n_vocab, d]."""
    device = chunks.device
    sources: dict[str, Source] = {}
    batch, half, last = 0, 0, (-1, torch.empty(0), Source(torch.empty(0)))

    def collect(name: str, x: Tensor) -> None:
        nonlocal last
        if name not in sources:
            shared = last[1].data_ptr() == x.data_ptr() and last[1].shape == x.shape
            k = x.shape[-1]
            zeros = torch.zeros(2, k, k, dtype=torch.float64, device=device)
            sources[name] = last[2] if shared else Source(zeros)
        if sources[name] is not last[2] or last[0] != batch:
            rows = x.reshape(-1, x.shape[-1])
            sources[name].halves[batch % 2] += (rows.T @ rows).double() / chunks.numel()
        last = (batch, x, sources[name])

    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: collect(name, args[0]))
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        for batch, chunk in enumerate(chunks.split(4)):  # noqa: B007 (the hooks read it)
            model(chunk)
    for hook in hooks:
        hook.remove()
    for name, layer in layers.items():  # an expert that no token came to
        k = layer.weight.shape[1]
        sources.setdefault(name, Source(torch.zeros(2, k, k, dtype=torch.float64, device=device)))

    n_rows = {name: len(layer.weight) for name, layer in layers.items()}
    squares = {name: torch.zeros(2, n, dtype=torch.float64, device=device) for name, n in n_rows.items()}
    counts = {name: torch.zeros(2, 1, dtype=torch.float64, device=device) for name in layers}
    lookups = torch.zeros_like(model.lm_head.weight)

    def observe(name: str, gradient: Tensor) -> None:
        rows = gradient.reshape(-1, gradient.shape[-1])
        squares[name][half] += rows.square().sum(0)
        counts[name][half] += len(rows)

    hooks = [
        layer.register_forward_hook(
            lambda _, __, out, name=name: None if not out.requires_grad else _watch(out, name, observe)
        )
        for name, layer in layers.items()
    ]
    generator = torch.Generator(device).manual_seed(seed)
    for i, chunk in enumerate(chunks.split(2)):
        half = i % 2
        embedded = model.model.embed_tokens(chunk).detach().requires_grad_(True)
        logits = model(inputs_embeds=embedded).logits
        drawn = torch.multinomial(logits.detach().softmax(-1).flatten(0, 1), 1, generator=generator)
        nn.functional.cross_entropy(logits.flatten(0, 1), drawn[:, 0], reduction="sum").backward()
        lookups.index_add_(0, chunk.flatten(), embedded.grad.flatten(0, 1).square() / chunks.numel())
    for hook in hooks:
        hook.remove()
    return sources, {name: squares[name] / counts[name].clamp(min=1) for name in layers}, lookups


def _watch(out: Tensor, name: str, observe: Any) -> None:
    out.register_hook(lambda gradient: observe(name, gradient))
