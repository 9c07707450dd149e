"""Bytes in memory: never copied, never changed."""

from __future__ import annotations

import numpy as np
import pytest

from tensorkeep.errors import BadArgument
from tensorkeep.stores.memory import MemoryBlob


def test_it_copies_nothing_and_holds_the_length():
    data = bytearray(b"abcdef")
    blob = MemoryBlob(data, "mine")
    assert blob.name == "mine"
    data[0] = ord("X")
    assert blob.read(0, 2) == b"Xb"
    with pytest.raises(BufferError):
        data.append(1)
    blob.close()
    data.append(1)


def test_views_of_any_shape_are_bytes():
    blob = MemoryBlob(memoryview(np.arange(6, dtype=np.int16).reshape(2, 3)))
    assert blob.size == 12
    assert blob.read(2, 2) == b"\x01\x00"


@pytest.mark.parametrize("empty", [b"", bytearray(), memoryview(np.zeros((0, 3)))])
def test_nothing_is_bytes_too(empty):
    blob = MemoryBlob(empty)
    assert (blob.size, blob.read(0, 0)) == (0, b"")


@pytest.mark.parametrize("strided", [np.arange(9)[::2], np.zeros((3, 4)).T], ids=["step", "turned"])
def test_what_does_not_lie_in_one_piece_is_refused(strided):
    with pytest.raises(BadArgument, match=r"bytes\(view\)"):
        MemoryBlob(memoryview(strided))
