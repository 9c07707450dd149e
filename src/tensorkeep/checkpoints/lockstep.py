"""Pairs of tensors read side by side, as many elements of each, by a few threads.

Tensors are cut into jobs, so that a large one keeps all threads busy. Memory is two pieces for each
thread, whatever the size of the tensors.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from tensorkeep.checkpoints.tensor import TensorRef

# Elements of a job: large enough that threads seldom meet, small enough to share one tensor.
_JOB = 1 << 22
_THREADS = 2
# Below this size (bytes, the mean of all) a tensor costs more in calls than in bytes, and threads
# only wait for each other.
_SMALL = 64 << 10


@dataclass(frozen=True, slots=True)
class Job:
    """Elements `start` to `stop` of the pair with this number."""

    which: int
    start: int
    stop: int


class Worker(Protocol):
    """What one thread does. It may keep buffers of its own."""

    def __call__(self, job: Job) -> None:
        """Do one job. What it raises ends the whole."""


class Feed:
    """Elements `start` to `stop` of a tensor, contiguous and little-endian, into given buffers.

    Raises `Damaged` and `Unsupported` for a tensor that has no bytes to read.
    """

    def __init__(self, ref: TensorRef, start: int, stop: int) -> None:
        ref.check()
        record = ref.record
        self._storage = record.storage
        self._at = (record.offset + start) * record.dtype.itemsize
        self._blocks = None if ref.direct else ref.blocks(start=start, stop=stop)
        self._left = memoryview(b"")

    def fill(self, buffer: memoryview) -> None:
        """The next elements, as many as fit. The caller asks for no more than there are."""
        if self._blocks is None:
            self._storage.read_into(self._at, buffer)
            self._at += len(buffer)
            return
        at = 0
        while at < len(buffer):
            if not self._left:
                self._left = next(self._blocks)
            part = self._left[: len(buffer) - at]
            buffer[at : at + len(part)] = part
            at += len(part)
            self._left = self._left[len(part) :]


def jobs(counts: Iterable[int]) -> Iterator[Job]:
    """All elements of all pairs, in order; `counts` are the elements of each."""
    for which, count in enumerate(counts):
        for start in range(0, count, _JOB):
            yield Job(which, start, min(start + _JOB, count))


def spread(todo: Iterator[Job], worker: Callable[[], Worker], *, mean: int) -> None:
    """Do all jobs. `worker()` is called once in each thread; `mean` is the bytes of a pair.

    The first exception ends the work and is raised when all threads have stopped: the files may
    be closed after that.
    """
    _Crew(todo, worker).run(_THREADS - 1 if mean >= _SMALL else 0)


class _Crew:
    def __init__(self, todo: Iterator[Job], worker: Callable[[], Worker]) -> None:
        self._todo = todo
        self._worker = worker
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    def run(self, helpers: int) -> None:
        threads = [threading.Thread(target=self._work) for _ in range(helpers)]
        try:
            for thread in threads:
                thread.start()
            self._work()
        except BaseException as error:
            self._fail(error)
        while any(thread.is_alive() for thread in threads):
            self._join(threads)
        if self._failure is not None:
            raise self._failure

    def _join(self, threads: list[threading.Thread]) -> None:
        """Wait for the helpers, a signal's exception or not: they read files that get closed."""
        try:
            for thread in threads:
                if thread.is_alive():
                    thread.join()
        except BaseException as error:
            self._fail(error)

    def _next(self) -> Job | None:
        with self._lock:
            return None if self._failure else next(self._todo, None)

    def _work(self) -> None:
        try:
            do = self._worker()
            while (job := self._next()) is not None:
                do(job)
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failure = self._failure or error
