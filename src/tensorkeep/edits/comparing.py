"""The values of pairs of tensors compared, block by block.

Equal bytes are only compared as bytes: nothing is computed for them as long as nothing differs
anywhere. As soon as something does, the norms of what is equal are wanted too (a relative
difference of a whole module has them below the line), so from there on they are taken on the way,
and what had been passed is read once more, from one side. A look at the beginning of every large
tensor tells beforehand which of the two it will be.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tensorkeep.checkpoints.lockstep import Feed, Job, Worker, jobs, spread
from tensorkeep.checkpoints.tensor import TensorRef
from tensorkeep.edits.distances import STEP, Distance, Meter, measurable
from tensorkeep.progress import SILENT, Reporter

if TYPE_CHECKING:
    from numpy.typing import NDArray

Pair = tuple[TensorRef, TensorRef]

_WIDEST = 16
_LOOK = 4096
# A look at a smaller tensor costs as much as reading it.
_WORTH_A_LOOK = 1 << 20


def compare(
    pairs: Sequence[Pair], *, atol: float = 0.0, rtol: float = 0.0, reporter: Reporter = SILENT
) -> list[Distance]:
    """The distance of each pair; both of a pair have one shape, their dtypes may differ.

    Memory: a few MiB for each thread. `reporter.advance` counts bytes of both sides. Raises what
    reading raises.
    """
    work = _Comparison(pairs, atol, rtol, reporter)
    work.norms = work.looks_different()
    work.run(work.measure, iter(jobs(_count(left) for left, _ in pairs)))
    if work.passed and any(distance.apart for distance in work.found):
        work.run(work.catch_up, iter(list(work.passed)))
    return work.found


def _count(ref: TensorRef) -> int:
    return ref.record.numel


class _Comparison:
    """State that the threads share. `passed`: equal elements whose norms were not taken."""

    def __init__(self, pairs: Sequence[Pair], atol: float, rtol: float, reporter: Reporter) -> None:
        self.pairs = pairs
        self.found = [Distance() for _ in pairs]
        self.passed: list[Job] = []
        self.norms = False
        self._tolerance = (atol, rtol)
        self._reporter = reporter
        self._lock = threading.Lock()

    def run(self, task: Callable[[_Buffers, Job], None], todo: Iterator[Job]) -> None:
        def worker() -> Worker:
            buffers = _Buffers(*self._tolerance)
            return lambda job: task(buffers, job)

        total = sum(left.nbytes for left, _ in self.pairs)
        spread(todo, worker, mean=total // max(len(self.pairs), 1))

    def looks_different(self) -> bool:
        """Whether the first bytes of any large pair differ."""
        left, right = bytearray(_LOOK), bytearray(_LOOK)
        for a, b in self.pairs:
            if a.dtype == b.dtype and a.nbytes > _WORTH_A_LOOK and a.direct and b.direct:
                for ref, room in ((a, left), (b, right)):
                    Feed(ref, 0, _LOOK).fill(memoryview(room))
                if left != right:
                    return True
        return False

    def measure(self, buffers: _Buffers, job: Job) -> None:
        """Compare the elements of a job, and take their norms if they will be wanted."""
        left, right = self.pairs[job.which]
        first, second = left.record.dtype, right.record.dtype
        feeds = Feed(left, job.start, job.stop), Feed(right, job.start, job.stop)
        meter, distance, known = buffers.meter, Distance(), False
        passed: list[Job] = []
        comparable = measurable(first) and measurable(second)
        for at in range(job.start, job.stop, STEP):
            count = min(STEP, job.stop - at)
            a = buffers.filled(0, feeds[0], count * first.itemsize)
            b = buffers.filled(1, feeds[1], count * second.itemsize)
            # Behind a piece that differs comes another that does: measuring says so too.
            if not known and first is second and meter.equal(a, b):
                if self.norms:
                    meter.add_same(distance, a, first)
                else:
                    _extend(passed, job.which, at, at + count)
            elif comparable:
                told, known = (
                    not known and first is second,
                    meter.add(distance, a, first, b, second),
                )
                distance.recoded = distance.recoded or (told and not known)
                self.norms = self.norms or known
            else:
                distance.unmeasured = True
            self._reporter.advance(len(a) + len(b))
        self._add(job, distance, passed)

    def catch_up(self, buffers: _Buffers, job: Job) -> None:
        """Take the norms of elements that are known to be equal."""
        ref, distance = self.pairs[job.which][0], Distance()
        dtype = ref.record.dtype
        feed = Feed(ref, job.start, job.stop)
        for at in range(job.start, job.stop, STEP):
            size = min(STEP, job.stop - at) * dtype.itemsize
            buffers.meter.add_same(distance, buffers.filled(0, feed, size), dtype)
        self._add(job, distance)

    def _add(self, job: Job, distance: Distance, passed: Sequence[Job] = ()) -> None:
        with self._lock:
            self.found[job.which].add(distance)
            self.passed += passed


def _extend(passed: list[Job], which: int, start: int, stop: int) -> None:
    if passed and passed[-1].stop == start:
        start = passed.pop().start
    passed.append(Job(which, start, stop))


class _Buffers:
    """What one thread reads into and measures with."""

    def __init__(self, atol: float, rtol: float) -> None:
        import numpy as np

        self.meter = Meter(atol, rtol)
        self._rooms = np.empty((2, STEP * _WIDEST), np.uint8)

    def filled(self, which: int, feed: Feed, size: int) -> NDArray[Any]:
        """One of two buffers with the next `size` bytes."""
        room = self._rooms[which, :size]
        feed.fill(room.data)
        return room
