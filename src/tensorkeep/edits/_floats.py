"""Floats narrower than 32 bits: their codes as float32, and float32 rounded to their codes.

A format of 8 bits has 256 values, which its definition gives by arithmetic. Rounding to one goes
through bfloat16 rounded *to odd* (the lower half of the float32 is folded into the last bit): a
format with at most 3 mantissa bits then rounds exactly as from the float32 itself, and a table of
65,536 entries does it.

Sources: OCP 8-bit Floating Point Specification 1.0 (e4m3fn, e5m2), arXiv:2206.02915 (the fnuz
formats), OCP Microscaling Formats 1.0 section 5.4.1 (e8m0). What overflows becomes what torch
2.13 makes of it: the largest value in e4m3fn, infinity in e5m2, NaN in the fnuz formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_SIGN = 0x80


@dataclass(frozen=True, slots=True)
class Float8:
    """A signed 8-bit float: 1 sign bit, then the exponent, then `mantissa` bits.

    `largest` is the code of the largest finite value, `overflow` the code that anything beyond it
    gets, `nan` the code of NaN. `unsigned_zero`: the code 0x80 is NaN and zero has no sign.
    """

    mantissa: int
    bias: int
    largest: int
    overflow: int
    nan: int
    unsigned_zero: bool = False


_FLOAT8 = {
    "float8_e4m3fn": Float8(3, 7, largest=0x7E, overflow=0x7E, nan=0x7F),
    "float8_e5m2": Float8(2, 15, largest=0x7B, overflow=0x7C, nan=0x7F),
    "float8_e4m3fnuz": Float8(3, 8, largest=0x7F, overflow=0x80, nan=0x80, unsigned_zero=True),
    "float8_e5m2fnuz": Float8(2, 16, largest=0x7F, overflow=0x80, nan=0x80, unsigned_zero=True),
}
_E8M0 = "float8_e8m0fnu"
NARROW = frozenset({"float16", "bfloat16", _E8M0, *_FLOAT8})

# The formats with a single NaN. torch reads it as these float32 bits.
_ONLY_NAN = 0x7F800001
ONE_NAN = frozenset({_E8M0, "float8_e4m3fnuz", "float8_e5m2fnuz"})


def widen(codes: Array, name: str) -> Array:
    """The codes (uint8 or uint16, one dimension) of a narrow float as float32."""
    import numpy as np

    if name == "bfloat16":
        wide = np.zeros((len(codes), 2), "<u2")
        wide[:, 1] = codes
        return wide.reshape(-1).view("<f4")
    # Every code is below the table's length: "clip" only spares numpy the check.
    table = _half_bits() if name == "float16" else _float8_bits(name)
    bits: Array = table.take(codes, mode="clip")
    return bits.view("<f4")


def narrow(values: Array, name: str, nan: int) -> Array:
    """float32 values, one dimension and contiguous, rounded to the codes of a narrow float.

    `nan` is the code that a NaN gets in bfloat16.
    """
    import numpy as np

    if name == "float16":
        return _to_half(values)
    if name == "bfloat16":
        return _to_bfloat16(values, nan)
    halves = values.view("<u2").reshape(-1, 2)
    keys = np.bitwise_or(halves[:, 1], halves[:, 0] != 0)
    codes: Array = _float8_codes(name).take(keys, mode="clip")
    return codes


def _to_half(values: Array) -> Array:
    import numpy as np

    codes = values.astype("<f2").view("<u2")
    lost = np.isnan(values)
    if lost.any():
        # numpy keeps a signalling NaN signalling; the processor, and so torch, makes it quiet.
        bits = values.view("<u4")[lost]
        codes[lost] = (bits >> 16 & 0x8000) | 0x7E00 | (bits >> 13 & 0x1FF)
    return codes


def _to_bfloat16(values: Array, nan: int) -> Array:
    import numpy as np

    bits = values.view("<u4")
    rounded = bits >> 16
    rounded &= 1
    rounded += bits
    rounded += 0x7FFF
    rounded >>= 16
    codes = rounded.astype("<u2")
    lost = np.isnan(values)
    if lost.any():
        codes[lost] = nan
    return codes


@cache
def _half_bits() -> Array:
    """The float32 bits of every float16 code. A NaN keeps its payload and becomes quiet."""
    import numpy as np

    codes = np.arange(1 << 16, dtype="<u4")
    fraction, exponent = codes & 0x3FF, codes >> 10 & 0x1F
    subnormal = exponent == 0
    scale = np.where(subnormal, 1, exponent).astype("<i4") - 25
    whole = fraction + np.where(subnormal, 0, 0x400)
    bits = np.ldexp(whole.astype("<f4"), scale).view("<u4")
    special = np.where(fraction == 0, 0x7F800000, 0x7FC00000 | fraction << 13)
    magnitude = np.where(exponent == 0x1F, special, bits)
    signed: Array = magnitude | (codes & 0x8000) << 16
    return signed.astype("<u4")


@cache
def _float8_bits(name: str) -> Array:
    """The float32 bits of each of the 256 codes."""
    import numpy as np

    if name == _E8M0:
        powers: Array = np.arange(256, dtype="<u4") << 23
        # 2 ** -127 is subnormal in float32.
        powers[0], powers[255] = 0x00400000, _ONLY_NAN
        return powers
    kind = _FLOAT8[name]
    codes = np.arange(256, dtype="<u4")
    sign = (codes & _SIGN) << 24
    bits: Array = _magnitudes(kind)[codes & 0x7F].astype("<f4").view("<u4") | sign
    if kind.unsigned_zero:
        bits[_SIGN] = _ONLY_NAN
        return bits
    beyond = (codes & 0x7F) > kind.largest
    tail = (codes << (23 - kind.mantissa)) & 0x7FFFFF
    quiet = np.where(tail == 0, 0, 0x400000)
    bits[beyond] = (sign | 0x7F800000 | quiet | tail)[beyond]
    return bits


def _magnitudes(kind: Float8) -> Array:
    """The value of each of the codes 0 to 127 if none of them were infinity or NaN, as float64."""
    import numpy as np

    codes = np.arange(128)
    fraction, exponent = codes & ((1 << kind.mantissa) - 1), codes >> kind.mantissa
    whole = fraction + np.where(exponent == 0, 0, 1 << kind.mantissa)
    scale = np.maximum(exponent, 1) - kind.bias - kind.mantissa
    values: Array = np.ldexp(whole.astype("<f8"), scale)
    return values


@cache
def _float8_codes(name: str) -> Array:
    """The code that each bfloat16 (rounded to odd) rounds to."""
    import numpy as np

    keys = np.arange(1 << 16, dtype="<u2")
    if name == _E8M0:
        return _e8m0_codes(keys)
    kind = _FLOAT8[name]
    values = widen(keys & 0x7FFF, "bfloat16").astype("<f8")
    codes = _nearest(values, kind)
    codes[codes > kind.largest] = kind.overflow
    codes[np.isnan(values)] = kind.nan
    signed = codes | np.where(keys & 0x8000, _SIGN, 0)
    if kind.unsigned_zero:
        signed[codes == 0] = 0
    return signed.astype(np.uint8)


def _nearest(values: Array, kind: Float8) -> Array:
    """The code nearest to each value, ties to even; `largest` + 1 for all that lies beyond it.

    The step after `largest` counts as a value: what would round to it has overflowed.
    """
    import numpy as np

    grid = _magnitudes(kind)[: kind.largest + 1]
    grid = np.append(grid, 2 * grid[-1] - grid[-2])
    middles = (grid[1:] + grid[:-1]) / 2
    below: Array = np.searchsorted(middles, values, side="left")
    tie = np.append(middles, np.inf)[below] == values
    return np.where(tie & (below % 2 == 1), below + 1, below)


def _e8m0_codes(keys: Array) -> Array:
    """Exponents alone, as torch rounds them: halfway goes up, the sign is dropped.

    Below 2 ** -126 the only value is 2 ** -127, and all that is larger than it goes up.
    """
    import numpy as np

    fraction, exponent = keys & 0x7F, keys >> 7 & 0xFF
    up = (fraction > 0x40) | ((fraction == 0x40) & (exponent > 0))
    return np.where(exponent == 0xFF, 0xFF, exponent + up).astype(np.uint8)
