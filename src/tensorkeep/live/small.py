"""Many small tensors that lie side by side in a file: read together, and made by the hundred.

A call for each costs more than their bytes. What is read lies in memory that is given back: each
tensor is a copy, of a storage as long as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from math import prod
from operator import or_

import torch

from tensorkeep.checkpoints.tensor import TensorRef
from tensorkeep.formats.contents import Storage, TensorRecord, contiguous_stride
from tensorkeep.live.arenas import Arena
from tensorkeep.progress import SILENT, Reporter
from tensorkeep.stores import Blob, parallel

LONGEST = 4 << 10  # bytes; larger ones are better off in huge pages
LEAST = 512
_GAP = 4 << 10
_SIDE_BY_SIDE = 16  # tensors that a read has to bring at least, one read with another
_AT_ONCE = 64 << 20
# Copied bit by bit, whatever the bits are; a bool of neither 0 nor 1 might not be.
_KINDS = {
    str(kind).removeprefix("torch."): kind
    for kind in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    )
}
# torch leaves it without its type.
_COPIES: Callable[[torch.Tensor], tuple[torch.Tensor, ...]] = torch.unbind_copy  # type: ignore[assignment]
_UNITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class _Alike:
    """Tensors of one dtype and shape; `length` in bytes, 0 if they are not for here."""

    __slots__ = ("kind", "length", "names", "places", "shape", "size")

    def __init__(self, record: TensorRecord) -> None:
        self.shape = record.shape
        self.size = record.dtype.itemsize
        self.kind = _KINDS.get(record.dtype.name)
        length = prod(record.shape) * self.size
        plain = self.kind is not None and record.stride == contiguous_stride(record.shape)
        self.length = length if plain and length <= LONGEST else 0
        self.names: list[str] = []
        self.places: list[int] = []

    def take(self, memory: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors out of `memory`, and forget them here."""
        step = reduce(or_, self.places, self.length)
        unit = min(step & -step, 8)  # bytes that go in one piece
        flat = memory[: len(memory) // unit * unit].view(_UNITS[unit])
        at = torch.tensor(self.places, device="cpu") // unit
        rows = flat.unfold(0, self.length // unit, 1)[at]
        assert self.kind is not None
        rows = rows.view(self.kind).view(len(self.names), *self.shape)
        yield from zip(self.names, _COPIES(rows), strict=True)
        self.names, self.places = [], []


# Position in the file, name, and what it is like.
_Row = tuple[int, str, _Alike]
# First byte of a read, one more than its last, and what it brings.
_Read = tuple[int, int, list[_Row]]


def load(refs: Mapping[str, TensorRef], reporter: Reporter = SILENT) -> dict[str, torch.Tensor]:
    """Those of `refs` that are small and lie side by side, if they are many.

    Each must have a storage of its own. Raises what reading raises.
    """
    found: dict[str, torch.Tensor] = {}
    for blob, rows in _small(refs).values() if len(refs) >= LEAST else ():
        rows.sort(key=_place)
        reads = list(_reads(rows))
        if len(rows) < LEAST or len(reads) * _SIDE_BY_SIDE > len(rows):
            continue
        for some in _batches(reads):
            memory = _read(blob, some, reporter)
            for alike in {id(row[2]): row[2] for _, _, taken in some for row in taken}.values():
                found.update(alike.take(memory))
    return found


def _place(row: _Row) -> int:
    return row[0]


def _small(refs: Mapping[str, TensorRef]) -> dict[int, tuple[Blob, list[_Row]]]:
    """The tensors that could be made here, by the file that they lie in."""
    known: dict[object, _Alike] = {}
    by_blob: dict[int, tuple[Blob, list[_Row]]] = {}
    for name, ref in refs.items():
        record = ref.record
        key = (record.dtype.name, record.shape, record.stride)
        alike = known.get(key)
        if alike is None:
            alike = known[key] = _Alike(record)
        storage = record.storage
        if not alike.length or record.conj or record.neg or type(storage) is not Storage:
            continue
        if storage.swapped > 1 or storage.device == "meta":
            continue
        blob = storage.blob
        if id(blob) not in by_blob:
            by_blob[id(blob)] = blob, []
        by_blob[id(blob)][1].append((storage.offset + record.offset * alike.size, name, alike))
    return by_blob


def _reads(rows: list[_Row]) -> Iterator[_Read]:
    """The rows, cut where so much lies between two that it is not worth reading."""
    start, begin, end = 0, rows[0][0] & -8, rows[0][0]
    for at, (offset, _, alike) in enumerate(rows):
        if offset - end > _GAP or offset - begin > _AT_ONCE:
            yield begin, end, rows[start:at]
            start, begin = at, offset & -8  # so that what is aligned in the file is so in memory
        end = max(end, offset + alike.length)
    yield begin, end, rows[start:]


def _batches(reads: list[_Read]) -> Iterator[list[_Read]]:
    """Reads that are done together."""
    some: list[_Read] = []
    size = 0
    for read in reads:
        length = read[1] - read[0]
        if some and size + length > _AT_ONCE:
            yield some
            some, size = [], 0
        some.append(read)
        size += length
    yield some


def _read(blob: Blob, reads: list[_Read], reporter: Reporter) -> torch.Tensor:
    """The bytes of all reads in one piece of memory; each tensor is told its place in it."""
    arena = Arena(sum(end - begin + 8 for begin, end, _ in reads))
    spans, at = [], 0
    for begin, end, rows in reads:
        spans.append(parallel.Span(blob, begin, [arena.view(at, at + end - begin)]))
        shift = at - begin
        for offset, name, alike in rows:
            alike.names.append(name)
            alike.places.append(offset + shift)
        at += (end - begin + 7) & -8
    parallel.fill(spans, reporter)
    return torch.frombuffer(arena.memory, dtype=torch.uint8, count=arena.size, offset=arena.base)
