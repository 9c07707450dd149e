"""Bytes out of blocks: any tiling, any range, any layout inside a block; and what tiles nothing."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tensorkeep.dtypes import find
from tensorkeep.errors import Damaged
from tensorkeep.formats._chunks import Chunk, Chunked
from tensorkeep.formats._tiling import Steps, fault
from tensorkeep.formats.contents import Storage, TensorRecord
from tensorkeep.stores.memory import MemoryBlob

DTYPES = [torch.uint8, torch.int16, torch.float32, torch.int64, torch.complex128]


def record_of(tensor):
    """The tensor as a file would hold it: its whole storage, and a view of that."""
    storage = tensor.untyped_storage()
    data = bytes(storage.tolist())
    blob = MemoryBlob(data)
    return TensorRecord(
        find(str(tensor.dtype)[6:]),
        tuple(tensor.shape),
        tensor.stride(),
        tensor.storage_offset(),
        Storage("0", len(data), blob, offset=0),
    )


def chunk_of(tensor, offsets):
    return Chunk(offsets, tuple(tensor.shape), lambda: record_of(tensor))


@st.composite
def tilings(draw):
    """A tensor, and blocks of it by a grid of uneven cuts, each laid out in one of several ways."""
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=0, max_size=4)))
    dtype = draw(st.sampled_from(DTYPES))
    count = torch.Size(shape).numel()
    whole = torch.arange(count * dtype.itemsize, dtype=torch.uint8).view(dtype).reshape(shape)
    cuts = [sorted({0, n, *draw(st.lists(st.integers(0, n), max_size=2))}) for n in shape]
    blocks = []
    for corner in product(*(zip(cut, cut[1:], strict=False) for cut in cuts)):
        block = whole[tuple(slice(a, b) for a, b in corner)]
        layout = draw(st.integers(0, 2))
        if layout == 0 or not shape:
            block = block.clone(memory_format=torch.contiguous_format)
        elif layout == 1:  # the last dimension is the slowest
            block = block.movedim(-1, 0).contiguous().movedim(0, -1)
        blocks.append((block, tuple(a for a, _ in corner)))
    return whole, draw(st.permutations(blocks))


def chunked(whole, blocks):
    chunks = [chunk_of(block, offsets) for block, offsets in blocks]
    dtype = find(str(whole.dtype)[6:])
    return Chunked("w", dtype, tuple(whole.shape), chunks, MemoryBlob(b""))


@given(tilings(), st.data())
def test_any_range_of_any_tiling(case, data):
    whole, blocks = case
    storage = chunked(whole, blocks)
    assert fault(tuple(whole.shape), storage.chunks, Steps()) == ("", "")
    expected = bytes(whole.contiguous().untyped_storage().tolist())
    assert storage.nbytes == len(expected)
    start = data.draw(st.integers(0, len(expected)))
    end = data.draw(st.integers(start, len(expected)))
    buffer = bytearray(end - start)
    storage.read_into(start, memoryview(buffer))
    assert buffer == expected[start:end]


def test_a_large_block_is_read_in_long_runs():
    whole = torch.arange(1 << 20, dtype=torch.int32).reshape(1024, 1024)
    halves = [(whole[:, :512].contiguous(), (0, 0)), (whole[:, 512:].contiguous(), (0, 512))]
    storage = chunked(whole, halves)
    counted = [chunk.open() for chunk in storage.chunks]
    reads = []
    for chunk, record in zip(storage.chunks, counted, strict=True):
        chunk.record = record
        read = record.storage.blob.read_into
        record.storage.blob.read_into = lambda at, buffer, read=read: (
            reads.append(len(buffer)),
            read(at, buffer),
        )
    buffer = bytearray(1 << 20)
    storage.read_into(0, memoryview(buffer))
    assert bytes(buffer) == whole.numpy().tobytes()[: 1 << 20]
    assert len(reads) == 2
    assert sum(reads) == 1 << 20


def test_a_chunk_that_is_another_tensor_is_damage():
    whole = torch.zeros(4, 4)
    for other in (torch.zeros(2, 4, dtype=torch.float64), torch.zeros(4, 2)):
        good = chunk_of(torch.zeros(2, 4), (0, 0))
        bad = Chunk((2, 0), (2, 4), lambda other=other: record_of(other))
        storage = Chunked("w", find("float32"), tuple(whole.shape), [good, bad], MemoryBlob(b""))
        with pytest.raises(Damaged):
            storage.read_into(0, memoryview(bytearray(64)))
        with pytest.raises(Damaged):
            storage.require()


def block(offsets, sizes):
    return SimpleNamespace(offsets=offsets, sizes=sizes)


PINWHEEL = [
    ((0, 0), (2, 1)),
    ((0, 1), (1, 2)),
    ((1, 2), (2, 1)),
    ((2, 0), (1, 2)),
    ((1, 1), (1, 1)),
]


@pytest.mark.parametrize(
    ("shape", "blocks", "kind"),
    [
        ((4,), [((0,), (4,))], ""),
        ((), [((), ())], ""),
        ((3, 3), PINWHEEL, ""),
        ((0, 3), [((0, 0), (0, 3)), ((0, 0), (0, 3))], ""),
        ((3, 3), PINWHEEL[:-1], "hole-between-chunks"),
        ((4,), [], "hole-between-chunks"),
        ((4,), [((0,), (3,)), ((2,), (2,))], "chunks-overlap"),
        ((3, 3), [*PINWHEEL, PINWHEEL[0]], "chunks-overlap"),
        ((), [((), ()), ((), ())], "chunks-overlap"),
        ((4,), [((2,), (3,))], "chunk-out-of-bounds"),
        ((4,), [((-1,), (5,))], "chunk-out-of-bounds"),
        ((4,), [((0, 0), (4, 1))], "chunk-out-of-bounds"),
    ],
)
def test_what_tiles_and_what_does_not(shape, blocks, kind):
    assert fault(shape, [block(*each) for each in blocks], Steps())[0] == kind


def test_thousands_of_blocks_are_compared_quickly():
    steps = Steps()
    grid = [block((i, j), (1, 1)) for i in range(100) for j in range(100)]
    assert fault((100, 100), grid, steps) == ("", "")
    assert steps.left > Steps().left
    # In a heap there is nothing to cut apart: that ends, and is never called right.
    heap = [block((i, 0), (2000, 1)) for i in range(2000)]
    assert fault((4000, 1), heap, Steps(1000))[0] == "chunks-overlap"
