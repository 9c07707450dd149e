"""Where byte ranges of a checkpoint will lie in memory, so that few large reads bring them there.

Ranges keep the order of the file. Each begins at a multiple of 64 bytes; where the file has
them so, one read takes many of them, the bytes between them included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tensorkeep.formats.contents import Storage
from tensorkeep.live.arenas import LARGEST
from tensorkeep.stores import Blob
from tensorkeep.stores.parallel import Span

ALIGNMENT = 64
# Reading on over so many bytes costs less than another call.
_GAP = 64 << 10

Gather = Callable[[memoryview], None]


class Room(Protocol):
    """Memory that a plan is read into."""

    def view(self, start: int, stop: int) -> memoryview:
        """Bytes `start` to `stop` of it, to be filled."""


class Piece:
    """A range of a storage, in bytes, that will be one storage of torch's.

    `alignment` in bytes, of an address that its elements can have. `gather` fills a buffer with it
    where it does not lie in a file just as it is wanted.
    """

    __slots__ = ("alignment", "gather", "length", "start", "storage")

    def __init__(
        self,
        storage: Storage,
        start: int,
        length: int,
        alignment: int = 1,
        gather: Gather | None = None,
    ) -> None:
        self.storage = storage
        self.start = start
        self.length = length
        self.alignment = alignment
        self.gather = gather

    @property
    def place(self) -> tuple[Blob, int] | None:
        """The blob it lies in and where, or None if no blob has it in one piece."""
        # A subclass puts its bytes together from several places.
        if self.gather is not None or type(self.storage) is not Storage:
            return None
        return self.storage.blob, self.storage.offset + self.start

    def part(self, start: int, length: int) -> Piece:
        """Some of its bytes, from byte `start` of it on."""
        if self.gather is None:
            return Piece(self.storage, self.start + start, length, self.alignment)
        if length == self.length:
            return self
        return Piece(self.storage, 0, length, gather=_Sliced(self, start))

    def fill(self, buffer: memoryview) -> None:
        """Bring the bytes of a piece without a place."""
        if self.gather is not None:
            self.gather(buffer)
        else:
            self.storage.read_into(self.start, buffer)


class _Sliced:
    """Gathers a range of a piece that can only be gathered as a whole.

    Each time anew: rare (a large tensor that is no byte range, on its way to an accelerator), and
    what was kept would be memory that nobody counts.
    """

    def __init__(self, piece: Piece, start: int) -> None:
        self.piece = piece
        self.start = start

    def __call__(self, buffer: memoryview) -> None:
        whole = bytearray(self.piece.length)
        self.piece.fill(memoryview(whole))
        buffer[:] = whole[self.start : self.start + len(buffer)]


@dataclass(slots=True)
class _Run:
    """Bytes of one blob from `offset` to `end`: ranges of the arena, or the length of a gap."""

    blob: Blob
    offset: int
    end: int
    parts: list[tuple[int, int] | int]


@dataclass(slots=True)
class Plan:
    """One arena to be: `size` in bytes, `pieces` as (number, position), `loose` those to gather."""

    size: int = 0
    pieces: list[tuple[int, int]] = field(default_factory=list)
    loose: list[tuple[int, int]] = field(default_factory=list)
    runs: list[_Run] = field(default_factory=list)

    def put(self, number: int, blob: Blob, offset: int, length: int) -> None:
        """Give the piece the next place, in the same read as the last one where that can be."""
        run = self.runs[-1] if self.runs else None
        gap = offset - run.end if run is not None and run.blob is blob else -1
        size = self.size
        at = -(-size // ALIGNMENT) * ALIGNMENT
        if run is None or not 0 <= gap <= _GAP:
            self.runs.append(_Run(blob, offset, offset + length, [(at, at + length)]))
        elif (size + gap) % ALIGNMENT == 0:
            at = size + gap
            begin, _ = _last(run.parts)
            run.parts[-1] = (begin, at + length)
            run.end = offset + length
        else:
            run.parts += [gap, (at, at + length)] if gap else [(at, at + length)]
            run.end = offset + length
        self.pieces.append((number, at))
        self.size = at + length

    def spans(self, arena: Room) -> list[Span]:
        """What to read into it."""
        scratch = memoryview(bytearray(_GAP))
        return [
            Span(
                run.blob,
                run.offset,
                [scratch[:p] if isinstance(p, int) else arena.view(*p) for p in run.parts],
            )
            for run in self.runs
        ]


def plan(pieces: Sequence[Piece], largest: int = LARGEST) -> list[Plan]:
    """Arenas of at most `largest` bytes (a longer piece has its own) for pieces that have bytes."""
    placed, loose = _placed(pieces)
    plans: list[Plan] = []
    for number, blob, offset in placed:
        length = pieces[number].length
        _room(plans, length, largest)
        plans[-1].put(number, blob, offset, length)
    for number in loose:
        _room(plans, pieces[number].length, largest)
        now = plans[-1]
        at = _aligned(now.size)
        now.pieces.append((number, at))
        now.loose.append((number, at))
        now.size = at + pieces[number].length
    return plans


def _placed(pieces: Sequence[Piece]) -> tuple[list[tuple[int, Blob, int]], list[int]]:
    """Pieces with a place, in the order of their files; the numbers of the others."""
    placed, loose = [], []
    ranks: dict[int, int] = {}
    blobs: list[Blob] = []
    for number, piece in enumerate(pieces):
        place = piece.place
        if place is None:
            loose.append(number)
            continue
        blob, offset = place
        rank = ranks.get(id(blob))
        if rank is None:
            rank = ranks[id(blob)] = len(blobs)
            blobs.append(blob)
        placed.append((rank, offset, number))
    placed.sort()
    return [(number, blobs[rank], offset) for rank, offset, number in placed], loose


def _room(plans: list[Plan], length: int, largest: int) -> None:
    """Make the last plan one that has room for another piece."""
    if not plans or plans[-1].size + ALIGNMENT + length > largest:
        plans.append(Plan())


def _last(parts: Sequence[tuple[int, int] | int]) -> tuple[int, int]:
    last = parts[-1]
    assert not isinstance(last, int)  # a gap always has a range behind it
    return last


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
