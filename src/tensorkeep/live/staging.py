"""From files into the memory of an accelerator: through a ring of pinned buffers, overlapped.

While one buffer is being read into by several threads, those before it are on their way to the
device. A tensor is never copied there by itself out of a lazily mapped file: page faults inside
such a copy make it several times slower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from tensorkeep.live import placing
from tensorkeep.live.placing import Piece, Plan
from tensorkeep.progress import SILENT, Reporter
from tensorkeep.stores import parallel

SLOT = 32 << 20
SLOTS = 4


class Accelerator(Protocol):
    """What is asked of a device. Copies run in the order in which they were begun."""

    def pinned(self, nbytes: int) -> torch.Tensor:
        """Bytes of the host that the device can read by itself."""

    def empty(self, nbytes: int) -> torch.Tensor:
        """Bytes of the device."""

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Begin to copy pinned bytes to the device, and return at once."""

    def mark(self) -> object:
        """Something that stands for all copies begun so far."""

    def wait(self, mark: object) -> None:
        """Return when all copies before `mark` have been done."""

    def finish(self) -> None:
        """Let whoever uses the device next wait for the copies."""


class Cuda:
    """A CUDA device: copies on a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # Fresh memory may still be in use by what the current stream was asked to do before.
        self.stream.wait_stream(torch.cuda.current_stream(device))

    def pinned(self, nbytes: int) -> torch.Tensor:
        """Bytes of the host that the device can read by itself."""
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)

    def empty(self, nbytes: int) -> torch.Tensor:
        """Bytes of the device."""
        return torch.empty(nbytes, dtype=torch.uint8, device=self.device)

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Begin to copy, on the stream."""
        with torch.cuda.stream(self.stream):
            target.copy_(source, non_blocking=True)

    def mark(self) -> object:
        """An event on the stream."""
        return self.stream.record_event()

    def wait(self, mark: object) -> None:
        """Until the event."""
        assert isinstance(mark, torch.cuda.Event)
        mark.synchronize()

    def finish(self) -> None:
        """The current stream waits for the copies."""
        torch.cuda.current_stream(self.device).wait_stream(self.stream)


KINDS: dict[str, Callable[[torch.device], Accelerator]] = {"cuda": Cuda}


def read(
    pieces: Sequence[Piece],
    devices: Sequence[torch.device],
    reporter: Reporter = SILENT,
) -> dict[int, torch.UntypedStorage]:
    """The storages of those pieces whose device is an accelerator known here, by number.

    Raises what reading raises, and torch's own errors for a device that is not there.
    """
    wanted: dict[torch.device, list[int]] = {}
    for number, device in enumerate(devices):
        if device.type in KINDS:
            wanted.setdefault(device, []).append(number)
    found: dict[int, torch.UntypedStorage] = {}
    for device, numbers in wanted.items():
        ring = Ring(KINDS[device.type](device), reporter=reporter)
        made = ring.read([pieces[number] for number in numbers])
        found.update(zip(numbers, made, strict=True))
    return found


class _Slot:
    """A pinned buffer, and the copies out of it that may still run."""

    def __init__(self, memory: torch.Tensor) -> None:
        self.memory = memory
        self.mark: object = None
        self._bytes = memory.numpy().data

    def view(self, start: int, stop: int) -> memoryview:
        """Bytes `start` to `stop`, to be filled."""
        return self._bytes[start:stop]


class Ring:
    """`slots` pinned buffers of `size` bytes, filled and emptied in turn."""

    def __init__(
        self,
        accelerator: Accelerator,
        *,
        slots: int = SLOTS,
        size: int = SLOT,
        reporter: Reporter = SILENT,
    ) -> None:
        self.accelerator = accelerator
        self.size = size
        self.reporter = reporter
        self._most = slots
        self._slots: list[_Slot] = []

    def read(self, pieces: Sequence[Piece]) -> list[torch.UntypedStorage]:
        """A storage of the device for each piece."""
        targets = [self.accelerator.empty(piece.length) for piece in pieces]
        parts, ways = _cut(pieces, self.size)
        plans = placing.plan(parts, self.size + placing.ALIGNMENT)
        try:
            for turn, plan in enumerate(plans):
                slot = self._slot(turn, len(plans))
                self._fill(plan, parts, slot)
                for number, at in plan.pieces:
                    piece, start = ways[number]
                    length = parts[number].length
                    target = targets[piece][start : start + length]
                    self.accelerator.copy(target, slot.memory[at : at + length])
                slot.mark = self.accelerator.mark()
        finally:
            # Pinned memory must not be let go while the device reads it.
            for slot in self._slots:
                self._wait(slot)
        self.accelerator.finish()
        return [target.untyped_storage() for target in targets]

    def _slot(self, turn: int, turns: int) -> _Slot:
        if len(self._slots) < min(self._most, turns):
            room = self.size + placing.ALIGNMENT
            self._slots.append(_Slot(self.accelerator.pinned(room)))
            return self._slots[-1]
        slot = self._slots[turn % len(self._slots)]
        self._wait(slot)
        return slot

    def _wait(self, slot: _Slot) -> None:
        if slot.mark is not None:
            self.accelerator.wait(slot.mark)
            slot.mark = None

    def _fill(self, plan: Plan, parts: Sequence[Piece], slot: _Slot) -> None:
        parallel.fill(plan.spans(slot), self.reporter)
        for number, at in plan.loose:
            parts[number].fill(slot.view(at, at + parts[number].length))
            self.reporter.advance(parts[number].length)


def _cut(pieces: Sequence[Piece], size: int) -> tuple[list[Piece], list[tuple[int, int]]]:
    """Parts of at most `size` bytes, and for each the number of its piece and where it begins."""
    parts, ways = [], []
    for number, piece in enumerate(pieces):
        for start in range(0, piece.length, size):
            parts.append(piece.part(start, min(size, piece.length - start)))
            ways.append((number, start))
    return parts, ways
