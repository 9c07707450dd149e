"""int8 weights with a float32 scale for each output channel, there and back.

`weight` is int8 of the old shape, `weight_scale` float32 of shape [out, 1, ...]: the product is the
weight again. The output channels are dimension 0. Both are made in one pass over the source, as a
`Pair`; memory is a few pieces for each thread, whatever the size of the tensor or of one row of it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, log10, prod
from typing import TYPE_CHECKING, Any

from tensorkeep.dtypes import BY_NAME, DType
from tensorkeep.edits import _rounding
from tensorkeep.edits.arrays import Array, as_bytes, empty
from tensorkeep.errors import Unwritable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Codes = NDArray[Any]

SCALE = "_scale"
# Rows that are not worth a call each.
_SHORT = 1 << 10
INT8, FLOAT32 = BY_NAME["int8"], BY_NAME["float32"]


class Tally:
    """Sums of squares of a tensor's values and of its rounding errors, over one pass."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0
        self._lock = threading.Lock()

    def add(self, signal: float, noise: float) -> None:
        """From any thread."""
        with self._lock:
            self.signal += signal
            self.noise += noise

    @property
    def sqnr_db(self) -> float:
        """Signal to quantisation noise, in dB; infinite where nothing was lost."""
        return 10 * log10(self.signal / self.noise) if self.noise and self.signal else inf


@dataclass(slots=True)
class Piece:
    """Codes from element `begin` of `row` on, two dimensions, their rows' scales, and two sums.

    `signal` and `noise` are the sums of squares of the values and of what rounding changed. The
    codes are overwritten by the next piece.
    """

    row: int
    begin: int
    scale: Codes
    codes: Codes
    signal: float
    noise: float


class Pair:
    """The int8 weight and its scales, made together of `of`: a float tensor of 1 dimension or more.

    `name` is for messages. `tally` is filled by `pieces`. `rooms` may be shared with other pairs.
    Raises `Unwritable` for another dtype.
    """

    def __init__(self, name: str, of: Array, rooms: _rounding.Rooms | None = None) -> None:
        if of.dtype.name not in _rounding.SOURCES or not of.shape or not of.numel:
            raise Unwritable(
                name,
                expected="a float16, bfloat16, float32 or float64 tensor with elements",
                got=f"{of.dtype} {list(of.shape)}",
                remedy="Leave it as it is: --skip.",
            )
        self.name, self.of, self.tally = name, of, Tally()
        self._rooms = rooms or _rounding.Rooms()
        self.rows, self.columns = of.shape[0], prod(of.shape[1:])
        self.members = (Quantized(self), Scales(self))

    @property
    def weight(self) -> Quantized:
        """The codes."""
        return self.members[0]

    @property
    def scale(self) -> Scales:
        """The scales."""
        return self.members[1]

    def cuts(self, size: int) -> Iterator[tuple[int, int]]:
        """Ranges of rows that are made of about `size` bytes each."""
        step = max(size // (self.columns * self.of.dtype.itemsize), 1)
        for start in range(0, self.rows, step):
            yield start, min(start + step, self.rows)

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, memoryview]]:
        """Rows `start` to `stop`: the member (0 the codes, 1 the scales), the byte, and the bytes.

        Of each member in order. A piece is valid until the next is asked for. Raises `Unwritable`
        for NaN and infinity.
        """
        import numpy as np

        scales = np.empty(stop - start, "<f4")
        for piece in self.made(start, stop):
            self.tally.add(piece.signal, piece.noise)
            scales[piece.row - start : piece.row - start + len(piece.scale)] = piece.scale
            yield 0, piece.row * self.columns + piece.begin, as_bytes(piece.codes.reshape(-1))
        yield 1, start * FLOAT32.itemsize, as_bytes(scales)

    def made(self, start: int, stop: int) -> Iterator[Piece]:
        """Rows `start` to `stop`, in order, piece by piece."""
        with self._rooms.one(self.of.dtype.name) as room:
            step = _rounding.PIECE // self.columns
            if step:
                yield from self._rows(start, stop, step, room)
                return
            for row in range(start, stop):
                yield from self._row(row, room)

    def _rows(self, start: int, stop: int, step: int, room: _rounding.Room) -> Iterator[Piece]:
        for row in range(start, stop, step):
            last = min(row + step, stop)
            raw = self._read(row * self.columns, last * self.columns, room)
            raw = raw.reshape(-1, self.columns)
            scale = self._scales(raw, row, room)
            yield Piece(row, 0, scale, *_rounding.codes(raw, self.of.dtype.name, scale, room))

    def _row(self, row: int, room: _rounding.Room) -> Iterator[Piece]:
        """A row that is longer than a piece is read twice."""
        import numpy as np

        first, last = row * self.columns, (row + 1) * self.columns
        cuts = [(at, min(at + _rounding.PIECE, last)) for at in range(first, last, _rounding.PIECE)]
        dtype = self.of.dtype.name
        parts = (self._read(*cut, room).reshape(1, -1) for cut in cuts)
        top = np.max([_rounding.tops(part, dtype, room) for part in parts], axis=0)
        scale = self._checked(top, row)
        for begin, end in cuts:
            raw = self._read(begin, end, room).reshape(1, -1)
            yield Piece(row, begin - first, scale, *_rounding.codes(raw, dtype, scale, room))

    def _read(self, start: int, stop: int, room: _rounding.Room) -> Codes:
        ref = self.of.stored
        if ref is None or not ref.direct:
            return self.of.codes(start, stop)
        ref.check()
        raw, record = room.raw[: stop - start], ref.record
        record.storage.read_into((record.offset + start) * record.dtype.itemsize, as_bytes(raw))
        return raw

    def _scales(self, raw: Codes, row: int, room: _rounding.Room) -> Codes:
        return self._checked(_rounding.tops(raw, self.of.dtype.name, room), row)

    def _checked(self, top: Codes, row: int) -> Codes:
        import numpy as np

        scale = _rounding.scales(top)
        good = np.isfinite(scale)
        if not good.all():
            bad = int(np.argmin(good))
            raise Unwritable(
                self.name,
                expected="finite values, of which an int8 weight can be made",
                got="NaN" if np.isnan(top[bad]) else "infinity, or a value beyond float32",
                where=f"row {row + bad}",
                remedy="Repair the weight, or keep it as it is with --skip.",
            )
        return scale


class _Member(Array):
    """One of the two tensors of a pair. Equal where the pair is, which is made once a tensor."""

    def __init__(self, pair: Pair, dtype: DType, shape: tuple[int, ...]) -> None:
        self.together = self.pair = pair
        self._be(dtype, shape, pair.of)


class Quantized(_Member):
    """The int8 codes of a pair."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair, INT8, pair.of.shape)

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """The bytes of elements `start` to `stop`; of all of them in one pass, however long a row.

        A piece is valid until the next is asked for.
        """
        if start or stop not in (None, self.numel):
            yield from super().blocks(start, stop)
            return
        for piece in self.pair.made(0, self.pair.rows):
            yield as_bytes(piece.codes.reshape(-1))

    def _codes(self, start: int, stop: int) -> Codes:
        result, columns = empty(INT8, stop - start), self.pair.columns
        first, last = start // columns, (stop - 1) // columns + 1
        for piece in self.pair.made(first, last):
            at, flat = piece.row * columns + piece.begin, piece.codes.reshape(-1).view("u1")
            low, high = max(at, start), min(at + flat.size, stop)
            if low < high:
                result[low - start : high - start] = flat[low - at : high - at]
        return result


class Scales(_Member):
    """The float32 scales of a pair."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair, FLOAT32, (pair.rows, *[1] * (len(pair.of.shape) - 1)))

    def _codes(self, start: int, stop: int) -> Codes:
        result = empty(FLOAT32, stop - start).view("<f4")
        for piece in self.pair.made(start, stop):
            result[piece.row - start : piece.row - start + len(piece.scale)] = piece.scale
        return result.view("<u4")
