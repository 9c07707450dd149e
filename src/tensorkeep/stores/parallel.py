"""Many bytes into memory at once: spans of blobs, read by a few threads in large pieces.

One reader does not fill a memory bus or a fast device. Pieces are long enough that a call costs
nothing beside its bytes, and small tensors that lie side by side share one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tensorkeep.progress import SILENT, Reporter
from tensorkeep.stores import Blob
from tensorkeep.stores._descriptor import DescriptorBlob

PIECE = 8 << 20
# Less than this is read sooner than a thread has started.
_ALONE = 4 << 20
_THREADS = 8

Job = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of `blob` from `offset` on, and the buffers (format "B") that take them in turn."""

    blob: Blob
    offset: int
    buffers: Sequence[memoryview]

    @property
    def nbytes(self) -> int:
        """Bytes of all its buffers."""
        return sum(buffer.nbytes for buffer in self.buffers)


def fill(spans: Sequence[Span], reporter: Reporter = SILENT) -> None:
    """Read every span into its buffers. Raises what the blobs raise, after all threads ended."""
    total = sum(span.nbytes for span in spans)
    _advise(spans)
    pieces = [piece for span in spans for piece in cut(span)]
    run((_reading(piece, reporter) for piece in pieces), threads_for(total, len(pieces)))


def _advise(spans: Sequence[Span]) -> None:
    """Let the kernel read ahead in blobs of which most is wanted.

    Large pieces with its read-ahead off were the slowest way to read from a cold device.
    """
    wanted: dict[int, tuple[Blob, int]] = {}
    for span in spans:
        _, before = wanted.get(id(span.blob), (span.blob, 0))
        wanted[id(span.blob)] = span.blob, before + span.nbytes
    for blob, nbytes in wanted.values():
        if nbytes > max(_ALONE, blob.size // 2):
            blob.advise_sequential()


def threads_for(nbytes: int, jobs: int) -> int:
    """How many threads are worth their start for so many bytes in so many jobs.

    More than there are cores: from a cold device they wait, and it wants several requests at once.
    """
    return 1 if nbytes <= _ALONE else max(1, min(_THREADS, jobs))


def cut(span: Span, size: int = PIECE) -> Iterator[Span]:
    """The span in pieces of about `size` bytes."""
    offset, taken, filled = span.offset, list[memoryview](), 0
    for whole in span.buffers:
        buffer = whole
        while filled + buffer.nbytes > size:
            room = size - filled
            yield Span(span.blob, offset, [*taken, buffer[:room]] if room else taken)
            offset, taken, filled = offset + size, [], 0
            buffer = buffer[room:]
        if buffer.nbytes:
            taken.append(buffer)
            filled += buffer.nbytes
    if taken:
        yield Span(span.blob, offset, taken)


def _reading(span: Span, reporter: Reporter) -> Job:
    def read() -> None:
        if isinstance(span.blob, DescriptorBlob):
            span.blob.read_scattered(span.offset, span.buffers)
        else:
            offset = span.offset
            for buffer in span.buffers:
                span.blob.read_into(offset, buffer)
                offset += buffer.nbytes
        reporter.advance(span.nbytes)

    return read


def run(jobs: Iterable[Job], threads: int) -> None:
    """Do the jobs, in order, in so many threads; this one is among them.

    The first failure ends the work and is raised when all threads have ended: nobody writes
    into the memory any more by then.
    """
    crew = _Crew(jobs)
    helpers = [threading.Thread(target=crew.work) for _ in range(threads - 1)]
    try:
        for helper in helpers:
            helper.start()
        crew.work()
    except BaseException as error:
        crew.fail(error)
    while any(helper.is_alive() for helper in helpers):
        try:
            for helper in helpers:
                if helper.is_alive():
                    helper.join()
        except BaseException as error:  # a signal's exception: the others must still end
            crew.fail(error)
    if crew.failure is not None:
        raise crew.failure


class _Crew:
    """Jobs that several threads take from, until they are done or one has failed."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self.failure: BaseException | None = None
        self._jobs = iter(jobs)
        self._lock = threading.Lock()

    def work(self) -> None:
        try:
            while (job := self._next()) is not None:
                job()
        except BaseException as error:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        with self._lock:
            self.failure = self.failure or error

    def _next(self) -> Job | None:
        with self._lock:
            return None if self.failure else next(self._jobs, None)
