"""From memory to disk in a thread of its own: at most one checkpoint on its way at a time.

Writing and hashing share threads: both let go of Python's lock, and a device that is waited for
leaves the processor to the digests. Whether the page cache is passed by (O_DIRECT) is decided by
what was faster: the first large checkpoint goes one way, the second the other.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tensorkeep.checkpoints import manifest as manifests
from tensorkeep.checkpoints.manifest import FileFacts, Manifest
from tensorkeep.stores import parallel
from tensorkeep.stores.commit import FolderCommit
from tensorkeep.training.snapshot import Image, Job

# Below this the way does not matter, and a measurement would be of noise.
_WORTH_MEASURING = 64 << 20
_THREADS = 6


class Ways:
    """Past the page cache or through it: bytes per second of each, as they were measured."""

    def __init__(self) -> None:
        self._rates: dict[bool, float] = {}

    def direct(self) -> bool:
        """The way that was faster, or the one that was not tried yet."""
        for way in (True, False):
            if way not in self._rates:
                return way
        return self._rates[True] >= self._rates[False]

    def measured(self, direct: bool, nbytes: int, seconds: float) -> None:
        """What a checkpoint took; the latest says most."""
        if nbytes >= _WORTH_MEASURING and seconds > 0:
            rate, before = nbytes / seconds, self._rates.get(direct)
            self._rates[direct] = rate if before is None else (rate + before) / 2


@dataclass(slots=True)
class Order:
    """A checkpoint that is to be written: images of files, small files, and the manifest's rest."""

    target: Path
    images: Sequence[Image]
    texts: Mapping[str, bytes]
    manifest: Callable[[Mapping[str, FileFacts]], Manifest]
    replace: bool = False
    files: dict[str, FileFacts] = field(default_factory=dict)
    # Files that stay as they are, from another checkpoint; `files` has what is known of them.
    links: Mapping[str, Path] = field(default_factory=dict)


def write(order: Order, ways: Ways) -> Manifest:
    """Write it all, durably, and let it appear. Raises what `FolderCommit` raises."""
    direct, began = ways.direct(), time.perf_counter()
    nbytes = sum(image.size for image in order.images)
    with FolderCommit(order.target, replace=order.replace) as commit:
        for name, source in order.links.items():
            commit.link(name, source)
        _images(order, commit, direct)
        for name, data in order.texts.items():
            commit.put(name, data)
            order.files[name] = FileFacts(len(data), manifests.PREFIX + _sha256(data))
        made = order.manifest(order.files)
        commit.put(manifests.NAME, made.to_bytes())
        commit.commit()
    ways.measured(direct, nbytes, time.perf_counter() - began)
    return made


def _images(order: Order, commit: FolderCommit, direct: bool) -> None:
    found: list[dict[str, bytes]] = [{} for _ in order.images]
    files = []
    try:
        for image in order.images:
            files.append(commit.jobs(image.name, image.data, image.size, direct=direct))
        writing = (job for file in files for job in file.pieces())
        hashing = (
            job
            for image, into in zip(order.images, found, strict=True)
            for job in image.digests(into)
        )
        # Both kinds in turn: the device and the processor are busy from the first moment on.
        parallel.run(_alternating(writing, hashing), _THREADS)
        parallel.run((file.close for file in files), min(_THREADS, max(len(files), 1)))
    finally:
        for file in files:
            file.release()
    for image, into in zip(order.images, found, strict=True):
        order.files[image.name] = image.facts(into)


def _alternating(*kinds: Iterator[Job]) -> Iterator[Job]:
    waiting = list(kinds)
    while waiting:
        for kind in list(waiting):
            job = next(kind, None)
            if job is None:
                waiting.remove(kind)
            else:
                yield job


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


class Writer:
    """One thread, one checkpoint at a time. An error waits for whoever asks next.

    If nobody ever does, it is said on stderr when the writer or the program ends.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._errors: list[BaseException] = []
        weakref.finalize(self, _unasked, self._errors, os.getpid())

    def start(self, work: Callable[[], None]) -> None:
        """Do `work` beside the caller. Waits for the work before; raises its error."""
        self.wait()
        errors = self._errors

        def run() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)

        # Not a daemon: a process that ends by itself ends after its checkpoint is whole.
        self._thread = threading.Thread(target=run, name="tensorkeep-save", daemon=False)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether something is being written."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Until nothing is being written. Raises the error that the writing ended with, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._errors:
            raise self._errors.pop()


def _unasked(errors: list[BaseException], owner: int) -> None:
    # A program that saves last and never closes its run would end as if all were well.
    if os.getpid() == owner:
        for error in errors:
            told = type(error), error, error.__traceback__, None
            threading.excepthook(threading.ExceptHookArgs(told))
