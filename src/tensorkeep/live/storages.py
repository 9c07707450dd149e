"""Byte ranges of a checkpoint as storages of torch's, each exactly as long as its range."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from tensorkeep.live import mapping, placing
from tensorkeep.live.arenas import Arena
from tensorkeep.live.placing import Piece, Plan
from tensorkeep.progress import SILENT, Reporter
from tensorkeep.stores import parallel

Numbered = tuple[int, torch.UntypedStorage]


def private(
    pieces: Sequence[Piece], *, at_once: bool = True, reporter: Reporter = SILENT
) -> Iterator[list[Numbered]]:
    """Copies in memory of this process: (number of the piece, storage), in groups.

    One group with all of them, or one for each arena, for a caller that lets go of the storages of
    a group before the next. Raises what reading raises, and `MemoryError`.
    """
    plans = placing.plan(pieces)
    for group in [plans] if at_once else [[each] for each in plans]:
        yield _filled(pieces, group, reporter)


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
            found.append((number, view(memory, base + at, pieces[number].length)))
    return found


def view(memory: object, offset: int, length: int) -> torch.UntypedStorage:
    """A storage that is bytes of `memory` and keeps it alive."""
    made = torch.frombuffer(memory, dtype=torch.uint8, count=length, offset=offset)
    return made.untyped_storage()


def read(
    pieces: Sequence[Piece], *, mapped: bool = False, reporter: Reporter = SILENT
) -> list[torch.UntypedStorage]:
    """A storage for each piece: in private memory, or where it can be in a mapping of its file.

    All pieces have bytes. Memory stays valid whatever becomes of the checkpoint.
    """
    known: dict[int, torch.UntypedStorage] = {}
    if mapped:
        known.update((n, view(*place)) for n, place in mapping.places(pieces).items())
    rest = [number for number in range(len(pieces)) if number not in known]
    for group in private([pieces[number] for number in rest], reporter=reporter):
        known.update((rest[number], storage) for number, storage in group)
    return [known[number] for number in range(len(pieces))]


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
