"""Tensors that are not there yet: what they will be made of, computed in pieces when written.

An `Array` knows its dtype and shape at once, from the index alone; its elements are asked for in
runs, counted row-major, and memory is a few runs, whatever its size. Edits build arrays out of
arrays: `arrays` moves elements, `shapes` puts them elsewhere, and what computes new values does it
in float32 or better.

Elements travel as *codes*: unsigned integers as wide as the element, so that no dtype needs numpy
to know it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

from tensorkeep.checkpoints.streaming import Together
from tensorkeep.checkpoints.tensor import BLOCK, TensorRef
from tensorkeep.checkpoints.ties import meant
from tensorkeep.dtypes import DType
from tensorkeep.edits import _floats
from tensorkeep.edits.values import cast, castable
from tensorkeep.errors import Unwritable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Codes = NDArray[Any]

_CODES = {1: "u1", 2: "<u2", 4: "<u4", 8: "<u8", 16: "V16"}


class Losses(Protocol):
    """Counts what rounding loses."""

    def see(self, start: int, values: Codes, codes: Codes) -> None:
        """`values`, elements from `start` on, were rounded to `codes`."""


class Array(ABC):
    """A tensor to be written. `shape` in elements. Equal arrays are the same tensor.

    `parents` are the arrays that it is made from; `stored` is the tensor of a file whose bytes
    these are, unchanged, or None if they are made here. `splits` says whether a part costs no
    more than its share; if not, the whole is made at once, in memory. `computes` says whether
    values are computed here and rounded to `dtype`; `losses`, if set, is told of each run of them.
    """

    dtype: DType
    shape: tuple[int, ...]
    parents: tuple[Array, ...] = ()
    stored: TensorRef | None = None
    splits: bool = True
    computes: bool = False
    losses: Losses | None = None
    together: Together | None = None

    def _be(self, dtype: DType, shape: tuple[int, ...], *parents: Array) -> None:
        """Set what the fields of a frozen subclass make of it."""
        splits = self.splits and all(parent.splits for parent in parents)
        for name, value in (
            ("dtype", dtype),
            ("shape", shape),
            ("parents", parents),
            ("splits", splits),
        ):
            object.__setattr__(self, name, value)

    @abstractmethod
    def _codes(self, start: int, stop: int) -> Codes:
        """What `codes` promises, for a range that is not empty and lies inside."""

    def codes(self, start: int, stop: int) -> Codes:
        """Elements `start` to `stop`, counted row-major, as a one-dimensional array of codes.

        The array is new, or shares memory that nobody else writes to. May be called from several
        threads at once. Raises what reading its sources raises.
        """
        return self._codes(start, stop) if start < stop else empty(self.dtype, 0)

    def sources(self) -> Iterable[TensorRef]:
        """The tensors of files that it is made from."""
        if self.stored is not None:
            return (self.stored,)
        return (ref for parent in self.parents for ref in parent.sources())

    def rounded(self, values: Codes, start: int) -> Codes:
        """float32 or float64 `values`, elements from `start` on, as codes of `dtype`."""
        codes = encoded(values, self.dtype)
        if self.losses is not None:
            self.losses.see(start, values, codes)
        return codes

    @property
    def numel(self) -> int:
        """How many elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the contiguous tensor."""
        return self.numel * self.dtype.itemsize

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """The little-endian bytes of elements `start` to `stop`, in pieces of about a MiB."""
        stop = self.numel if stop is None else stop
        step = max(BLOCK // self.dtype.itemsize, 1) if self.splits else max(self.numel, 1)
        for at in range(start, stop, step):
            yield as_bytes(self.codes(at, min(at + step, stop)))


def as_bytes(codes: Codes) -> memoryview:
    """The bytes of a contiguous array."""
    return codes.view("u1").data if codes.size else memoryview(b"")


def as_codes(dtype: DType) -> str:
    """numpy's name for the codes of `dtype`."""
    return _CODES[dtype.itemsize]


def empty(dtype: DType, count: int) -> Codes:
    """Room for `count` elements."""
    import numpy as np

    return np.empty(count, _CODES[dtype.itemsize])


class Stored(Array):
    """A tensor of an opened checkpoint, as it is."""

    def __init__(self, ref: TensorRef) -> None:
        self.stored = self.ref = ref
        self.dtype = ref.record.dtype
        self.shape = ref.record.shape

    def _codes(self, start: int, stop: int) -> Codes:
        result = empty(self.dtype, stop - start)
        room, at = as_bytes(result), 0
        if self.ref.direct:
            self.ref.check()
            record = self.ref.record
            record.storage.read_into((record.offset + start) * record.dtype.itemsize, room)
            return result
        for piece in self.ref.blocks(start=start, stop=stop):
            room[at : at + len(piece)] = piece
            at += len(piece)
        return result

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """The bytes as `TensorRef.blocks` gives them: a plain conversion never loads numpy."""
        return self.ref.blocks(start=start, stop=stop)

    @property
    def place(self) -> Hashable:
        """Where its elements lie: what makes two names one tensor."""
        record = self.ref.record
        key = (record.storage.blob.name, record.storage.key, record.conj, record.neg)
        stride = meant(record.shape, record.stride)
        return (key, record.dtype.name, record.shape, stride, record.offset)

    def __eq__(self, other: object) -> bool:
        # An empty tensor is nobody's twin: it has no bytes to share.
        if not isinstance(other, Stored) or not self.numel:
            return self is other
        return self.place == other.place

    def __hash__(self) -> int:
        return hash(self.place)


@dataclass(frozen=True)
class Cast(Array):
    """`of` as elements of `to`, rounded as torch rounds. Raises `Unwritable` for no such cast."""

    of: Array
    to: DType

    def __post_init__(self) -> None:
        if not castable(self.of.dtype, self.to):
            raise Unwritable(
                "a cast",
                expected=f"a dtype that casts to {self.to}",
                got=self.of.dtype,
                remedy="Cast to a dtype of the same kind, or match fewer tensors.",
            )
        self._be(self.to, self.of.shape, self.of)

    def _codes(self, start: int, stop: int) -> Codes:
        import numpy as np

        data = cast(as_bytes(self.of.codes(start, stop)), self.of.dtype, self.to)
        return np.frombuffer(data, _CODES[self.to.itemsize])


@dataclass(frozen=True)
class Filled(Array):
    """`size` elements of `of`, all `code`: the bits of one element as an unsigned integer."""

    of: DType
    size: tuple[int, ...]
    code: int = 0

    def __post_init__(self) -> None:
        self._be(self.of, self.size)

    def _codes(self, start: int, stop: int) -> Codes:
        import numpy as np

        one = np.frombuffer(self.code.to_bytes(self.of.itemsize, "little"), "u1")
        return np.tile(one, stop - start).view(_CODES[self.of.itemsize])


_NUMBERS = {
    "bool": "|u1", "uint8": "|u1", "int8": "|i1", "uint16": "<u2", "int16": "<i2",
    "uint32": "<u4", "int32": "<i4", "uint64": "<u8", "int64": "<i8",
    "float32": "<f4", "float64": "<f8", "complex64": "<c8", "complex128": "<c16",
}  # fmt: skip


def numbers(array: Array, start: int, stop: int) -> Codes:
    """Elements `start` to `stop` as numbers to compute with: floats as float32 or float64.

    Integers and complex numbers as what they are. Raises `Unwritable` for dtypes without numbers
    (bits, quantised).
    """
    codes, name = array.codes(start, stop), array.dtype.name
    if name in _floats.NARROW:
        return _floats.widen(codes, name)
    if name not in _NUMBERS:
        raise Unwritable(
            "arithmetic",
            expected="floating point elements",
            got=name,
            remedy="Leave out what are no floats with a narrower pattern, or cast it first.",
        )
    return codes.view(_NUMBERS[name])


def encoded(values: Codes, dtype: DType) -> Codes:
    """float32 or float64 values, one dimension, as codes of `dtype`, rounded as torch rounds."""
    import numpy as np

    from tensorkeep.dtypes import BY_NAME

    wide = "float64" if values.dtype.itemsize == 8 else "float32"
    plain = np.ascontiguousarray(values, "<f8" if wide == "float64" else "<f4")
    data = cast(as_bytes(plain), BY_NAME[wide], dtype)
    return np.frombuffer(data, _CODES[dtype.itemsize])
