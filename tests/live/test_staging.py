"""The way to an accelerator, on a made one: its copies run late, as a device's do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tensorkeep as tk
from tensorkeep import errors
from tensorkeep.formats.contents import Storage
from tensorkeep.live import staging
from tensorkeep.live.devices import Destinations
from tensorkeep.live.placing import Piece
from tensorkeep.live.staging import Ring
from tensorkeep.stores.memory import MemoryBlob


class Late:
    """Copies are done when somebody waits for them, and not before: a buffer that is used again
    too early is seen in the result."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.begun: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.done = 0
        self.buffers = 0
        self.most_waiting = 0
        self.finished = False

    def pinned(self, nbytes: int) -> torch.Tensor:
        self.buffers += 1
        return torch.full((nbytes,), 0xEE, dtype=torch.uint8)

    def empty(self, nbytes: int) -> torch.Tensor:
        return torch.full((nbytes,), 0xDD, dtype=torch.uint8)

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        assert target.numel() == source.numel()
        self.begun.append((target, source))
        self.most_waiting = max(self.most_waiting, len(self.begun) - self.done)

    def mark(self) -> object:
        return len(self.begun)

    def wait(self, mark: object) -> None:
        assert isinstance(mark, int)
        for target, source in self.begun[self.done : mark]:
            target.copy_(source)
        self.done = max(self.done, mark)

    def finish(self) -> None:
        self.finished = True


def pieces(data: bytes, lengths: list[int]) -> list[Piece]:
    blob, made, at = MemoryBlob(data), [], 0
    for length in lengths:
        made.append(Piece(Storage(str(at), length, blob, offset=at), 0, length))
        at += length
    return made


def gathered(data: bytes) -> Piece:
    def gather(buffer: memoryview) -> None:
        buffer[:] = data

    return Piece(Storage("g", 0, MemoryBlob(b""), offset=0), 0, len(data), gather=gather)


@pytest.mark.parametrize("lengths", [[1000], [10, 20, 300, 1, 7], [64] * 50, [250, 1, 999, 3]])
def test_every_byte_arrives_through_a_small_ring(lengths: list[int]) -> None:
    data = bytes(n * 7 % 251 for n in range(sum(lengths)))
    device = Late()
    given = [*pieces(data, lengths), gathered(data[:300])]
    made = Ring(device, slots=3, size=128).read(given)
    wanted, at = [], 0
    for length in lengths:
        wanted.append(data[at : at + length])
        at += length
    assert [bytes(storage) for storage in made] == [*wanted, data[:300]]
    assert [storage.nbytes() for storage in made] == [*lengths, 300]
    assert device.finished
    assert device.buffers <= 3


def test_copies_go_on_while_the_next_buffer_is_read() -> None:
    device = Late()
    Ring(device, slots=3, size=128).read(pieces(bytes(1280), [1280]))
    assert device.most_waiting == 3


class Broken(MemoryBlob):
    def read_into(self, offset: int, buffer: memoryview) -> None:
        if offset >= 256:
            raise errors.ChangedWhileRead("x", got="less")
        super().read_into(offset, buffer)


def test_buffers_are_kept_until_their_copies_are_done_when_reading_fails() -> None:
    device = Late()
    storage = Storage("0", 1280, Broken(bytes(1280)), offset=0)
    with pytest.raises(errors.ChangedWhileRead):
        Ring(device, slots=3, size=128).read([Piece(storage, 0, 1280)])
    assert device.done == len(device.begun) == 2


class Elsewhere(Destinations):
    """Everything goes to the made accelerator, which calls itself the CPU."""

    @property
    def is_host(self) -> bool:
        return False


@pytest.mark.parametrize("nested", [False, True])
def test_load_takes_that_way(nested: bool, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = tk.load(digits, dtype="float16", nested=nested, section="model")
    devices: list[Late] = []

    def make(device: torch.device) -> Late:
        devices.append(Late())
        return devices[-1]

    monkeypatch.setitem(staging.KINDS, "cpu", make)
    monkeypatch.setattr("tensorkeep.live.devices.Destinations", Elsewhere)
    found = tk.load(digits, dtype="float16", nested=nested, section="model")
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert len(devices) == 1
    assert devices[0].done >= len(wanted) - 1
