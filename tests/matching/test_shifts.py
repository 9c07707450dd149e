"""Lists that are counted from elsewhere: shifted where their tensors say so, else not touched."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorkeep.matching.finding import find
from tensorkeep.matching.rules import applied
from tensorkeep.matching.specs import Spec

sys.path.insert(0, str(Path(__file__).resolve().parent))

from match_nets import NET, renamed, rules, under  # noqa: E402

INNER = ("q.weight", "k.weight", "fc1.weight", "norm.weight", "norm.bias")
WIDTHS = (8, 8, 0, 16, 16, 0, 32, 32)
HEAD = {"head.weight": Spec("float32", (10, 32)), "head.bias": Spec("float32", (10,))}


def layers(front, start, stop):
    return {
        f"{front}{at}.{name}": Spec("float32", (4,) if "bias" in name else (4, 4))
        for at in range(start, stop)
        for name in INNER
    }


def convs(front="features.", start=0, widths=WIDTHS):
    """As in a plain convolutional network: activations and pools have numbers and no tensors."""
    made, channels, at = {}, 3, start
    for width in widths:
        if width:
            made[f"{front}{at}.weight"] = Spec("float32", (width, channels, 3, 3))
            made[f"{front}{at}.bias"] = Spec("float32", (width,))
            channels = width
        at += 2 if width else 1
    return made


def later(names, by=1):
    pairs = ((f"layers.{at}.", f"layers.{at + by}.") for at in reversed(range(3)))
    return renamed(names, *pairs)


@pytest.mark.parametrize(
    ("file", "model", "said"),
    [
        (convs(), convs(start=1), ["rename `features.{n}` to `features.{n+1}`"]),
        (convs(start=3), convs(), ["rename `features.{n}` to `features.{n-3}`"]),
        (convs("", 1), convs(""), ["rename `{n}` to `{n-1}`"]),
        (convs("module.", 1), convs(""), ["rename `module.{n}.*` to `{n-1}.*`"]),
        (
            under("_orig_mod.module.", convs(start=1) | HEAD),
            convs() | HEAD,
            ["rename `features.{n}` to `features.{n-1}`", "strip `_orig_mod.module.`"],
        ),
        (convs(start=1) | HEAD, convs("stem.") | HEAD,
         ["rename `features.{n}.*` to `stem.{n-1}.*`"]),
        (convs("a.0.", 2) | convs("a.1.", 2), convs("a.0.") | convs("a.1."),
         ["rename `a.{m}.{n}` to `a.{m}.{n-2}`"]),
    ],
)  # fmt: skip
def test_shapes_tell_the_layers_apart(file, model, said):
    match = find(file, model)
    assert match.fits and match.notes == [] and sorted(rules(match)) == sorted(said)
    told = applied(match.rules, file)
    assert isinstance(told, dict) and match.names == told


@pytest.mark.parametrize("front", ["layers.", "blocks.", "model.layers."])
@pytest.mark.parametrize(("start", "by"), [(1, "-1"), (0, "+1")])
def test_alike_layers_are_shifted_and_it_is_said_what_that_rests_on(front, start, by):
    file, model = layers(front, start, start + 4), layers("blocks.", 1 - start, 5 - start)
    match = find(file, model)
    assert match.fits and len(match.rules) == 1 and f"blocks.{{n{by}}}" in rules(match)[0]
    assert "rests on the number of layers alone" in match.notes[0]


@pytest.mark.parametrize("both", [lambda net: net, lambda net: under("module.", net)])
def test_one_rule_for_all_lists_that_are_shifted_alike(both):
    two = under("encoder.", NET) | under("decoder.", NET)
    match = find(both(later(two)), two)
    assert match.fits and rules(match)[0] == "rename `layers.{n}` to `layers.{n-1}`"
    assert len(match.rules) == len(rules(find(both(two), two))) + 1


def test_each_list_by_its_own_number():
    two = under("encoder.", NET) | under("decoder.", NET)
    file = under("encoder.", later(NET)) | under("decoder.", later(NET, 2))
    match = find(file, two)
    assert match.fits and rules(match) == [
        "rename `encoder.layers.{n}` to `encoder.layers.{n-1}`",
        "rename `decoder.layers.{n}` to `decoder.layers.{n-2}`",
    ]


@pytest.mark.parametrize(
    ("file", "model"),
    [
        (layers("blocks.", 1, 5), layers("blocks.", 0, 5)),  # one layer less: which?
        (layers("blocks.", 1, 6), layers("blocks.", 0, 4)),
        (convs(start=1), convs(widths=(8, 8, 0, 16, 0, 16, 32, 32))),  # pools elsewhere
        (layers("b.", 2, 6), layers("x.b.", 0, 4) | layers("y.b.", 1, 5)),  # two places
    ],
)
def test_what_is_no_whole_shift_is_not_shifted(file, model):
    match = find(file, model)
    assert not match.fits and not any("{n-" in rule or "{n+" in rule for rule in rules(match))


def test_layers_that_are_a_part_of_the_model_stay_where_they_are():
    """A stage of a pipeline has some of the layers, and their names are right."""
    match = find(layers("blocks.", 4, 8), layers("blocks.", 0, 12))
    assert match.rules == [] and all(a == b for a, b in match.names.items())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([0, 4, 8, 16]), min_size=3, max_size=8),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from(["", "module.", "_orig_mod.module."]),
)
def test_a_shift_brings_back_any_list(widths, ours, theirs, prefix):
    file, model = convs(f"{prefix}features.", ours, widths), convs(start=theirs, widths=widths)
    if len(model) < 4:
        return
    match = find(file, model)
    assert match.fits
    by = theirs - ours
    assert all(
        source == f"{prefix}features.{int(name.split('.')[1]) - by}.{name.split('.')[2]}"
        for name, source in match.names.items()
    )
