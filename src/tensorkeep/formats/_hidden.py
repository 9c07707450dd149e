"""Pickles behind the end of what a loader reads, also where bytes that are none lie before them.

No loader of the file runs them by itself; whoever seeks there does. Every place where a pickle
could begin is tried: where its protocol is written, and where a name is. What a program swallows
as data is tried as well, so that no decoy hides what lies in it; the work altogether has a limit,
a multiple of the bytes looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tensorkeep.errors import LimitExceeded, TensorkeepError
from tensorkeep.facts import Anomaly, Limits
from tensorkeep.formats._nested import is_plain
from tensorkeep.formats._programs import plausible, run_text
from tensorkeep.pickles import Global, Import, Program
from tensorkeep.stores import Blob

_REGION = 2 << 20  # bytes that are looked at from the beginning, and as many before the end
_SPARE = 1 << 20
_PER_BYTE = 1
_PER_TRY = 128  # bytes' worth of work that any place costs
_PER_CUT = 64  # bytes that are searched for a line's end in the time of one opcode
_MOST = 500
_BEFORE = 256  # bytes before an INST in which its mark is looked for
_MARKS = 4

_WORD = rb"[A-Za-z_][\w.]{0,60}"
_TEXT = rb"(?:\x8c[\x01-\x40]|X[\x01-\x40]\0\0\0)[A-Za-z_][\w.]{0,60}(?:\x94|q.|r.{4})?"
_PLACES = re.compile(
    rb"\x80(?=[\0-\x05])|c(?=%b\n%b\n)|i(?=%b\n%b\n)|(?=%b%b\x93)" % (*[_WORD] * 4, _TEXT, _TEXT),
    re.DOTALL,
)


@dataclass(slots=True)
class Hidden:
    """What was found: programs by their place, what is odd, and what stopped the search."""

    programs: list[tuple[str, Program]] = field(default_factory=list)
    anomalies: list[Anomaly] = field(default_factory=list)
    unreadable: list[tuple[str, TensorkeepError]] = field(default_factory=list)


def behind(
    blob: Blob, start: int, limits: Limits, where: str = "", known: Program | None = None
) -> Hidden:
    """The pickles in `blob` from byte `start` on that import something.

    Their offsets count from their own first byte, which their place names. `where` is the member
    that `blob` is, if it is one; `known` a program among those bytes that is judged already.
    """
    found = Hidden()
    seen = _named(known, 0) if known is not None else set()
    size = blob.size - start
    spans = [(start, size)]
    if size > 2 * _REGION:
        spans = [(start, _REGION), (blob.size - _REGION, _REGION)]
    for at, length in spans:
        data = blob.read(at, length)
        try:
            for offset, program in _search(data, at, seen, limits):
                place = ", ".join(filter(None, (where, f"pickle at byte {at + offset}")))
                found.programs.append((place, program))
                what = "a pickle behind the end of those that a loader of the file reads"
                found.anomalies.append(Anomaly("second-pickle", what, where, at + offset))
        except LimitExceeded as error:
            found.unreadable.append((where or f"the bytes from byte {at} on", error))
    return found


def _named(program: Program, base: int) -> set[int]:
    """Where a program imports something."""
    return {base + event.offset for event in program.trace if isinstance(event, Import)}


def _search(
    data: bytes, base: int, seen: set[int], limits: Limits
) -> Iterator[tuple[int, Program]]:
    """Where each program begins, and what it says. Raises `LimitExceeded`.

    `seen` are the places of imports that are known; one that has no other is the same again.
    """
    room, count, inside = _SPARE + _PER_BYTE * len(data), 0, set[int]()
    for at in _places(data):
        if at in inside:
            continue
        program = run_text(data, at, limits=limits)
        room -= max(program.end - at, _PER_TRY)
        if program.cut:
            room -= (len(data) - at) // _PER_CUT
        named = _named(program, base)
        if plausible(program) and not named <= seen:
            seen |= named
            inside.update(_letters(program))
            count += 1
            yield at, _alone(data, at, program, limits)
        if room < 0 or count > _MOST:
            expected = f"at most {_MOST} pickles, tried in time linear in the bytes"
            raise LimitExceeded("bytes behind the end", expected=expected, got="more")


def _letters(program: Program) -> Iterator[int]:
    """The bytes within plain names: the end of "torch" reads like the import of something else."""
    for event in program.trace:
        if isinstance(event, Import) and event.opcode == "GLOBAL" and is_plain(event):
            assert isinstance(event.target, Global)
            length = sum(map(len, event.target.written)) + 2
            yield from range(event.offset + 1, event.offset + 1 + length)


def _alone(data: bytes, at: int, program: Program, limits: Limits) -> Program:
    """The program with offsets of its own. What breaks it off is junk, and none of the file's."""
    again = run_text(data[at : program.end], limits=limits)
    again.error = program.error if isinstance(program.error, LimitExceeded) else None
    return again


def _places(data: bytes) -> Iterator[int]:
    """Offsets at which a pickle could begin."""
    for match in _PLACES.finditer(data):
        at = match.start()
        if match[0] == b"i":
            yield from _marks(data, at)
        else:
            # In protocol 0 and 1 a mark may stand before the name: OBJ wants it there.
            if match[0] == b"c" and data[at - 1 : at] == b"(":
                yield at - 1
            yield at


def _marks(data: bytes, at: int) -> Iterator[int]:
    """The last few marks before an INST at `at`, the nearest first."""
    low = max(at - _BEFORE, 0)
    for _ in range(_MARKS):
        at = data.rfind(b"(", low, at)
        if at < 0:
            return
        yield at
