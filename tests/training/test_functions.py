"""A lambda that computes something else has another digest; one written the same has not."""

from __future__ import annotations

import functools

import pytest

from tensorkeep.training.functions import digest

SCALE = 3


class Warmup:
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, step: int) -> float:
        return min(1, step / self.steps)

    def method(self, step: int) -> float:
        return self(step)


class Warmer(Warmup):
    """Its call is inherited."""


def closed(steps: int):
    return lambda step: min(1.0, step / steps)


def outer(inner):
    return lambda step: inner(step) * 2


def scaled(step: int) -> float:
    return SCALE * step


def same(step: int) -> float:
    return 1.0 if step < 2 else same(step - 1)


MAKERS = [
    lambda n: closed(n),
    lambda n: functools.partial(pow, n),
    lambda n: outer(closed(n)),
    lambda n: functools.partial(closed, steps=n),
    lambda n: outer({"nested": [n, {n}]}),
    lambda n: [lambda step: step * 2, lambda step: step * 3][n % 2],
    lambda n: [
        lambda step: [s + 1 for s in range(step)],
        lambda step: [s * 2 for s in range(step)],
    ][n % 2],
]


@pytest.mark.parametrize("make", MAKERS)
def test_a_digest_is_of_what_is_computed_with(make) -> None:
    assert digest(make(4)) == digest(make(4))
    assert digest(make(4)) != digest(make(5))


def test_a_global_value_that_is_named_counts(monkeypatch) -> None:
    before = digest(scaled)
    monkeypatch.setitem(globals(), "SCALE", 4)
    assert digest(scaled) != before
    monkeypatch.undo()
    assert digest(scaled) == before


def test_functions_that_name_themselves_end() -> None:
    assert digest(same) == digest(same)
    assert digest(print) != digest(len)
    assert digest(Warmup) != digest(Warmer)
    assert digest(Warmup(1)) == digest(Warmer(2)) != digest(Warmup(1).method)


def test_values_of_other_kinds_do_not_become_equal() -> None:
    assert len({digest(outer(value)) for value in (1, 1.0, True, "1", b"1", None, (1,), [1])}) == 8
