"""Strided views gathered without torch, against torch's own contiguous copies."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tensorkeep.checkpoints import _boxes
from tensorkeep.checkpoints.gathering import Strided, gather
from tensorkeep.errors import BadArgument, Damaged
from tensorkeep.formats import moving

DTYPES = [torch.uint8, torch.int16, torch.float32, torch.int64, torch.complex128]
START = 13


class Store:
    """A storage that begins at byte 13 of something larger, and what was asked of it."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(b"?" * START + data)
        self.reads: list[tuple[int, int]] = []

    def read_into(self, position: int, buffer: memoryview) -> None:
        assert buffer.format == "B"
        assert buffer.contiguous
        assert not buffer.readonly
        assert START <= position <= position + len(buffer) <= len(self.data)
        assert len(buffer)
        self.reads.append((position - START, len(buffer)))
        buffer[:] = self.data[position : position + len(buffer)]

    @property
    def amount(self) -> int:
        return sum(length for _, length in self.reads)


def strided(tensor: torch.Tensor) -> Strided:
    shape, stride = tuple(tensor.shape), tuple(tensor.stride())
    return Strided(tensor.element_size(), shape, stride, tensor.storage_offset())


def stored(tensor: torch.Tensor) -> Store:
    whole = torch.tensor([], dtype=torch.uint8).set_(tensor.untyped_storage())
    return Store(whole.numpy().tobytes())


def contiguous_bytes(tensor: torch.Tensor) -> bytes:
    flat = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.reshape(-1))
    return flat.view(torch.uint8).numpy().tobytes()


def check(tensor: torch.Tensor, block: int) -> Store:
    view, store = strided(tensor), stored(tensor)
    assert view.is_contiguous() == tensor.is_contiguous()
    assert view.nbytes == tensor.nbytes
    got = []
    for piece in gather(store.read_into, view, START, block):
        assert 0 < len(piece) <= max(block, view.itemsize)
        assert len(piece) % view.itemsize == 0
        got.append(bytes(piece))
        piece[:] = b"\xee" * len(piece)
    assert b"".join(got) == contiguous_bytes(tensor)
    first, last = view.span()
    assert all(first <= at and at + length <= last for at, length in store.reads)
    return store


def values(dtype: torch.dtype, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    size = count * dtype.itemsize
    return torch.randint(0, 256, (size,), dtype=torch.uint8, generator=generator).view(dtype)


@st.composite
def as_strided(draw: st.DrawFn) -> torch.Tensor:
    """Any strides at all: 0, overlapping, gaps."""
    shape = draw(st.lists(st.integers(0, 7), max_size=5))
    stride = [draw(st.integers(0, 40)) for _ in shape]
    offset = draw(st.integers(0, 9))
    reach = sum(max(size - 1, 0) * step for size, step in zip(shape, stride, strict=True))
    base = values(draw(st.sampled_from(DTYPES)), offset + reach + draw(st.integers(1, 4)))
    return base.as_strided(shape, stride, offset)


@st.composite
def operations(draw: st.DrawFn) -> torch.Tensor:
    """What programs do: permute, slice with steps, expand, unfold, cut."""
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    tensor = values(draw(st.sampled_from(DTYPES)), prod(shape)).view(shape)
    for _ in range(draw(st.integers(1, 3))):
        dim = draw(st.integers(0, tensor.dim() - 1))
        size = tensor.shape[dim]
        kind = draw(st.sampled_from(["permute", "slice", "expand", "unfold"]))
        if kind == "permute":
            tensor = tensor.permute(*draw(st.permutations(range(tensor.dim()))))
        elif kind == "slice":
            at = draw(st.integers(0, size - 1))
            step = draw(st.integers(1, 3))
            tensor = tensor[(slice(None),) * dim + (slice(at, None, step),)]
        elif kind == "expand":
            tensor = tensor.unsqueeze(0).expand(3, *tensor.shape)
        else:
            tensor = tensor.unfold(dim, draw(st.integers(1, size)), 1)
        if tensor.dim() > 6:
            break
    return tensor


@given(as_strided(), st.integers(1, 300))
def test_any_strides_and_any_block(tensor, block):
    check(tensor, block)


@given(operations(), st.sampled_from([1, 16, 33, 64, 200, 1 << 20]))
def test_what_programs_do_to_tensors(tensor, block):
    check(tensor, block)


def large() -> dict[str, torch.Tensor]:
    floats, bytes_ = values(torch.float32, 1 << 18), values(torch.uint8, 1 << 18)
    halves = values(torch.int16, 1 << 18)
    return {
        "transposed": floats.view(512, 512).t(),
        "tall, transposed": halves.view(1 << 14, 16).t(),
        "wide, transposed": bytes_.view(16, 1 << 14).t(),
        "bytes, transposed": bytes_.view(512, 512).t(),
        "complex, transposed": values(torch.complex128, 1 << 14).view(128, 128).t(),
        "channels last": floats.view(64, 8, 8, 64).permute(0, 3, 1, 2),
        "channels last, 16 bits": halves.view(64, 8, 8, 64).permute(0, 3, 1, 2),
        "heads": halves.view(16, 64, 4, 64).permute(0, 2, 1, 3),
        "reversed": floats.view(32, 64, 16, 8).permute(3, 2, 1, 0),
        "columns": floats.view(512, 512)[:, 100:300],
        "one of three": floats[: 85 * 3 * 1024].view(85, 3, 1024)[:, 1],
        "every third row": floats.view(1024, 256)[::3],
        "every other column": floats.view(1024, 256)[:, ::2],
        "every 50th column": bytes_.view(256, 1024)[:, ::50],
        "expanded rows": floats[:1024].expand(100, 1024),
        "expanded columns": floats[:1024, None].expand(1024, 100),
        "expanded bytes": bytes_[:1000, None].expand(1000, 300),
        "windows": floats.unfold(0, 64, 32),
        "dense windows": halves[:20_000].unfold(0, 16, 1),
        "many twos": halves[: 1 << 14].view([2] * 14).permute(*reversed(range(14))),
    }


@pytest.mark.parametrize("name", large())
@pytest.mark.parametrize("block", [1 << 12, 1 << 15, 1 << 20])
def test_large_views_in_bounded_memory_and_reads(name, block):
    tensor = large()[name]
    store = check(tensor, block)
    first, last = strided(tensor).span()
    close = any(0 < s * tensor.element_size() <= 4096 for s in strided(tensor).stride if s > 1)
    assert store.amount <= 8 * max(tensor.nbytes, last - first) or close
    assert len(store.reads) <= max(store.amount // 64, 2 * tensor.nbytes // block + 4)
    view, sink = strided(tensor), 0
    data = store.data

    def read_into(position: int, buffer: memoryview) -> None:
        buffer[:] = data[position : position + len(buffer)]

    tracemalloc.start()
    for piece in gather(read_into, view, START, block):
        sink += len(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sink == view.nbytes
    # 9 blocks and the lists of offsets, which have at most 4,096 pairs.
    assert peak <= 10 * block + (1 << 20)


def test_compact_views_take_one_read():
    for tensor in (torch.zeros(9, 7).t(), torch.zeros(4, 5, 6).permute(2, 0, 1)):
        store = check(tensor, 1 << 20)
        assert store.reads == [(0, tensor.nbytes)]


def test_rows_that_lie_apart_are_read_one_by_one_and_nothing_between_them():
    tensor = values(torch.float32, 1 << 20).view(64, 1 << 14)[:, :1024]
    store = check(tensor, 1 << 20)
    assert store.amount == tensor.nbytes
    assert len(store.reads) == 64


def test_a_contiguous_view_is_read_block_by_block():
    tensor = values(torch.int64, 1000)[10:]
    store = check(tensor, 4001)
    assert store.reads == [(80, 4000), (4080, 3920)]


@pytest.mark.parametrize(("shape", "stride"), [((), ()), ((1, 1), (99, 0)), ((3, 1), (1, 99))])
def test_dimensions_of_size_one_say_nothing(shape, stride):
    tensor = torch.arange(9.0).as_strided(shape, stride)
    store = check(tensor, 1 << 20)
    assert tensor.is_contiguous()
    assert store.reads == [(0, tensor.nbytes)]


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4), (2, 0, 5)])
def test_an_empty_view_reads_nothing(shape):
    view = Strided(4, shape, tuple(range(len(shape))), 1000)
    store = Store(b"")
    assert (view.numel, view.nbytes, view.span()) == (0, 0, (0, 0))
    assert view.is_contiguous()
    assert list(gather(store.read_into, view, START)) == []
    assert store.reads == []


@given(as_strided())
def test_the_span_is_the_first_byte_and_one_more_than_the_last(tensor):
    view = strided(tensor)
    places = {tensor.storage_offset()} if tensor.numel() else set()
    for size, step in zip(tensor.shape, tensor.stride(), strict=True):
        places = {place + index * step for place in places for index in range(size)}
    expected = (min(places), max(places) + 1) if places else (0, 0)
    assert view.span() == tuple(place * view.itemsize for place in expected)


@pytest.mark.parametrize(
    ("shape", "stride", "offset"),
    [((3,), (-1,), 2), ((-3,), (1,), 0), ((3,), (1,), -1), ((3, 3), (3,), 0), ((), (1,), 0)],
)
def test_what_no_torch_tensor_has_is_damage(shape, stride, offset):
    with pytest.raises(Damaged, match="none negative"):
        Strided(4, shape, stride, offset)


@pytest.mark.parametrize("itemsize", [0, 3, 32])
def test_other_itemsizes_are_refused(itemsize):
    with pytest.raises(BadArgument, match="itemsize"):
        Strided(itemsize, (3,), (1,), 0)


@pytest.mark.parametrize(
    ("shape", "stride"),
    [
        ((1 << 60, 2), (0, 1 << 40)),
        ((1 << 40, 1 << 20), (1, 1 << 41)),
        ((2,) * 62, tuple(1 << at for at in range(62))),
        ((1 << 62,), (3,)),
        ((3,) * 39, (0,) * 39),
        (tuple(range(2, 20)), tuple(7**at for at in range(18))),
    ],
)
def test_enormous_views_start_at_once_and_in_little_memory(shape, stride):
    def read_into(_: int, buffer: memoryview) -> None:
        buffer[:] = bytes(len(buffer))

    tracemalloc.start()
    first = next(gather(read_into, Strided(2, shape, stride), 0, 1 << 12))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(first) >= 1 << 10
    assert peak < 2 << 20


def test_an_error_of_the_reader_comes_through():
    def read_into(_: int, __: memoryview) -> None:
        raise Damaged("a storage", got="its end")

    with pytest.raises(Damaged, match="its end"):
        next(gather(read_into, Strided(4, (3, 3), (1, 3)), 0))


@given(as_strided())
def test_a_box_counts_what_it_reads(tensor):
    view = strided(tensor)
    if view.is_contiguous():
        return
    simple = _boxes.simplify(view.itemsize, view.shape, view.stride)
    for inner in range(simple.moving + 1):
        way = _boxes.box(simple, simple.shape, inner, 40)
        if way is None or way.direct:
            continue
        reads = units = 0
        for _, _, part in _boxes.cut(way.extents, way.there, way.out, way.axis, way.rows):
            count = prod(part[: way.spanned])
            reads, units = reads + count, units + count * way.run(part)
            assert way.length(part) <= 40 or count == 1
        assert (reads, units) == (way.reads, way.units)


@pytest.mark.parametrize("counts", [(), (3,), (5000,), (4, 1, 6), (3, 70, 90), (2, 5000, 2)])
def test_walk_visits_every_combination_once_and_in_order(counts):
    steps = [1000**at for at in range(len(counts))]
    expected = [(0, 0)]
    for count, step in zip(counts, steps, strict=True):
        expected = [(x + n * step, y + n * count) for x, y in expected for n in range(count)]
    assert list(moving.walk(counts, steps, counts)) == expected


def test_importing_it_needs_neither_torch_nor_numpy():
    code = (
        "import sys, tensorkeep.checkpoints.gathering; "
        "sys.exit('numpy' in sys.modules or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
