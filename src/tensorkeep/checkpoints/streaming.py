"""Tensor bytes from an opened checkpoint to a sink, in blocks, by a few threads.

Bytes never become Python objects one by one: a contiguous tensor is a range that is read into a
buffer and written from it. Small tensors that will lie side by side share one write. Memory is a
block for each thread, whatever the size of the checkpoint.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Protocol

from tensorkeep.checkpoints.tensor import BLOCK, TensorRef
from tensorkeep.dtypes import DType
from tensorkeep.formats.layout import Entry, Layout
from tensorkeep.progress import SILENT, Reporter
from tensorkeep.stores import Sink

_CHUNK = 16 * BLOCK
_STRIDED = 32 * BLOCK
_WIDE = 4 * BLOCK
# Below this size a tensor costs more in calls than in bytes, and threads only wait for each other.
_SMALL = 64 << 10
_THREADS = 2


class Values(Protocol):
    """What a tensor of the target is made of; `shape` and all counts in elements.

    `stored` is the tensor of a file whose bytes these are, unchanged, or None. `splits` says
    whether a part costs no more than its share of the whole. `together` is what makes it along
    with others in one pass, or None; `blocks` gives the same bytes without them.
    """

    dtype: DType
    shape: tuple[int, ...]
    stored: TensorRef | None
    splits: bool
    together: Together | None

    def sources(self) -> Iterable[TensorRef]:
        """The tensors of files that it is made from."""

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """The contiguous little-endian bytes of elements `start` to `stop`, counted row-major.

        A piece is valid until the next is asked for.
        """


class Together(Protocol):
    """Tensors that are made in one pass over what they share: a weight's codes and its scales."""

    @property
    def members(self) -> Sequence[Values]:
        """The tensors; all of them go into the same file."""

    def cuts(self, size: int) -> Iterable[tuple[int, int]]:
        """Ranges, in units of its own, that are made of about `size` bytes each; all of it."""

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, memoryview]]:
        """Of such a range: which member, from which byte of it on, and the bytes.

        Each member's pieces come in order. A piece is valid until the next is asked for.
        """


@dataclass(slots=True)
class Output:
    """A tensor on its way: its name there, and what it is made of.

    `direct` is the tensor of a file whose bytes can be copied as they lie there, or None.
    """

    name: str
    values: Values
    direct: TensorRef | None = field(init=False)

    def __post_init__(self) -> None:
        ref = self.values.stored
        self.direct = ref if ref is not None and ref.direct else None

    @property
    def together(self) -> Together | None:
        """What makes it along with other outputs of the same file, or None."""
        return self.values.together

    @property
    def nbytes(self) -> int:
        """Bytes in the target."""
        return prod(self.values.shape) * self.values.dtype.itemsize

    @property
    def entry(self) -> Entry:
        """What the layout needs to know of it."""
        return Entry(self.name, self.values.dtype, self.values.shape, self.nbytes)


@dataclass(frozen=True, slots=True)
class _Job:
    """A run of the target. `whole`: outputs to be written from end to end; else a part of one.

    With `together`, `whole` are its members, and `cuts` the ranges of it to be made.
    """

    whole: Sequence[int]
    start: int = 0
    length: int = 0
    together: Together | None = None
    cuts: Sequence[tuple[int, int]] = ()


class Stream:
    """One file being filled."""

    def __init__(
        self, outputs: Sequence[Output], layout: Layout, sink: Sink, reporter: Reporter = SILENT
    ) -> None:
        self.outputs = outputs
        self.layout = layout
        self.sink = sink
        self.reporter = reporter
        self.checksums = [0] * len(outputs)
        self._jobs = iter(_plan(outputs, layout))
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Write everything; the sink is left to the caller to commit or abort."""
        for position, data in self.layout.fixed:
            self.sink.write_at(position, data)
        helpers = [threading.Thread(target=self._work) for _ in range(self._helpers())]
        try:
            for helper in helpers:
                helper.start()
            self._work()
        except BaseException as error:
            self._failure = self._failure or error
        while any(helper.is_alive() for helper in helpers):
            self._join(helpers)
        if self._failure is not None:
            raise self._failure
        for position, data in self.layout.closing(self.checksums):
            self.sink.write_at(position, data)

    def _join(self, helpers: Sequence[threading.Thread]) -> None:
        """Wait for the helpers, a signal's exception or not.

        They must have stopped before the sink is aborted: a descriptor that is closed under them
        may be another file's by their next write.
        """
        try:
            for helper in helpers:
                if helper.is_alive():
                    helper.join()
        except BaseException as error:
            self._failure = self._failure or error

    def _helpers(self) -> int:
        mean = self.layout.total // max(len(self.outputs), 1)
        return _THREADS - 1 if mean >= _SMALL else 0

    def _next(self) -> _Job | None:
        with self._lock:
            return None if self._failure else next(self._jobs, None)

    def _work(self) -> None:
        buffer = memoryview(bytearray(BLOCK))
        try:
            while (job := self._next()) is not None:
                self._do(job, buffer)
        except BaseException as error:
            with self._lock:
                self._failure = self._failure or error

    def _do(self, job: _Job, buffer: memoryview) -> None:
        if job.together:
            self._together(job, job.together)
        elif job.length:
            self._part(job, buffer)
        elif len(job.whole) > 1 and not self.layout.checksums:
            self._batch(job.whole, buffer)
        else:
            for which in job.whole:
                self._single(which, buffer)

    def _together(self, job: _Job, maker: Together) -> None:
        for cut in job.cuts:
            for member, at, piece in maker.pieces(*cut):
                which = job.whole[member]
                if self.layout.checksums:
                    self.checksums[which] = zlib.crc32(piece, self.checksums[which])
                self.sink.write_at(self.layout.positions[which] + at, piece)
                self._done(len(piece))

    def _part(self, job: _Job, buffer: memoryview) -> None:
        which = job.whole[0]
        target = self.layout.positions[which] + job.start
        for piece in _blocks(self.outputs[which], buffer, job.start, job.start + job.length):
            self.sink.write_at(target, piece)
            target += len(piece)
            self._done(len(piece))

    def _batch(self, whole: Sequence[int], buffer: memoryview) -> None:
        at = 0
        for which in whole:
            output = self.outputs[which]
            size = output.nbytes
            for piece in _blocks(output, buffer[at : at + size], 0, size):
                # What lies as it is wanted was read into its place already.
                if not output.direct:
                    buffer[at : at + len(piece)] = piece
                at += len(piece)
        self.sink.write_at(self.layout.positions[whole[0]], buffer[:at])
        self._done(at)

    def _single(self, which: int, buffer: memoryview) -> None:
        output = self.outputs[which]
        position, crc = self.layout.positions[which], 0
        for piece in _blocks(output, buffer, 0, output.nbytes):
            if self.layout.checksums:
                crc = zlib.crc32(piece, crc)
            self.sink.write_at(position, piece)
            position += len(piece)
            self._done(len(piece))
        self.checksums[which] = crc

    def _done(self, amount: int) -> None:
        self.reporter.advance(amount)


def _blocks(output: Output, buffer: memoryview, start: int, stop: int) -> Iterator[memoryview]:
    """Bytes `start` to `stop` of an output; `buffer` is where those of a direct one are read."""
    ref, values = output.direct, output.values
    if ref is None:
        size = values.dtype.itemsize
        if values.stored is not None:  # a view: the larger its blocks, the longer its reads
            yield from values.stored.blocks(_WIDE, start=start // size, stop=stop // size)
        else:
            yield from values.blocks(start // size, stop // size)
        return
    ref.check()
    storage, first = ref.record.storage, ref.record.offset * ref.record.dtype.itemsize
    for at in range(start, stop, BLOCK):
        piece = buffer[: min(BLOCK, stop - at)]
        storage.read_into(first + at, piece)
        yield piece


def _plan(outputs: Sequence[Output], layout: Layout) -> Iterator[_Job]:
    """Jobs in the order of the target, so that the device sees nearly sequential writes."""
    batch: list[int] = []
    filled = 0
    joint = _joint(outputs)
    for which in sorted(range(len(outputs)), key=lambda i: (layout.positions[i], i)):
        output, size = outputs[which], outputs[which].nbytes
        if size == 0:
            # It lies where its neighbour begins: in a batch it would shift what follows.
            continue
        small = size <= BLOCK and output.together is None
        if batch and (not small or filled + size > BLOCK):
            yield _Job(batch)
            batch, filled = [], 0
        if output.together is not None:
            members = joint.pop(id(output.together), None)
            if members is not None:
                yield from _joint_jobs(members, output.together, layout)
        elif small:
            batch.append(which)
            filled += size
        elif layout.checksums or not (output.direct or output.values.splits):
            yield _Job([which])
        else:
            step = _CHUNK if output.direct else _strided_chunk(output)
            for start in range(0, size, step):
                yield _Job([which], start, min(step, size - start))
    if batch:
        yield _Job(batch)


def _strided_chunk(output: Output) -> int:
    """Bytes of whole rows, and more of them at a time: a column is read element by element.

    A row that is cut in two is gathered twice, each time by as many reads as it has elements.
    """
    row = max(output.nbytes // max(output.values.shape[0], 1), 1)
    return max(_STRIDED // row, 1) * row if row <= _STRIDED else _CHUNK


def _joint(outputs: Sequence[Output]) -> dict[int, list[int]]:
    """Where the members of what is made together stand, in the order of the members."""
    where = {id(output.values): which for which, output in enumerate(outputs)}
    makers = {id(o.together): o.together for o in outputs if o.together is not None}
    return {key: [where[id(one)] for one in maker.members] for key, maker in makers.items()}


def _joint_jobs(members: list[int], maker: Together, layout: Layout) -> Iterator[_Job]:
    cuts = list(maker.cuts(_CHUNK))
    if layout.checksums:
        yield _Job(members, together=maker, cuts=cuts)
    else:
        yield from (_Job(members, together=maker, cuts=[cut]) for cut in cuts)
