"""Rows of stock types encoded again on the training device, from where they are.

ggml's encoders search a block's scales from nothing, on the CPU. Between two steps of training the weights hardly move,
so each sub-block tries the scales next to its present one, with the best codes for each; then the superblock's own
scales are fitted to the codes. For one scale the codes are the best there are: codebooks are searched to the end.
"""

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from gguf import GGMLQuantizationType, quants

_SUPERBLOCK = 256

_SEARCHED_AT_ONCE = {"cuda": 1 << 28, "cpu": 1 << 22}
"""Numbers in the largest temporary array."""


class Refit(ABC):
    """A type whose blocks are encoded again. B counts blocks of 256 weights, S their sub-blocks, one scale each."""

    width: int
    """Numbers in memory for each weight and scale that is tried."""

    def blocks(self, data: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode x f32 [B, 256], for which `data` u8 [B, type_size] stands so far; w f32 [B, 256] weighs its errors.

        Returns the new bytes and the weights f32 [B, 256] that they mean. All on one device.
        """
        step = max(1, _SEARCHED_AT_ONCE[x.device.type] // (self.width * _SUPERBLOCK))
        done = [self._blocks(*slab) for slab in zip(data.split(step), x.split(step), w.split(step), strict=True)]
        return torch.cat([new for new, _ in done]), torch.cat([weights for _, weights in done])

    @abstractmethod
    def _blocks(self, data: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Blocks u8 [B, type_size] that stand for x f32 [B, 256] with importances w -> the same and what they mean."""


def _f16(data: torch.Tensor, at: int) -> torch.Tensor:
    """The f16 at this byte of each block, as f32 [B]."""
    return data[:, at : at + 2].contiguous().view(torch.float16).float().squeeze(1)


def _f16_bytes(values: torch.Tensor) -> torch.Tensor:
    return values.half().unsqueeze(1).view(torch.uint8)


def _fields(data: torch.Tensor, bits: int) -> torch.Tensor:
    """Bytes [B, n] -> their fields of so many bits [B, 8 / bits, n], lowest first."""
    shifts = torch.arange(0, 8, bits, device=data.device, dtype=torch.uint8).view(1, -1, 1)
    return (data.unsqueeze(1) >> shifts) & (2**bits - 1)


def _packed(fields: torch.Tensor, bits: int) -> torch.Tensor:
    """The inverse: fields [..., 8 / bits, n] -> bytes u8 [..., n]."""
    shifts = torch.arange(0, 8, bits, device=fields.device).view(-1, 1)
    return (fields.long() << shifts).sum(-2).to(torch.uint8)


def _bits(values: torch.Tensor) -> torch.Tensor:
    """0 and 1 [..., 8 n] -> bytes u8 [..., n], the first in the lowest bit."""
    return _packed(values.view(*values.shape[:-1], -1, 8).transpose(-1, -2), 1)


class _Best:
    """What has the least error so far for each sub-block: error f32 [B, S] and fields [B, S, ...]."""

    def __init__(self) -> None:
        self.error: torch.Tensor | None = None
        self.fields: tuple[torch.Tensor, ...] = ()

    def offer(self, error: torch.Tensor, *fields: torch.Tensor) -> None:
        if self.error is None:
            self.error, self.fields = error, fields
            return
        better = error < self.error
        self.error = torch.where(better, error, self.error)
        self.fields = tuple(
            torch.where(better.view(*better.shape, *[1] * (new.ndim - 2)), new, old)
            for new, old in zip(fields, self.fields, strict=True)
        )


def _fitted(x: torch.Tensor, w: torch.Tensor, unit: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    """The f16 scale [B] with the least error of scale * unit [B, 256] to x; the present one, `d`, if it is as good."""
    energy = (w * unit * unit).sum(1)
    fitted = ((w * unit * x).sum(1) / energy.clamp_min(1e-38)).half().float()
    errors = [(w * (scale.unsqueeze(1) * unit - x).square()).sum(1) for scale in (fitted, d)]
    return torch.where((errors[0] < errors[1]) & torch.isfinite(fitted), fitted, d)


class _Q2K(Refit):
    """d * scale * q - dmin * min, with q of 2 bits, scales and minima of 4 bits for 16 weights each."""

    width = 4

    def _blocks(self, data: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        n = len(data)
        d, dmin = (_f16(data, at).view(n, 1) for at in (80, 82))
        scale, low = (data[:, :16] & 15).int(), (data[:, :16] >> 4).int()
        xs, ws = x.view(n, 16, 16), w.view(n, 16, 16)
        best = _Best()
        for by in (0, -1, 1):
            s = (scale + by).clamp(0, 15)
            dl = (d * s).unsqueeze(2)
            inverse = torch.where(dl == 0, 0.0, 1 / dl)
            for lower in (0, -1, 1):
                m = (low + lower).clamp(0, 15)
                ml = (dmin * m).unsqueeze(2)
                q = ((xs + ml) * inverse).round_().clamp_(0, 3)
                best.offer((ws * (dl * q - ml - xs).square()).sum(2), s, m, q)
        s, m, q = best.fields
        unit = (s.unsqueeze(2) * q).view(n, 256)
        minima = m.unsqueeze(2).expand(n, 16, 16).reshape(n, 256).float()
        d = _fitted(x + dmin * minima, w, unit, d.squeeze(1))
        dmin = _fitted(d.unsqueeze(1) * unit - x, w, minima, dmin.squeeze(1))
        codes = _packed(q.view(n, 2, 4, 32), 2).view(n, 64)
        packed = [(s | (m << 4)).to(torch.uint8), codes, _f16_bytes(d), _f16_bytes(dmin)]
        dl, ml = (d.unsqueeze(1) * s).unsqueeze(2), (dmin.unsqueeze(1) * m).unsqueeze(2)
        return torch.cat(packed, 1), (dl * q - ml).view(n, 256)


class _Q3K(Refit):
    """d * scale * q, with q of -4 to 3 and scales of -32 to 31 for 16 weights each."""

    width = 4

    def _blocks(self, data: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        n = len(data)
        d = _f16(data, 108)
        low, high = _fields(data[:, 96:104], 4).reshape(n, 16), _fields(data[:, 104:108], 2).reshape(n, 16)
        scale = (low | (high << 4)).int() - 32
        xs, ws = x.view(n, 16, 16), w.view(n, 16, 16)
        best = _Best()
        for s in (scale, *((scale + by).clamp(-32, 31) for by in (-1, 1, -2, 2)), (-scale).clamp_max(31)):
            dl = (d.unsqueeze(1) * s).unsqueeze(2)
            q = (xs * torch.where(dl == 0, 0.0, 1 / dl)).round_().clamp_(-4, 3)
            best.offer((ws * (dl * q - xs).square()).sum(2), s, q)
        s, q = best.fields
        d = _fitted(x, w, (s.unsqueeze(2) * q).view(n, 256), d)
        code, bits = q.view(n, 256).int() + 4, s + 32
        packed = [
            _packed(code.view(n, 8, 32) >> 2, 1),
            _packed(code.view(n, 2, 4, 32) & 3, 2).view(n, 64),
            _packed((bits & 15).view(n, 2, 8), 4),
            _packed((bits >> 4).view(n, 4, 4), 2),
            _f16_bytes(d),
        ]
        return torch.cat(packed, 1), ((d.unsqueeze(1) * s).unsqueeze(2) * q).view(n, 256)


@dataclass(frozen=True)
class _Codes:
    """What a codebook type stores of blocks: d f32 [B], scales [B, S], indices [B, 256 / D], signs 0 or 1 [B, 256]."""

    d: torch.Tensor
    scale: torch.Tensor
    index: torch.Tensor
    sign: torch.Tensor


_SCALES = 16
_FIRST_SCALE, _ROUNDS = 9, 3
"""From nothing: the scale that the largest weight of a superblock gets at first, and how often all are searched."""


class Codebook(Refit):
    """d * (first + step * scale) * point * signs: a codebook has points of D magnitudes, scales have 4 bits."""

    def __init__(self, member: GGMLQuantizationType, per_scale: int, first: float, step: float, *, even: bool) -> None:
        """`even`: of 8 signs only those with an even number of minuses can be stored."""
        quantized = quants.__dict__["_type_traits"][member]
        quantized.init_grid()
        self._grid = torch.from_numpy(quantized.grid.reshape(quantized.grid_shape).copy())
        self._per_scale, self._first, self._step, self._even = per_scale, first, step, even
        self._everywhere = False
        self.width = self._grid.shape[0] // self._grid.shape[1]

    def anew(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Bytes for x f32 [B, 256] with importances w, from nothing: from the superblocks' largest weights, with every
        scale tried for each sub-block, a few times."""
        d = x.abs().amax(1) / (float(self._grid.max()) * (self._first + _FIRST_SCALE * self._step))
        scale, index, sign = (
            torch.zeros(len(x), _SUPERBLOCK // per, dtype=torch.long, device=x.device)
            for per in (self._per_scale, self._grid.shape[1], 1)
        )
        data = self._pack(_Codes(d, scale, index, sign))
        search = copy.copy(self)
        search._everywhere = True
        for _ in range(_ROUNDS):
            data, _weights = search.blocks(data, x, w)
        return data

    def _blocks(self, data: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        n, sub = len(data), _SUPERBLOCK // self._per_scale
        d, scale = self._scales(data)
        magnitude, sign = self._signed(x, w)
        grid = self._grid.to(x.device)
        length = grid.shape[1]
        product = (w * magnitude).view(-1, length) @ grid.T
        energy = w.view(-1, length) @ grid.square().T
        best = _Best()
        for s in self._tried(scale):
            dl = (d.unsqueeze(1) * (self._first + self._step * s)).repeat_interleave(self._per_scale // length, 1)
            error, index = (dl.view(-1, 1) * (dl.view(-1, 1) * energy - 2 * product)).min(1)
            best.offer(error.view(n, sub, -1).sum(2), s, index.view(n, sub, -1))
        s, index = best.fields
        index = index.view(n, -1)
        factor = self._first + self._step * s
        point = grid[index].view(n, sub, -1)
        d = _fitted(magnitude, w, (factor.unsqueeze(2) * point).view(n, 256), d)
        weights = ((d.unsqueeze(1) * factor).unsqueeze(2) * point).view(n, 256) * (1 - 2 * sign)
        return self._pack(_Codes(d, s, index, sign)), weights

    def _tried(self, scale: torch.Tensor) -> list[torch.Tensor]:
        """The present scales first."""
        if self._everywhere:
            return [torch.full_like(scale, each) for each in range(_SCALES)]
        return [(scale + by).clamp(0, _SCALES - 1) for by in (0, -1, 1, -2, 2)]

    def _signed(self, x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Magnitudes and signs; to make minuses even, the weight that matters least takes the wrong sign."""
        sign = (x < 0).long()
        if not self._even:
            return x.abs(), sign
        eights = sign.view(-1, 8)
        least = (w * x * x).view(-1, 8).argmin(1, keepdim=True)
        odd = eights.sum(1, keepdim=True) & 1
        sign = eights.scatter(1, least, eights.gather(1, least) ^ odd).view(x.shape)
        return x * (1 - 2 * sign), sign

    @abstractmethod
    def _scales(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """d f32 [B] and scales int [B, S] of blocks."""

    @abstractmethod
    def _pack(self, codes: _Codes) -> torch.Tensor:
        """Blocks u8 [B, type_size]."""


def _nibbles(data: torch.Tensor) -> torch.Tensor:
    """4-bit fields [B, 2 n] of bytes [B, n], those of a byte side by side."""
    return _fields(data, 4).transpose(1, 2).reshape(len(data), -1).int()


def _nibble_bytes(fields: torch.Tensor) -> torch.Tensor:
    return _packed(fields.view(len(fields), -1, 2).transpose(1, 2), 4)


class _IQ2XS(Codebook):
    """512 points of 8, 7 bits of signs, a scale for 16 weights."""

    def __init__(self) -> None:
        super().__init__(GGMLQuantizationType.IQ2_XS, 16, 0.125, 0.25, even=True)

    def _scales(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _f16(data, 0), _nibbles(data[:, 66:])

    def _pack(self, codes: _Codes) -> torch.Tensor:
        signs = _bits(codes.sign).int() & 127
        words = (codes.index | (signs << 9)).to(torch.int32)
        pairs = torch.stack([words & 255, words >> 8], 2).to(torch.uint8).view(len(words), 64)
        return torch.cat([_f16_bytes(codes.d), pairs, _nibble_bytes(codes.scale)], 1)


def _words(codes: _Codes) -> torch.Tensor:
    """For 32 weights each, 4 bytes: four times 7 bits of signs, then a scale; u8 [B, 8, 4]."""
    signs = (_bits(codes.sign).long() & 127).view(-1, 8, 4)
    word = codes.scale.long() << 28
    for i in range(4):
        word = word | signs[:, :, i] << 7 * i
    return torch.stack([word >> 8 * i & 255 for i in range(4)], 2).to(torch.uint8)


class _IQ2XXS(Codebook):
    """256 points of 8, 7 bits of signs, a scale for 32 weights."""

    def __init__(self) -> None:
        super().__init__(GGMLQuantizationType.IQ2_XXS, 32, 0.125, 0.25, even=True)

    def _scales(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _f16(data, 0), (data[:, 9::8] >> 4).int()

    def _pack(self, codes: _Codes) -> torch.Tensor:
        index = codes.index.view(-1, 8, 4).to(torch.uint8)
        return torch.cat([_f16_bytes(codes.d), torch.cat([index, _words(codes)], 2).view(-1, 64)], 1)


class _IQ2S(Codebook):
    """1024 points of 8, free signs, a scale for 16 weights."""

    def __init__(self) -> None:
        super().__init__(GGMLQuantizationType.IQ2_S, 16, 0.125, 0.25, even=False)

    def _scales(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _f16(data, 0), _nibbles(data[:, 74:])

    def _pack(self, codes: _Codes) -> torch.Tensor:
        low, high = (codes.index & 255).to(torch.uint8), (codes.index >> 8).view(-1, 8, 4).transpose(1, 2)
        signs, scales = _bits(codes.sign), _nibble_bytes(codes.scale)
        return torch.cat([_f16_bytes(codes.d), low, signs, _packed(high, 2), scales], 1)


class _IQ3XXS(Codebook):
    """256 points of 4, 7 bits of signs for 8 weights, a scale for 32 weights."""

    def __init__(self) -> None:
        super().__init__(GGMLQuantizationType.IQ3_XXS, 32, 0.25, 0.5, even=True)

    def _scales(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _f16(data, 0), (data[:, 69::4] >> 4).int()

    def _pack(self, codes: _Codes) -> torch.Tensor:
        return torch.cat([_f16_bytes(codes.d), codes.index.to(torch.uint8), _words(codes).view(-1, 32)], 1)


class _IQ3S(Codebook):
    """512 points of 4, free signs, a scale for 32 weights."""

    def __init__(self) -> None:
        super().__init__(GGMLQuantizationType.IQ3_S, 32, 1.0, 2.0, even=False)

    def _scales(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _f16(data, 0), _nibbles(data[:, 106:])

    def _pack(self, codes: _Codes) -> torch.Tensor:
        low, high = (codes.index & 255).to(torch.uint8), _bits(codes.index >> 8)
        return torch.cat([_f16_bytes(codes.d), low, high, _bits(codes.sign), _nibble_bytes(codes.scale)], 1)


CODEBOOKS: dict[str, Codebook] = {
    "iq2_xxs": _IQ2XXS(),
    "iq2_xs": _IQ2XS(),
    "iq2_s": _IQ2S(),
    "iq3_xxs": _IQ3XXS(),
    "iq3_s": _IQ3S(),
}
"""Types that can be encoded here from nothing, on a GPU faster than by ggml."""

REFITS: dict[str, Refit] = {"q2_k": _Q2K(), "q3_k": _Q3K(), **CODEBOOKS}
"""Types that are encoded again here, by name; the others are encoded anew."""
