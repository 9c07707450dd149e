"""What the indices of sparse and nested tensors say, read block by block and checked.

A loader builds such tensors without looking, and later operations take every number for a
position in memory. Bytes read stay in proportion to the storages: views that repeat theirs are
reported instead of being followed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from math import prod
from operator import le, lt

from tensorkeep.checkpoints.tensor import TensorRef
from tensorkeep.errors import Amplified, LimitExceeded
from tensorkeep.facts import Anomaly, Limits
from tensorkeep.formats.assembled import Compound
from tensorkeep.formats.contents import Storage, TensorRecord
from tensorkeep.formats.sparse_shapes import PARTS, compressed_sizes

_SPARSE, _NESTED = "sparse-index-out-of-bounds", "nested-out-of-bounds"
_CODES = {"int64": "q", "int32": "i"}
_TIMES = 16  # how often all storages together may be read
_LINE = 1024  # what a line costs that has no bytes at all


class Wrong(Exception):
    """The first thing that an index says and must not. Never leaves this module."""

    def __init__(self, what: str, kind: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.kind = kind


def check(compounds: Iterable[Compound], limits: Limits, subject: str) -> Iterator[Anomaly]:
    """An anomaly for each tensor whose indices lead elsewhere.

    Raises `LimitExceeded` when the tensors of a small file ask for very many bytes, `Amplified`
    from `Limits.max_ratio` times their storages on, and what reading raises.
    """
    reading = _Reading(limits, subject)
    for tensor in compounds:
        parts = tensor.parts.values()
        if tensor.broken or any(part.problem for part in parts):
            continue  # said already
        if any(part.storage.device in ("meta", "hollow") for part in parts):
            continue  # no values were written
        look = _CHECKS.get(tensor.layout)
        try:
            if look is not None:
                look(reading, tensor)
        except Wrong as wrong:
            kind = _SPARSE if tensor.layout in PARTS else _NESTED
            what = f"a {tensor.why}: {wrong.what}"[:300]
            yield Anomaly(wrong.kind or kind, what, "", tensor.offset)


class _Reading:
    """Integers of views, within a budget of bytes that grows with the storages met."""

    def __init__(self, limits: Limits, subject: str) -> None:
        self.limits = limits
        self.budget = limits.max_pickle_bytes // _TIMES
        self.spent = self.stored = 0
        self.subject = subject
        self.known: set[str] = set()

    def blocks(
        self, record: TensorRecord, at: int, size: int, step: int
    ) -> Iterator[tuple[int, ...]]:
        """The integers of one line of `record`: `size` of them from element `at`, `step` apart."""
        self._pay(record.storage, size * record.dtype.itemsize + _LINE)
        line = TensorRecord(record.dtype, (size,), (step,), at, record.storage)
        code = _CODES[record.dtype.name]
        for piece in TensorRef("", line, "").blocks():
            # `array` would do it, and tell every audit hook of the process.
            yield struct.unpack(f"<{len(piece) // record.dtype.itemsize}{code}", piece)

    def _pay(self, storage: Storage, nbytes: int) -> None:
        if storage.key not in self.known:
            self.known.add(storage.key)
            self.stored += storage.nbytes
            self.budget += _TIMES * storage.nbytes
        self.budget -= nbytes
        self.spent += nbytes
        if self.budget < 0:
            # Whoever uses such a tensor reads as much.
            amplified = self.spent > self.limits.max_ratio * self.stored
            raise (Amplified if amplified else LimitExceeded)(
                self.subject,
                expected=f"indices that read each storage at most {_TIMES} times",
                got="more",
            )

    def numbers(self, record: TensorRecord) -> Iterator[int]:
        """All integers of a tensor of one or two dimensions, row by row."""
        for at, size, step in _lines(record):
            yield from chain.from_iterable(self.blocks(record, at, size, step))


def _lines(record: TensorRecord) -> Iterator[tuple[int, int, int]]:
    """Where each line along the last dimension begins, its size and step, in elements."""
    if not record.shape:
        return
    size, step = record.shape[-1], record.stride[-1]
    outer, strides = record.shape[:-1], record.stride[:-1]
    for number in range(prod(outer)):
        at, rest = record.offset, number
        for extent, stride in zip(reversed(outer), reversed(strides), strict=True):
            rest, place = divmod(rest, extent)
            at += place * stride
        yield at, size, step


def _once(line: tuple[int, int, int]) -> tuple[int, int, int]:
    """The line without its repetitions: a step of 0 gives the same number again and again."""
    at, size, step = line
    return at, min(size, 1) if step == 0 else size, step


def _range(blocks: Iterable[tuple[int, ...]], below: int, what: str) -> None:
    for block in blocks:
        if block and not (min(block) >= 0 and max(block) < below):
            worst = min(block) if min(block) < 0 else max(block)
            raise Wrong(f"{what} {worst} of {below}")


def _coo(reading: _Reading, tensor: Compound) -> None:
    indices = tensor.parts["indices"]
    for line, below in zip(_lines(indices), tensor.shape, strict=False):
        _range(reading.blocks(indices, *_once(line)), below, "index")
    if tensor.details.get("coalesced") and indices.shape[0] and indices.shape[1] > 1:
        _coalesced(reading, indices)


def _coalesced(reading: _Reading, indices: TensorRecord) -> None:
    """Sorted, and none twice."""
    if any(step == 0 for step in indices.stride[1:]):
        raise Wrong("marked as coalesced, with an index twice", "sparse-not-coalesced")
    rows = [reading.blocks(indices, *line) for line in _lines(indices)]
    last: tuple[int, ...] = ()
    for blocks in zip(*rows, strict=True):
        keys = list(zip(*blocks, strict=True))
        if not (last < keys[0] and all(map(lt, keys, keys[1:]))):
            raise Wrong("marked as coalesced, with indices out of order", "sparse-not-coalesced")
        last = keys[-1]


def _compressed(reading: _Reading, tensor: Compound) -> None:
    compressed, plain = (tensor.parts[name] for name in PARTS[tensor.layout][:2])
    values = tensor.parts["values"]
    sizes = compressed_sizes(tensor.layout, compressed.shape, values.shape, tensor.shape)
    nnz = plain.shape[-1]
    for line, other in zip(_lines(compressed), _lines(plain), strict=True):
        _ascending(reading.blocks(compressed, *_once(line)), nnz, sizes.plain)
        _range(reading.blocks(plain, *_once(other)), sizes.plain, "index")


def _ascending(blocks: Iterable[tuple[int, ...]], end: int, most: int) -> None:
    """From 0 to `end`, never down, never up by more than `most`."""
    last = first = None
    for block in blocks:
        first = block[0] if first is None else first
        steps = block if last is None else (last, *block)
        if not all(map(le, steps, steps[1:])):
            raise Wrong("compressed indices go down")
        if any(after - before > most for before, after in pairwise(steps)):
            raise Wrong(f"compressed indices go up by more than {most}")
        last = block[-1]
    if first != 0 or last != end:
        raise Wrong(f"compressed indices go from {first} to {last}, for {end} elements")


def _nested(reading: _Reading, tensor: Compound) -> None:
    """Each tensor inside: a view of the buffer."""
    extents, strides, offsets = (tensor.parts[k] for k in ("sizes", "strides", "offsets"))
    room = tensor.parts["buffer"].numel
    width = extents.shape[1] if len(extents.shape) == 2 else 0
    sizes, steps = reading.numbers(extents), reading.numbers(strides)
    for offset in reading.numbers(offsets):
        shape = [next(sizes, 0) for _ in range(width)]
        stride = [next(steps, 0) for _ in range(width)]
        if min((offset, *shape, *stride)) < 0:
            raise Wrong("a negative size, stride or offset")
        reach = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
        if 0 not in shape and reach >= room:
            raise Wrong(f"element {reach} of a buffer of {room}")


def _jagged(reading: _Reading, tensor: Compound) -> None:
    axis = int(str(tensor.details["ragged"]))
    room = tensor.parts["values"].shape[axis - 1]
    last = 0
    for number in reading.numbers(tensor.parts["offsets"]):
        if not last <= number <= room:
            raise Wrong(f"offset {number} after {last}, of {room}")
        last = number
    if "lengths" in tensor.parts:
        for length in reading.numbers(tensor.parts["lengths"]):
            if not 0 <= length <= room:
                raise Wrong(f"length {length} of {room}")


_CHECKS = {
    "sparse_coo": _coo,
    "nested": _nested,
    "jagged": _jagged,
    **dict.fromkeys(("sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc"), _compressed),
}
