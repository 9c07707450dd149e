"""Ties, overlaps and dead bytes, against a count of every single byte."""

from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tensorkeep.checkpoints.gathering import Strided
from tensorkeep.checkpoints.ties import dead_bytes, overlapping, tie


def row(name: str, tensor: torch.Tensor):
    shape, stride = tuple(tensor.shape), tuple(tensor.stride())
    dtype = str(tensor.dtype).removeprefix("torch.")
    storage = tensor.untyped_storage().data_ptr()
    return name, storage, dtype, shape, stride, tensor.storage_offset()


def test_the_very_same_tensor_is_tied_to_its_first_name():
    weight, other = torch.zeros(4, 3), torch.zeros(4, 3)
    named = {"embed": weight, "other": other, "head": weight, "third": weight.detach()}
    rows = [row(name, tensor) for name, tensor in named.items()]
    assert tie(rows) == {"head": "embed", "third": "embed"}
    assert tie(reversed(rows)) == {"embed": "third", "head": "third"}
    assert overlapping(rows) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.t(),
        lambda t: t[1:],
        lambda t: t.view(torch.int32),
        lambda t: t.view(6, 4),
        lambda t: t[:, :2],
        lambda t: t.unsqueeze(0),
        lambda t: t.as_strided((4, 6), (1, 1)),
    ],
)
def test_another_look_at_the_same_bytes_is_no_tie_but_an_overlap(change):
    base = torch.zeros(4, 6)
    rows = [row("base", base), row("view", change(base)), row("apart", torch.zeros(4, 6))]
    assert tie(rows) == {}
    assert [sorted(group) for group in overlapping(rows)] == [["base", "view"]]


def test_strides_of_dimensions_of_size_one_do_not_matter():
    base = torch.zeros(5)
    rows = [row("a", base.as_strided((5, 1), (1, 1))), row("b", base.as_strided((5, 1), (1, 7)))]
    assert tie(rows) == {"b": "a"}
    assert overlapping(rows) == []


def test_empty_tensors_are_nobodys_twins():
    empty = torch.zeros(0, 3)
    rows = [row("a", empty), row("b", empty)]
    assert tie(rows) == {}
    assert overlapping(rows) == []


def test_parts_of_one_storage_that_only_touch_do_not_overlap():
    flat = torch.zeros(12)
    rows = [row(str(at), part) for at, part in enumerate(flat.split(4))]
    assert overlapping(rows) == []


def test_a_chain_of_overlaps_is_one_group_in_the_order_of_the_bytes():
    flat, other = torch.zeros(20), torch.zeros(2)
    parts = {"c": flat[8:12], "x": other, "a": flat[0:5], "tied": flat[0:5], "b": flat[4:9]}
    parts |= {"apart": flat[15:], "y": other[:1]}
    rows = [row(name, tensor) for name, tensor in parts.items()]
    assert overlapping(rows) == [["a", "tied", "b", "c"], ["y", "x"]]


views = st.tuples(
    st.sampled_from("pq"),
    st.sampled_from(["uint8", "float16", "float32"]),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=2),
    st.integers(0, 30),
)


@given(st.lists(views, max_size=8))
def test_groups_equal_those_of_a_search_through_all_pairs(found):
    rows = [
        (str(at), key, dtype, tuple(n for n, _ in dims), tuple(s for _, s in dims), offset)
        for at, (key, dtype, dims, offset) in enumerate(found)
    ]
    sizes = {"uint8": 1, "float16": 2, "float32": 4}
    spans = {r[0]: Strided(sizes[r[2]], *r[3:]).span() for r in rows}
    groups = [{r[0]} for r in rows if spans[r[0]][1]]
    for a in rows:
        for b in rows:
            (begin, end), (start, stop) = spans[a[0]], spans[b[0]]
            if a[1] == b[1] and max(begin, start) < min(end, stop):
                joined = [group for group in groups if group & {a[0], b[0]}]
                groups = [group for group in groups if group not in joined] + [set().union(*joined)]
    tied = tie(rows)
    expected = {frozenset(g) for g in groups if len({tied.get(n, n) for n in g}) > 1}
    assert {frozenset(group) for group in overlapping(rows)} == expected


@given(
    st.dictionaries(st.sampled_from("pqr"), st.integers(0, 40)),
    st.lists(st.tuples(st.sampled_from("pqrs"), st.integers(0, 50), st.integers(0, 50))),
)
def test_dead_bytes_are_those_that_no_span_counts(sizes, spans):
    alive = {(key, at) for key, begin, end in spans for at in range(begin, end)}
    expected = sum((key, at) not in alive for key, size in sizes.items() for at in range(size))
    assert dead_bytes(sizes, spans) == expected


def test_many_tensors_in_one_storage_take_no_quadratic_time():
    count = 50_000
    rows = [(str(at), "s", "float32", (4,), (1,), at) for at in range(count)]
    started = time.process_time()
    assert len(overlapping(rows)[0]) == count
    assert tie(rows) == {}
    spans = [("s", 4 * at, 4 * at + 16) for at in reversed(range(count))]
    assert dead_bytes({"s": 4 * count + 20}, spans) == 8
    assert time.process_time() - started < 5
