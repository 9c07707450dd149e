"""Private memory: aligned, of this process alone, and gone with its last tensor."""

from __future__ import annotations

import gc
import mmap
import os
import weakref
from pathlib import Path

import pytest
import torch

import tensorkeep as tk
from tensorkeep.live import arenas
from tensorkeep.live.arenas import HUGE_PAGE, LARGEST, Arena
from tensorkeep.live.placing import ALIGNMENT, Piece, plan
from tensorkeep.live.storages import view


def resident() -> int:
    """Bytes of memory that this process holds and no file stands for."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def test_an_arena_is_zeros_on_a_huge_page() -> None:
    arena = Arena(3 * HUGE_PAGE)
    storage = view(arena.memory, arena.base, arena.size)
    assert storage.data_ptr() % HUGE_PAGE == 0
    assert not any(storage[:4096])


def test_a_child_changes_a_copy() -> None:
    arena = Arena(100)
    arena.view(0, 1)[0] = 7
    child = os.fork() if hasattr(os, "fork") else None
    if child == 0:
        arena.view(0, 1)[0] = 9
        os._exit(0)
    if child:
        os.waitpid(child, 0)
    assert arena.view(0, 1)[0] == 7


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_dropping_the_tensors_of_an_arena_gives_it_back(tmp_path: Path) -> None:
    torch.save({name: torch.ones(4 << 20) for name in "abcd"}, tmp_path / "x.pth")
    found = tk.load(tmp_path / "x.pth")
    kept = found.pop("a")
    full = resident()
    del found
    gc.collect()
    assert resident() > full - (16 << 20)  # one tensor keeps the arena
    del kept
    gc.collect()
    assert resident() < full - (48 << 20)


def test_a_system_without_huge_pages_has_arenas_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    arena = Arena(HUGE_PAGE + 1)
    arena.view(0, 3)[:] = b"abc"
    assert bytes(arena.view(0, 4)) == b"abc\0"


def test_no_room_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(tk.errors.OutOfMemory, match=r"expected \d+ bytes.*mmap=True") as caught:
        Arena(1 << 60)
    assert isinstance(caught.value, MemoryError)


def test_memory_lives_as_long_as_a_storage_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Watched(mmap.mmap):
        pass

    monkeypatch.setattr(arenas.mmap, "mmap", Watched)
    arena = Arena(1000)
    dies = weakref.finalize(arena.memory, lambda: None)
    storage = view(arena.memory, arena.base, 10)
    del arena
    gc.collect()
    assert dies.alive
    del storage
    gc.collect()
    assert not dies.alive


def test_plans_hold_at_most_what_an_arena_may_be() -> None:
    from tensorkeep.formats.contents import Storage
    from tensorkeep.stores.memory import MemoryBlob

    blob, given, at = MemoryBlob(b""), [], 0
    for length in [100 << 20, 200 << 20, 300 << 20, 7, 60 << 20, 1]:
        given.append(Piece(Storage(str(at), length, blob, offset=at), 0, length))
        at += length
    plans = plan(given)
    assert sorted(number for each in plans for number, _ in each.pieces) == list(range(6))
    for each in plans:
        assert each.size <= LARGEST or len(each.pieces) == 1
        assert all(position % ALIGNMENT == 0 for _, position in each.pieces)
