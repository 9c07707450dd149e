"""Sizes of what is shared, against the walk that they spare."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from tensorkeep.pickles.sharing import MOST, Sizes, inside


def walked(value: object, above: tuple[int, ...] = ()) -> int:
    """Every way down from `value`, one by one; a way back to where it came from is one."""
    parts = None if id(value) in above else inside(value)
    return 1 + sum(walked(part, (*above, id(value))) for part in parts or ())


@st.composite
def shared(draw, circles: bool):
    """Lists that hold lists made before them, with `circles` later ones too."""
    count = draw(st.integers(1, 6))
    made: list[list[object]] = [[] for _ in range(count)]
    for at, each in enumerate(made):
        known = count if circles else at
        chosen = draw(st.lists(st.integers(0, known - 1), max_size=3)) if known else []
        each += [made[number] for number in chosen] + draw(st.lists(st.none(), max_size=2))
    return made[-1]


@given(shared(circles=False))
def test_without_circles_sizes_are_what_the_walk_counts(value):
    assert Sizes(inside).of(value) == walked(value)


@given(shared(circles=True))
def test_with_circles_they_are_no_more_than_that(value):
    assert Sizes(inside).of(value) <= walked(value)


@given(shared(circles=True), st.integers(0, 30))
def test_all_ways_are_what_the_walk_counts(value, most):
    assert Sizes(inside).ways(value, 1 << 30) == walked(value)
    assert Sizes(inside).ways(value, most) == min(walked(value), most + 1)


@given(shared(circles=False), shared(circles=False))
def test_one_measure_for_many(one, other):
    sizes = Sizes(inside)
    assert [sizes.of(one), sizes.of(other), sizes.of([one, one])] == [
        walked(one), walked(other), 1 + 2 * walked(one)
    ]  # fmt: skip


def test_plain_containers():
    assert Sizes(inside).of({"a": (1, 2), ("b", 3): {4}}) == 10
    assert Sizes(inside).of("text") == Sizes(inside).of(()) == 1


def test_doubled_a_hundred_thousand_times():
    value: object = None
    for _ in range(100_000):
        value = (value, value)
    started = time.process_time()
    assert Sizes(inside).of(value) == MOST
    assert time.process_time() - started < 5


def test_a_graph_whose_nodes_all_know_each_other_is_no_expansion():
    nodes: list[list[object]] = [[] for _ in range(40)]
    for node in nodes:
        node += nodes
    assert Sizes(inside).of(nodes) < 10_000


def test_parts_that_are_made_anew_end():
    assert 100 <= Sizes(lambda value: [[value], [value]], steps=100).of(0) <= 300
