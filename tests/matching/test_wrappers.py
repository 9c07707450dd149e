"""Wrappers that one side has: cut on dots, as few as make names shared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorkeep.matching.catalogue import ANYWHERE, LEADING
from tensorkeep.matching.wrappers import align

PLAIN = ["0.weight", "0.bias", "encoder.layer.weight", "submodule.weight"]


@pytest.mark.parametrize("token", sorted(LEADING))
def test_each_wrapper_on_either_side(token):
    wrapped = [f"{token}.{name}" for name in PLAIN]
    a, b = align(wrapped, PLAIN)
    assert (list(a.names), a.dropped, b.dropped) == (PLAIN, (f"{token}.",), ())
    a, b = align(PLAIN, wrapped)
    assert (list(b.names), b.dropped, a.dropped) == (PLAIN, (f"{token}.",), ())


WRAPPERS = st.lists(st.sampled_from(sorted(LEADING)), max_size=3)


@given(WRAPPERS, WRAPPERS)
def test_stacked_wrappers_on_both_sides(left, right):
    a, b = align([".".join([*left, n]) for n in PLAIN], [".".join([*right, n]) for n in PLAIN])
    assert a.names == b.names


@pytest.mark.parametrize("token", sorted(ANYWHERE))
def test_wrappers_inside_names(token):
    a, b = align(
        [f"layers.0.{token}.weight", f"layers.1.{token}.{token}.weight", "head"],
        ["layers.0.weight", "layers.1.weight", "head"],
    )
    assert a.names == b.names
    assert a.dropped == (f"{token}.",)


def test_only_whole_parts_are_cut():
    a, b = align(["submodule.weight", "module_list.weight"], ["weight", "list.weight"])
    assert a.names == ("submodule.weight", "module_list.weight")
    assert not a.dropped
    assert not b.dropped


def test_nothing_is_taken_off_for_nothing():
    a, b = align(["module.x", "module.y"], ["module.x", "module.z"])
    assert not a.dropped
    assert not b.dropped
    a, b = align(["module.x"], ["net.y"])
    assert (a.names, b.names) == (("module.x",), ("net.y",))


def test_a_name_beside_the_wrapped_ones_keeps_them():
    a, _ = align(["module.x", "extra"], ["x", "extra"])
    assert a.names == ("module.x", "extra")


def test_names_that_would_be_twins_stay():
    a, _ = align(["a._orig_mod.w", "a.w"], ["a.w", "b.w"])
    assert len(set(a.names)) == 2
