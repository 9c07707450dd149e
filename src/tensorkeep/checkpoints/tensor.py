"""A tensor of an opened checkpoint: where it lies, and its bytes when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from tensorkeep.errors import MissingExtra, UnknownTensor, Unsupported
from tensorkeep.facts import TensorInfo
from tensorkeep.formats.contents import TensorRecord, contiguous_stride

if TYPE_CHECKING:
    import numpy as np

    from tensorkeep.checkpoints.gathering import Strided

BLOCK = 1 << 20
# Names compared with one that is not there, those of about its length: each takes time.
_LOOKED_AT = 2000

_Any = TypeVar("_Any")


# What turns a `TensorRef` into torch's own: a room above puts itself here.
TO_TORCH: list[Callable[[TensorRef], Any]] = []


def tensor_of(tensors: Mapping[str, _Any], name: str, subject: str) -> _Any:
    """The tensor `name` of those that `subject` has. Raises `UnknownTensor`, a `KeyError`."""
    try:
        return tensors[name]
    except KeyError:
        near = _near(str(name), tensors)
        raise UnknownTensor(
            subject,
            expected="the name of a tensor",
            got=repr(name),
            remedy=f"Near it: {', '.join(map(repr, near))}."
            if near
            else "List the names with: tensorkeep inspect --tensors.",
        ) from None


def _near(name: str, names: Iterable[str]) -> list[str]:
    """Up to three names that look like `name`: those that end with it, then those like it."""
    from difflib import get_close_matches  # only who mistypes waits for it

    inside = [each for each in names if each.endswith(f".{name}")]
    pool = sorted(names, key=lambda each: abs(len(each) - len(name)))[:_LOOKED_AT]
    return (inside or get_close_matches(name, pool, 3))[:3]


class TensorRef:
    """An index entry. Shape in elements; no byte of the tensor is read until it is asked for.

    `name` is the full dotted path in the file, `section` the top-level part it lies in.
    """

    __slots__ = ("name", "record", "section", "tied_to")

    def __init__(
        self, name: str, record: TensorRecord, section: str, tied_to: str | None = None
    ) -> None:
        self.name = name
        self.record = record
        self.section = section
        self.tied_to = tied_to

    @property
    def dtype(self) -> str:
        """torch's name of the dtype, without `torch.`"""
        return self.record.dtype.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each dimension, in elements."""
        return self.record.shape

    @property
    def nbytes(self) -> int:
        """Bytes of the contiguous tensor."""
        return self.record.nbytes

    @property
    def info(self) -> TensorInfo:
        """The entry as a record that turns into JSON."""
        record = self.record
        return TensorInfo(
            self.name,
            self.dtype,
            record.shape,
            record.nbytes,
            self.section,
            record.storage.key,
            record.offset,
            record.stride,
            self.tied_to,
        )

    @property
    def strided(self) -> Strided:
        """The view, in elements of its storage."""
        return strided(self.record)

    @property
    def direct(self) -> bool:
        """Whether the bytes wanted lie in the file one after the other, just as they are."""
        record = self.record
        if record.conj or record.neg or record.storage.swapped > 1:
            return False
        return record.stride == contiguous_stride(record.shape) or self.strided.is_contiguous()

    def blocks(
        self, size: int = BLOCK, *, start: int = 0, stop: int | None = None
    ) -> Iterator[memoryview]:
        """The contiguous little-endian bytes in pieces of about `size` bytes.

        `start`, `stop`: elements, counted row-major; all by default. A piece is valid until the
        next is asked for. Raises `Damaged` when the file does not have the bytes, and what its
        store raises.
        """
        from tensorkeep.checkpoints.gathering import gather

        self.check()
        record = self.record
        if record.nbytes == 0:
            return
        for view in self.strided.cut(start, record.numel if stop is None else stop):
            for piece in gather(record.storage.read_into, view, 0, size):
                yield _fixed(piece, record)

    def check(self) -> None:
        """Raise `Damaged` or `Unsupported` if it has no bytes that may be read."""
        record = self.record
        record.check(self.name)
        if record.storage.device == "meta":
            raise Unsupported(
                f"tensor {self.name!r}",
                expected="values",
                got="a meta tensor, saved without any",
                remedy="Save the model again after its weights were loaded.",
            )

    def read(self) -> bytes:
        """All of its contiguous little-endian bytes."""
        return b"".join(bytes(piece) for piece in self.blocks())

    def digest(self) -> str:
        """`sha256:...` over the contiguous little-endian bytes."""
        import hashlib  # it loads OpenSSL: milliseconds that `inspect` need not wait for

        digest = hashlib.sha256()
        for piece in self.blocks():
            digest.update(piece)
        return f"sha256:{digest.hexdigest()}"

    def numpy(self) -> np.ndarray[Any, Any]:
        """A new array of `shape`. Raises `Unsupported` for dtypes that numpy does not have."""
        import numpy as np

        code = self.record.dtype.numpy
        if code is None:
            raise Unsupported(
                f"tensor {self.name!r}",
                expected="a dtype that numpy has",
                got=self.dtype,
                remedy="Take .read() for the bytes, or convert with dtype='float32' first.",
            )
        return np.frombuffer(bytearray(self.read()), dtype=code).reshape(self.shape)

    def torch(self) -> Any:  # noqa: ANN401 - a torch.Tensor, a name that this room does not know
        """A new contiguous tensor on the CPU, in memory of its own.

        Raises `MissingExtra` where torch is not installed.
        """
        for convert in TO_TORCH:
            return convert(self)
        raise MissingExtra(
            f"tensor {self.name!r}",
            expected="the room of this package that makes torch's tensors",
            got="parts of it, imported one by one",
            remedy="Import tensorkeep.live.tensors first.",
        )

    def __repr__(self) -> str:
        return f"TensorRef({self.name!r}, {self.dtype}, {list(self.shape)})"


def strided(record: TensorRecord) -> Strided:
    """The view, in elements of its storage."""
    from tensorkeep.checkpoints.gathering import Strided  # most verbs never move a byte

    return Strided(record.dtype.itemsize, record.shape, record.stride, record.offset)


def _fixed(piece: memoryview, record: TensorRecord) -> memoryview:
    """`piece` with its bytes turned round and its signs flipped, where the file asks for it."""
    unit = _component(record)
    if record.storage.swapped > 1 and unit > 1:
        turned = bytearray(len(piece))
        for byte in range(unit):
            turned[byte::unit] = bytes(piece[unit - 1 - byte :: unit])
        piece = memoryview(turned)
    if record.conj or record.neg:
        piece = _negated(piece, record, unit)
    return piece


def _component(record: TensorRecord) -> int:
    """Bytes of one number: half an element where it is complex."""
    size = record.dtype.itemsize
    return size // 2 if record.dtype.kind == "complex" else size


def _negated(piece: memoryview, record: TensorRecord, unit: int) -> memoryview:
    """The negative: of the imaginary parts for conj, of all numbers for neg."""
    if record.dtype.kind in ("int", "uint"):
        return _negated_integers(piece, unit) if record.neg else piece
    sign = b"\0" * (unit - 1) + b"\x80"
    real = sign if record.neg else b"\0" * unit
    if record.dtype.kind == "complex":
        imag = sign if record.neg != record.conj else b"\0" * unit
        mask = real + imag
    else:
        mask = real
    repeated = int.from_bytes(mask * (len(piece) // len(mask)), "little")
    flipped = int.from_bytes(piece, "little") ^ repeated
    return memoryview(flipped.to_bytes(len(piece), "little"))


def _negated_integers(piece: memoryview, unit: int) -> memoryview:
    """Two's complements of all numbers at once: inverted, plus one that carries into no other."""
    count = len(piece) // unit
    signs = int.from_bytes((b"\0" * (unit - 1) + b"\x80") * count, "little")
    ones = int.from_bytes((b"\1" + b"\0" * (unit - 1)) * count, "little")
    inverted = int.from_bytes(piece, "little") ^ ((1 << 8 * len(piece)) - 1)
    negated = ((inverted & ~signs) + ones) ^ (inverted & signs)
    return memoryview(negated.to_bytes(len(piece), "little"))
