"""Pickles that lie one after another at the beginning of a blob, read a window at a time."""

from __future__ import annotations

from tensorkeep.errors import LimitExceeded
from tensorkeep.facts import Anomaly, Limits
from tensorkeep.pickles import Call, Import, Program, Reads, Resolve, run
from tensorkeep.stores import Blob

_WINDOW = 64 << 10
_GROWTH = 4


class Stream:
    """Runs the pickles in `blob` without reading more of it than they need.

    A program that the window cuts short is run again on one four times as long: the work stays
    linear in the bytes of the pickles. Positions are those in the blob.
    """

    def __init__(self, blob: Blob, limits: Limits, window: int = _WINDOW) -> None:
        self.blob = blob
        self.limits = limits
        self.data = blob.read(0, min(window, blob.size))

    def run(
        self,
        start: int,
        where: str = "",
        *,
        resolve: Resolve | None = None,
        reads: Reads | None = None,
    ) -> Program:
        """The program that begins at byte `start`; as `pickles.run`."""
        while True:
            program = run_text(
                self.data, start, limits=self.limits, where=where, resolve=resolve, reads=reads
            )
            have = len(self.data)
            if not program.cut or have == self.blob.size:
                return program
            if have - start > self.limits.max_pickle_bytes:
                expected = f"a pickle of at most {self.limits.max_pickle_bytes} bytes"
                program.error = LimitExceeded(self.blob.name, expected=expected, got="more")
                return program
            length = min(max(_WINDOW, (_GROWTH - 1) * have), self.blob.size - have)
            self.data += self.blob.read(have, length)


def run_text(
    data: bytes,
    start: int = 0,
    *,
    limits: Limits,
    where: str = "",
    resolve: Resolve | None = None,
    reads: Reads | None = None,
) -> Program:
    """As `pickles.run`; where 8-bit text of Python 2 is no UTF-8, as a loader told "latin1".

    That is what those files are loaded with: all bytes are text then, and the program goes on.
    """
    program = run(data, start, limits=limits, where=where, resolve=resolve, reads=reads)
    if program.error is None or program.error.expected != "text in utf-8":
        return program
    return run(
        data, start, limits=limits, encoding="latin1", where=where, resolve=resolve, reads=reads
    )


def imports(program: Program) -> bool:
    """Whether a program names anything that loading it would import."""
    return any(isinstance(event, Import) for event in program.trace)


def plausible(program: Program) -> bool:
    """Whether bytes without a protocol's magic are a program, and not a text that begins like one.

    It ends as a program does, or it calls something by a name that a module can have.
    """
    if program.error is None:
        return True
    return any(isinstance(event, Call) for event in program.trace) and any(
        isinstance(event, Import) and _sayable(event) for event in program.trace
    )


def _sayable(event: Import) -> bool:
    target = event.target
    written = getattr(target, "written", None)
    if written is None:
        return True
    return all(part.isidentifier() for text in written for part in str(text).split("."))


def trailing(size: int, end: int, where: str) -> list[Anomaly]:
    """What is said of the bytes behind the last program of a file of `size` bytes."""
    if end >= size:
        return []
    what = f"{size - end} bytes follow the pickle's end"
    return [Anomaly("bytes-after-pickle", what, where, end)]
