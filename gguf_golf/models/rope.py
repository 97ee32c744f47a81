"""Rotary positions: what config.json asks for, as the GGUF keys and frequency factors that llama.cpp reads.

Settings are read as transformers does (modeling_rope_utils). llama.cpp reads a factor, the original context and
rope.scaling.attn_factor, a multiplier of its own 1 + 0.1 ln(factor); where that does not express YaRN, every frequency
gets a divisor of its own (rope_freqs.weight), on architectures that have that tensor.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import GGUFWriter, RopeScalingType

from gguf_golf.errors import InputError
from gguf_golf.models.config import Config
from gguf_golf.models.model import FloatArray

KINDS = ("default", "linear", "dynamic", "yarn", "llama3")

KNOWN_KEYS = {
    "rope_type", "type", "rope_theta", "partial_rotary_factor", "factor", "original_max_position_embeddings",
    "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate", "low_freq_factor",
    "high_freq_factor",
}  # fmt: skip


@dataclass(frozen=True)
class Rope:
    """The rotary positions of one checkpoint, or of one kind of its layers."""

    kind: str
    theta: float
    factor: float = 1.0
    trained_context: int = 0  # YaRN and llama3: the length that the model was trained with
    attention_factor: float = 1.0  # of cos and sin
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True  # YaRN: whether the bounds of the ramp are rounded to whole dimensions
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def __post_init__(self) -> None:
        for name in ("theta", "factor", "trained_context"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0) and not (name == "trained_context" and value == 0):
                raise ValueError(f"{name}: it is {value}, and must be positive")
        if not 0 < self.low_freq_factor < self.high_freq_factor < math.inf:
            raise ValueError(f"high_freq_factor: {self.high_freq_factor}, against a low one of {self.low_freq_factor}")

    @property
    def needs_frequencies(self) -> bool:
        """Whether llama.cpp's scaling keys cannot express this, so that it takes rope_freqs.weight."""
        return self.kind == "llama3" or (
            self.kind == "yarn" and (self.beta_fast, self.beta_slow, self.truncate) != (32.0, 1.0, True)
        )

    def add_keys(self, writer: GGUFWriter) -> None:
        """Add rope.* to `writer`."""
        if self.kind in ("linear", "yarn") and not self.needs_frequencies:
            writer.add_rope_scaling_type(RopeScalingType.LINEAR if self.kind == "linear" else RopeScalingType.YARN)
            writer.add_rope_scaling_factor(self.factor)
        if self.kind == "yarn":
            multiplier = self.attention_factor
            if not self.needs_frequencies:
                writer.add_rope_scaling_orig_ctx_len(self.trained_context)
                multiplier /= _yarn_attention(self.factor)
            if not math.isclose(multiplier, 1.0, rel_tol=1e-6):
                writer.add_rope_scaling_attn_factors(multiplier)
        writer.add_rope_freq_base(self.theta)

    def frequency_divisors(self, head_dim: int) -> FloatArray | None:
        """rope_freqs.weight, f32 (head_dim / 2): what llama.cpp divides each rotary frequency by; None if all are 1."""
        if not self.needs_frequencies:
            return None
        return self._llama3_divisors(head_dim) if self.kind == "llama3" else self._yarn_divisors(head_dim)

    def _llama3_divisors(self, head_dim: int) -> FloatArray:
        """Source: transformers' _compute_llama3_parameters, evaluated in f32 like llama.cpp's converter."""
        exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
        wavelengths = np.float32(2 * math.pi) / (np.float32(1) / np.float32(self.theta) ** exponents)
        low, high, trained = self.low_freq_factor, self.high_freq_factor, self.trained_context
        smooth = (np.float32(trained) / wavelengths - np.float32(low)) / np.float32(high - low)
        blended = 1 / ((1 - smooth) / np.float32(self.factor) + smooth)
        divisors = np.where(wavelengths > trained / low, self.factor, blended)
        return np.where(wavelengths < trained / high, 1.0, divisors).astype(np.float32)

    def _yarn_divisors(self, head_dim: int) -> FloatArray:
        """Source: transformers' _compute_yarn_parameters."""

        def dimension(rotations: float) -> float:
            ratio = self.trained_context / (rotations * 2 * math.pi)
            return head_dim * math.log(ratio) / (2 * math.log(self.theta))

        low, high = dimension(self.beta_fast), dimension(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, head_dim - 1)
        if low == high:
            high += 0.001
        ramp = np.clip((np.arange(head_dim // 2) - low) / (high - low), 0, 1)
        return np.asarray(1 / ((1 - ramp) + ramp / self.factor), np.float32)


def read(config: Config) -> Rope:
    """The one kind of rotary positions of all layers. Raises InputError for invalid or unknown settings."""
    return of(config, settings(config), config.number("rope_theta", 10000.0))


def settings(config: Config) -> dict[str, Any]:
    """rope_parameters, or rope_scaling, which transformers prefers where both are there."""
    old, new = config.get("rope_scaling") or {}, config.get("rope_parameters") or {}
    for given in (old, new):
        if not isinstance(given, dict):
            raise InputError(f"{config.directory}/config.json: rope_scaling must be an object, not {given!r}")
    if old and new and old != new:
        theta = old.get("rope_theta", config.get("rope_theta", 10000.0))
        if new.get("rope_theta", theta) != theta:
            raise InputError(
                f"{config.directory}/config.json has both rope_scaling and rope_parameters, and transformers would "
                "take the one and lose the rope_theta of the other: move rope_scaling into rope_parameters"
            )
        config.note("config.json has rope_scaling and rope_parameters; like transformers, only rope_scaling is used")
    return dict(old or new)


def of(config: Config, given: dict[str, Any], theta: float) -> Rope:
    """Read one set of settings; `theta` is used where they have no rope_theta of their own."""
    kind = str(given.get("rope_type", given.get("type", "default")))
    where = f"{config.directory}/config.json"
    if kind not in KINDS:
        raise InputError(f"{where}: rope scaling {kind!r} is not known for this architecture")
    if nested := [key for key, value in given.items() if isinstance(value, dict)]:
        raise InputError(f"{where}: rope settings for {nested[0]}; llama.cpp has one for all layers here")
    if unknown := sorted(given.keys() - KNOWN_KEYS):
        config.note(f"config.json's rope settings have {', '.join(unknown)}, which transformers does not use either")
    partial = given.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        if kind == "default":
            config.note(f"partial_rotary_factor is {partial}, which transformers does not use for this class either")
        else:
            raise InputError(f"{where}: partial_rotary_factor {partial} with {kind} rope scaling is not known here")
    if kind == "dynamic":
        config.note("config.json asks for dynamic rope scaling, which acts only beyond max_position_embeddings; "
                    "llama.cpp has nothing like it")  # fmt: skip
    try:
        theta = float(given.get("rope_theta", theta))
        if kind in ("default", "dynamic"):
            return Rope(kind, theta)
        # transformers lets the value beside the settings win, and takes the whole context where there is neither
        trained = config.get("original_max_position_embeddings") or given.get("original_max_position_embeddings")
        trained = int(trained or config.integer("max_position_embeddings", 2048))
        factor = given["factor"]
        factor = config.integer("max_position_embeddings", 2048) / trained if factor is None else float(factor)
        if kind == "yarn":
            return _yarn(given, theta, factor, trained)
        if kind == "llama3":
            low, high = float(given.get("low_freq_factor", 1.0)), float(given.get("high_freq_factor", 4.0))
            return Rope(kind, theta, factor, trained, low_freq_factor=low, high_freq_factor=high)
        return Rope(kind, theta, factor)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where}: {kind} rope scaling lacks a valid {error}") from error


def _yarn(given: dict[str, Any], theta: float, factor: float, trained: int) -> Rope:
    attention, mscale, mscale_all = (given.get(key) for key in ("attention_factor", "mscale", "mscale_all_dim"))
    if attention is None and mscale and mscale_all:
        attention = _yarn_attention(factor, float(mscale)) / _yarn_attention(factor, float(mscale_all))
    return Rope(
        "yarn",
        theta,
        factor,
        trained,
        attention_factor=_yarn_attention(factor) if attention is None else float(attention),
        beta_fast=float(given.get("beta_fast") or 32),
        beta_slow=float(given.get("beta_slow") or 1),
        truncate=bool(given.get("truncate", True)),
    )


def _yarn_attention(factor: float, mscale: float = 1.0) -> float:
    """The factor of cos and sin that the YaRN paper suggests."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0
