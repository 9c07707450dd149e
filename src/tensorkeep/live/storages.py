"""Byte ranges of a checkpoint as storages of torch's, each exactly as long as its range."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence

import torch

from tensorkeep.live import mapping, placing
from tensorkeep.live.arenas import Arena
from tensorkeep.live.placing import Piece, Plan
from tensorkeep.progress import SILENT, Reporter
from tensorkeep.stores import parallel

# The number of a piece, and where its bytes are: in which memory, and from which byte on.
Numbered = tuple[int, mmap.mmap, int]


def batches(
    pieces: Sequence[Piece],
    *,
    mapped: bool = False,
    at_once: bool = True,
    reporter: Reporter = SILENT,
) -> Iterator[list[Numbered]]:
    """Where the bytes of each piece are: in private memory, or mapped where that can be.

    All in one batch, or one for each arena, for a caller that lets go of the memory of one
    before it asks for the next. Raises what reading raises, and `OutOfMemory`.
    """
    known = mapping.places(pieces) if mapped else {}
    if known:
        yield [(number, memory, offset) for number, (memory, offset) in known.items()]
    rest = [number for number in range(len(pieces)) if number not in known]
    given = [pieces[number] for number in rest] if known else pieces
    plans = placing.plan(given)
    for group in [plans] if at_once else [[each] for each in plans]:
        found = _filled(given, group, reporter)
        yield [(rest[number], memory, at) for number, memory, at in found]


def _filled(pieces: Sequence[Piece], plans: Sequence[Plan], reporter: Reporter) -> list[Numbered]:
    arenas = [Arena(plan.size) for plan in plans]
    spans = [span for p, arena in zip(plans, arenas, strict=True) for span in p.spans(arena)]
    parallel.fill(spans, reporter)
    found = []
    for each, arena in zip(plans, arenas, strict=True):
        for number, at in each.loose:
            pieces[number].fill(arena.view(at, at + pieces[number].length))
            reporter.advance(pieces[number].length)
        memory, base = arena.memory, arena.base
        for number, at in each.pieces:
            found.append((number, memory, base + at))
    return found


def view(memory: object, offset: int, length: int) -> torch.UntypedStorage:
    """A storage that is bytes of `memory` and keeps it alive."""
    made = torch.frombuffer(memory, dtype=torch.uint8, count=length, offset=offset)
    return made.untyped_storage()


def read(
    pieces: Sequence[Piece], *, mapped: bool = False, reporter: Reporter = SILENT
) -> list[torch.UntypedStorage]:
    """A storage for each piece. Their memory stays valid whatever becomes of the checkpoint."""
    found: dict[int, torch.UntypedStorage] = {}
    for batch in batches(pieces, mapped=mapped, reporter=reporter):
        for number, memory, offset in batch:
            found[number] = view(memory, offset, pieces[number].length)
    return [found[number] for number in range(len(pieces))]


# torch leaves these without types.
def empty() -> torch.UntypedStorage:
    """A storage without bytes."""
    return torch.UntypedStorage(0)  # type: ignore[no-untyped-call]


def typed(storage: torch.UntypedStorage, dtype: torch.dtype) -> torch.TypedStorage:
    """The same storage, of elements of `dtype`."""
    return torch.TypedStorage(  # type: ignore[no-untyped-call]
        wrap_storage=storage, dtype=dtype, _internal=True
    )


def turn(storage: torch.UntypedStorage, dtype: torch.dtype) -> None:
    """Reverse the bytes of each number."""
    storage.byteswap(dtype)  # type: ignore[no-untyped-call]
