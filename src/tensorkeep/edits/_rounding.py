"""Rows of floats to int8 codes and a scale each, in pieces of a few megabytes.

A row's scale is its largest magnitude / 127, computed and kept in float32 (for float64 computed in
float64 and rounded once); a code is the element / scale, rounded half to even. That is bit for bit
what `torch.round(row.float() / scale)` gives. Of a row of zeros the scale is 1; a scale too small
for a normal float32 becomes the smallest one, so that no code is beyond 127.

Memory is used again from piece to piece: fresh pages for the result of each step would cost more
than the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tensorkeep.edits import _floats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[Any]

LARGEST = 127
# Elements of a piece. What fits the L2 cache (a sixteenth of it) is computed faster, but threads
# that call numpy that often wait for Python's lock longer than they compute.
PIECE = 1 << 20
# numpy's dot product of longer vectors may start threads of its own.
_DOT = 1 << 13
_HALVES = frozenset({"float16", "bfloat16"})
SOURCES = frozenset({"float64", "float32", *_HALVES})


class Room:
    """Buffers for pieces of up to `PIECE` elements of `dtype`, for one thread at a time."""

    def __init__(self, dtype: str) -> None:
        import numpy as np

        self.wide = "<f8" if dtype == "float64" else "<f4"
        self.raw = np.empty(PIECE, "<u2" if dtype in _HALVES else self.wide.replace("f", "u"))
        self.ratio = np.empty(PIECE, self.wide)
        self.whole = np.empty(PIECE, self.wide)
        self.codes = np.empty(PIECE, "i1")


class Rooms:
    """Rooms that are used again: fresh memory for each run would be faulted in each time."""

    def __init__(self) -> None:
        self._free: dict[str, list[Room]] = {dtype: [] for dtype in SOURCES}

    @contextmanager
    def one(self, dtype: str) -> Iterator[Room]:
        """A room that nobody else has meanwhile. From any thread."""
        try:
            taken = self._free[dtype].pop()
        except IndexError:
            taken = Room(dtype)
        try:
            yield taken
        finally:
            self._free[dtype].append(taken)


def tops(raw: Numbers, dtype: str, room: Room) -> Numbers:
    """The largest magnitude of each row of `raw`, as float32 (of float64: float64).

    NaN or infinity where a row has one. `raw`: codes of `dtype`, two dimensions, a piece at most.
    """
    import numpy as np

    if dtype in _HALVES:
        # Without the sign bit the codes of 16-bit floats are in the order of what they stand for.
        size = np.bitwise_and(raw, np.uint16(0x7FFF), out=_like(room.whole.view("<u2"), raw))
        return _floats.widen(np.ascontiguousarray(size.max(axis=1)), dtype)
    values = raw.view(room.wide)  # read twice: magnitudes would have to be written once
    found: Numbers = np.maximum(values.max(axis=1), -values.min(axis=1))
    return found


def scales(top: Numbers) -> Numbers:
    """float32 scales for rows of these largest magnitudes; infinity or NaN where there is none."""
    import numpy as np

    with np.errstate(over="ignore", under="ignore"):
        found = (top / top.dtype.type(LARGEST)).astype("<f4")
    raised: Numbers = np.maximum(found, np.finfo("<f4").tiny)
    raised[top == 0] = 1
    return raised


def codes(raw: Numbers, dtype: str, scale: Numbers, room: Room) -> tuple[Numbers, float, float]:
    """The int8 codes of rows with these scales; the sums of squares of the values and their errors.

    The codes lie in `room` until the next call.
    """
    import numpy as np

    ratio, whole, made = (_like(part, raw) for part in (room.ratio, room.whole, room.codes))
    if dtype in _HALVES:
        _widen(raw, dtype, ratio)
        np.divide(ratio, scale[:, None], out=ratio)
    else:
        np.divide(raw.view(room.wide), scale[:, None], out=ratio, dtype=room.wide)
    np.rint(ratio, out=whole)
    np.copyto(made, whole, casting="unsafe")
    np.subtract(ratio, whole, out=whole)
    square = np.square(scale, dtype="<f8")
    return made, float(square @ _squares(ratio)), float(square @ _squares(whole))


def _like(buffer: Numbers, raw: Numbers) -> Numbers:
    return buffer[: raw.size].reshape(raw.shape)


def _widen(raw: Numbers, dtype: str, out: Numbers) -> None:
    """16-bit floats, all finite, as float32."""
    import numpy as np

    bits = out.view("<u4")
    np.copyto(bits, raw)
    np.left_shift(bits, np.uint32(16), out=bits)
    if dtype == "bfloat16":
        return
    # The sign stays, exponent and mantissa move three to the right, and the exponent is counted
    # from 127 instead of 15: times 2**112, which makes normal numbers of subnormal ones as well.
    np.right_shift(bits.view("<i4"), np.int32(3), out=bits.view("<i4"))
    np.bitwise_and(bits, np.uint32(0x8FFFFFFF), out=bits)
    np.multiply(out, np.float32(2.0**112), out=out)


def _squares(values: Numbers) -> Numbers:
    """The sum of squares of each row, as float64."""
    import numpy as np

    total = np.zeros(len(values))
    for at in range(0, values.shape[1], _DOT):
        part = values[:, at : at + _DOT]
        if hasattr(np, "vecdot"):
            total += np.vecdot(part, part)
        else:
            total += np.einsum("ij,ij->i", part, part)
    return total
