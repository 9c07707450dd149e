"""How far two runs of elements lie apart: largest difference, relative L2, cosine.

Values are compared in float32 where both sides fit into it exactly, else in float64; integers
exactly (but uint64 with signed ones, in float64). Sums are taken over rows of 4,096 elements in the
type of the values and of those in float64. The cosine follows from the three sums of squares in a
form that loses no digits where both sides are nearly equal:
1 - (|a-b|^2 - (|a|-|b|)^2) / (2 |a| |b|). Where one side is far longer than the other that form
loses all of them, and the products themselves are summed.

The cost is passes over memory, so pieces stay in the caches and no pass is made twice: a plain
subtraction, its extremes, and three dot products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tensorkeep.dtypes import DType
from tensorkeep.edits import _floats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

# Elements at a time: two sides and their difference, in float32, are 3 MiB. That is more than the
# L2 cache and still quicker: a quarter of it costs a third more, in calls and threads that wait.
STEP = 1 << 18
# Short enough that a row's sum in float32 keeps six digits; OpenBLAS would start threads of its
# own for vectors over 10,000.
_ROW = 4096
# Squares of lengths: from a tenth or ten times on, the product of both sides is taken by itself.
_APART = 100.0
# A sum of squares below this may have lost squares that float32 cannot hold.
_TINY = 1e-25
_INTEGERS = frozenset({"int", "uint", "bool"})
_COMPLEX = {"complex64": "<c8", "complex128": "<c16"}
_HALVES = frozenset({"float16", "complex32"})
# The square of the first number that no half can be.
_NO_HALF = 2.0**32


@dataclass(slots=True)
class Distance:
    """What was found over all pairs of elements (a, b) so far.

    `largest` is the largest |a - b| where both are finite; `difference`, `first` and `second` are
    the sums of squares of a - b, a and b there, `product` that of a times b. `odd` counts the
    places where a NaN or an infinity stands on one side and another value on the other (`odd_nan`:
    one of them is a NaN), `nans` those where both are NaN, which counts as equal. `beyond`:
    something is out of tolerance. `unmeasured`: bytes differ whose dtype has no values that could
    be subtracted. `recoded`: bytes of one dtype differ and mean the same values.
    """

    largest: float | int = 0
    difference: float = 0.0
    first: float = 0.0
    second: float = 0.0
    product: float = 0.0
    odd: int = 0
    nans: int = 0
    odd_nan: bool = False
    beyond: bool = False
    unmeasured: bool = False
    recoded: bool = False

    def add(self, other: Distance) -> None:
        """Take in what was found over other pairs."""
        self.largest = max(self.largest, other.largest)
        self.difference += other.difference
        self.first += other.first
        self.second += other.second
        self.product += other.product
        self.odd += other.odd
        self.nans += other.nans
        self.odd_nan = self.odd_nan or other.odd_nan
        self.beyond = self.beyond or other.beyond
        self.unmeasured = self.unmeasured or other.unmeasured
        self.recoded = self.recoded or other.recoded

    @property
    def apart(self) -> bool:
        """Whether any two values differ, by however little."""
        return bool(self.largest or self.odd or self.unmeasured)

    @property
    def max_abs(self) -> float | int:
        """The largest |a - b|; NaN or infinity where such a value stands on one side only."""
        if self.odd:
            return math.nan if self.odd_nan else math.inf
        return self.largest

    @property
    def rel_l2(self) -> float | None:
        """|a - b| / |a|; None if a is nothing but zeros and b is not."""
        if self.difference == 0:  # squares of what is very small are zero too
            return 0.0 if self.first or not self.largest else None
        return _finite(math.sqrt(self.difference) / math.sqrt(self.first)) if self.first else None

    @property
    def cosine(self) -> float | None:
        """Of the angle between a and b; None if one of them is nothing but zeros."""
        a, b = math.sqrt(self.first), math.sqrt(self.second)
        if not a * b:
            return None
        if _far(self.first, self.second):
            cosine = _finite(self.product / (a * b))
        else:
            # (a - b) as the difference of squares over the sum: they may agree to many digits.
            gap = (self.first - self.second) / (a + b)
            cosine = _finite(1 - (self.difference - gap * gap) / (2 * a * b))
        return None if cosine is None else max(-1.0, min(1.0, cosine))


def _far(first: float, second: float) -> bool:
    return not second < _APART * first < _APART * _APART * second


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def measurable(dtype: DType) -> bool:
    """Whether elements of `dtype` are numbers: not packed bits, not codes of quantised values."""
    return dtype.kind not in ("bits", "quantized")


class Meter:
    """Measures pieces of two tensors. One for each thread: it keeps scratch memory.

    An element is out of tolerance if |a - b| > `atol` + `rtol` |b|, as in `torch.allclose`.
    """

    def __init__(self, atol: float = 0.0, rtol: float = 0.0) -> None:
        import numpy as np

        self._atol = atol
        self._rtol = rtol
        self._rooms = np.empty((3, STEP * 16), np.uint8)
        self._mask = np.empty(STEP * 2, np.bool_)

    def equal(self, left: Array, right: Array) -> bool:
        """Whether two pieces (uint8, equally long, at most 16 bytes times STEP) are the same."""
        import numpy as np

        whole = len(left) // 8 * 8
        mask = self._mask[: whole // 8]
        np.not_equal(left[:whole].view(np.uint64), right[:whole].view(np.uint64), out=mask)
        return not mask.any() and bytes(left[whole:]) == bytes(right[whole:])

    def add(self, to: Distance, left: Array, first: DType, right: Array, second: DType) -> bool:
        """Count the elements of two pieces (bytes, as many elements, at most STEP) in `to`.

        Returns whether any of them differ. Dtypes must be `measurable`.
        """
        found = self._found(left, first, right, second, table=False)
        if _HALVES & {first.name, second.name} and not found.first + found.second < _NO_HALF:
            found = self._found(left, first, right, second, table=True)
        to.add(found)
        return found.apart

    def _found(
        self, left: Array, first: DType, right: Array, second: DType, *, table: bool
    ) -> Distance:
        import numpy as np

        found = Distance()
        with np.errstate(all="ignore"):
            a, b = self._decode(left, first, 0, table), self._decode(right, second, 1, table)
            common = np.result_type(a, b)
            if common.kind in "iu" and common.itemsize == 8:
                self._long(found, a.astype(common, copy=False), b.astype(common, copy=False))
            else:
                self._measure(found, *_common(a, b))
        if first.kind in _INTEGERS and second.kind in _INTEGERS:
            found.largest = int(found.largest)
        found.beyond = found.beyond or found.odd > 0
        return found

    def add_same(self, to: Distance, piece: Array, dtype: DType) -> None:
        """Count elements that are the same on both sides, for their squares."""
        if not measurable(dtype):
            return
        squares = self._squares_of(piece, dtype, table=False)
        if dtype.name in _HALVES and not squares < _NO_HALF:
            squares = self._squares_of(piece, dtype, table=True)
        to.add(Distance(first=squares, second=squares, product=squares))

    def _squares_of(self, piece: Array, dtype: DType, *, table: bool) -> float:
        import numpy as np

        with np.errstate(all="ignore"):
            values, _ = _common(*[self._decode(piece, dtype, 0, table)] * 2)
            squares = _squares(values)
            return squares if math.isfinite(squares) else _squares(values[np.isfinite(values)])

    def _decode(self, piece: Array, dtype: DType, room: int, table: bool) -> Array:
        """The elements as an array of numbers that holds them exactly.

        But for infinities and NaN in halves, without `table`: those come out as 65,536 and more.
        """
        if dtype.name in _HALVES:
            codes = piece.view("<u2")
            wide = _floats.widen(codes, "float16") if table else self._half(codes, room)
            return wide if dtype.name == "float16" else wide.view("<c8")
        if dtype.name == "bfloat16":
            return self._bfloat16(piece.view("<u2"), room)
        if dtype.name in _floats.NARROW:
            return _floats.widen(piece, dtype.name)
        if dtype.kind == "bool":
            truth: Array = piece != 0  # any byte but 0 is true, also to torch
            return truth.view("|u1")
        assert dtype.numpy is not None
        numbers: Array = piece.view(dtype.numpy)
        return numbers

    def _half(self, codes: Array, room: int) -> Array:
        """Halves as float32 in four vector passes: numpy's own way goes one by one.

        Shifted into the place of a float32's exponent and fraction they are 2**112 too small,
        subnormals included.
        """
        import numpy as np

        bits = self._rooms[room, : 4 * len(codes)].view("<i4")
        np.copyto(bits, codes.view("<i2"))
        np.left_shift(bits, 13, out=bits)
        np.bitwise_and(bits, np.int32(-0x70000001), out=bits)  # the sign was spread over three bits
        wide = bits.view("<f4")
        np.multiply(wide, np.float32(2.0**112), out=wide)
        return wide

    def _bfloat16(self, codes: Array, room: int) -> Array:
        import numpy as np

        bits = self._rooms[room, : 4 * len(codes)].view("<u4")
        np.copyto(bits, codes)
        np.left_shift(bits, 16, out=bits)
        return bits.view("<f4")

    def _measure(self, to: Distance, a: Array, b: Array) -> None:
        """Floating point or complex arrays of one dtype."""
        import numpy as np

        if not len(a):
            return
        gap = self._rooms[2, : a.nbytes].view(a.dtype)
        np.subtract(a, b, out=gap)
        difference = _squares(gap)
        same = difference == 0 and np.array_equal(a, b)
        if same:
            squares = _squares(a)
            sums = (0.0, squares, squares)
        else:
            sums = (difference, _squares(a), _squares(b))
        if not math.isfinite(sum(sums)):
            finite = np.isfinite(a) & np.isfinite(b)
            if not finite.all():
                _special(to, a[~finite], b[~finite])
                self._measure(to, a[finite], b[finite])
                return
            if a.real.itemsize < 8:  # the difference of two finite values may be none in float32
                wide = np.result_type(a, np.float64)
                self._measure(to, a.astype(wide), b.astype(wide))
                return
        largest = 0.0 if same else _largest(gap)
        found = Distance(largest, *sums, _product(a, b, *sums))
        found.beyond = largest > self._atol and self._out_of_tolerance(gap, b)
        to.add(found)

    def _out_of_tolerance(self, gap: Array, b: Array) -> bool:
        import numpy as np

        if not self._rtol:
            return True
        return bool((np.abs(gap) > self._atol + self._rtol * np.abs(b)).any())

    def _long(self, to: Distance, a: Array, b: Array) -> None:
        """64-bit integers: float64 would not tell neighbours apart."""
        import numpy as np

        gap = np.maximum(a, b).view("<u8") - np.minimum(a, b).view("<u8")
        rough, wide = gap.astype("<f8"), b.astype("<f8")
        found = Distance(int(gap.max(initial=0)), _squares(rough), _squares(a.astype("<f8")))
        found.second = _squares(wide)
        sums = (found.difference, found.first, found.second)
        found.product = _product(a.astype("<f8"), wide, *sums)
        found.beyond = found.largest > self._atol and self._out_of_tolerance(rough, wide)
        to.add(found)


def _common(a: Array, b: Array) -> tuple[Array, Array]:
    """Both in the narrowest floating point or complex dtype that holds both."""
    import numpy as np

    dtype = np.result_type(a, b)
    if dtype.kind not in "fc":
        dtype = np.dtype("<f8")
    return a.astype(dtype, copy=False), b.astype(dtype, copy=False)


def _flat(values: Array) -> Array:
    """Complex numbers as twice as many real ones."""
    return values.view(values.real.dtype) if values.dtype.kind == "c" else values


def _squares(values: Array) -> float:
    """The sum of the squares of all parts. Infinite or NaN where a value is, or is too large."""
    import numpy as np

    flat = _flat(values)
    whole = len(flat) // _ROW * _ROW
    rows, rest = flat[:whole].reshape(-1, _ROW), flat[whole:]
    total = float(_row_squares(rows).sum(dtype=np.float64)) + float(np.dot(rest, rest))
    if flat.itemsize < 8 and not _TINY < total < math.inf and (total or flat.any()):
        wide = flat.astype("<f8")
        total = float(np.dot(wide, wide))
    return total


def _product(a: Array, b: Array, difference: float, first: float, second: float) -> float:
    """The sum of the products of all parts: from the sums of squares, if they still tell it."""
    import numpy as np

    if not _far(first, second):
        return (first + second - difference) / 2
    return float(np.dot(_flat(a).astype("<f8"), _flat(b).astype("<f8")))


def _row_squares(rows: Array) -> Array:
    import numpy as np

    if hasattr(np, "vecdot"):  # numpy 2
        found: Array = np.vecdot(rows, rows)
    else:
        found = np.einsum("ij,ij->i", rows, rows)
    return found


def _largest(gap: Array) -> float:
    import numpy as np

    if gap.dtype.kind == "c":
        return float(np.abs(gap).max())
    return max(float(gap.max()), -float(gap.min()))


def _special(to: Distance, a: Array, b: Array) -> None:
    """Pairs in which at least one value is NaN or infinite."""
    import numpy as np

    nan_a, nan_b = np.isnan(a), np.isnan(b)
    odd = ~((a == b) | (nan_a & nan_b))
    to.nans += int(np.count_nonzero(nan_a & nan_b))
    to.odd += int(np.count_nonzero(odd))
    to.odd_nan = to.odd_nan or bool((nan_a ^ nan_b).any())
