"""Edits of names: what each makes of names, what it refuses, and its way back."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tensorkeep.dtypes import BY_NAME
from tensorkeep.edits.arrays import Filled
from tensorkeep.edits.inventory import Inventory
from tensorkeep.edits.names import AddPrefix, Drop, Keep, Rename, Strip, Swap
from tensorkeep.errors import BadArgument, NameCollision

PARTS = ["a", "b", "layer", "0", "1", "12", "LayerNorm", "gamma", "a_b", "weight"]
NAMES = st.lists(
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map(".".join), max_size=6, unique=True
)


def inventory(*names):
    """Tensors of these names, each another one."""
    f4 = BY_NAME["float32"]
    return Inventory(
        "a file",
        {name: Filled(f4, (at,)) for at, name in enumerate(names, 1)},
        origin={name: (name,) for name in names},
    )


def after(edit, *names):
    there = inventory(*names)
    edit.apply(there)
    return list(there)


@pytest.mark.parametrize(
    ("pattern", "to", "old", "new"),
    [
        ("encoder", "backbone", "model.encoder.weight", "model.backbone.weight"),
        ("encoder", "backbone", "decoder.encoder_2.encoder", "decoder.encoder_2.backbone"),
        ("LayerNorm.gamma", "LayerNorm.weight", "b.0.LayerNorm.gamma", "b.0.LayerNorm.weight"),
        ("LayerNorm.gamma", "LayerNorm.weight", "b.0.MyLayerNorm.gamma", "b.0.MyLayerNorm.gamma"),
        ("module.", "net.", "module.module.x", "net.net.x"),
        ("module", "", "module.x.module.y", "x.y"),
        ("^weight$", "fc.weight", "weight", "fc.weight"),
        ("^weight$", "fc.weight", "head.weight", "head.weight"),
        ("^model", "m", "model.model.x", "m.model.x"),
        ("weight$", "w", "weight.weight", "weight.w"),
        ("model.*", "*", "model.a.b", "a.b"),
        ("model.*", "*", "a.model.b", "a.model.b"),
        ("*.gamma", "*.weight", "x.y.gamma", "x.y.weight"),
        ("*_g", "*_scale", "x.weight_g", "x.weight_scale"),
        ("h.{n}", "layers.{n}", "transformer.h.10.ln", "transformer.layers.10.ln"),
        ("h.{n}", "layers.{n+1}", "h.9.ln", "layers.10.ln"),
        ("h.{n}", "layers.{n-12}", "h.12.ln", "layers.0.ln"),
        ("h.{n}", "layers.{n*2+1}", "h.3.ln", "layers.7.ln"),
        ("h.{n*2+1}", "layers.{n}", "h.7.ln", "layers.3.ln"),
        ("h.{n*2+1}", "layers.{n}", "h.6.ln", "h.6.ln"),
        ("h.{n-12}", "layers.{n}", "h.0.ln", "layers.12.ln"),
        ("h.{n+12}", "layers.{n}", "h.5.ln", "h.5.ln"),
        ("h.{n}", "layers.{n}", "h.007.ln", "h.007.ln"),
        ("h.{n}", "layers.{n}", "h.x.ln", "h.x.ln"),
        ("block{n}_{m}", "blocks.{n}.{m}", "block1_22.w", "blocks.1.22.w"),
        ("{name}.lora_A.default", "{name}.lora_A", "x.q.lora_A.default.w", "x.q.lora_A.w"),
        ("{n}.{n}", "{n}", "x.3.3", "x.3"),
        ("{n}.{n}", "{n}", "x.3.4", "x.3.4"),
        ("a.b", "c", "a.b.a.b", "c.c"),
        ("a", "x", "a\\.b.a", "a\\.b.x"),
    ],
)
def test_rename(pattern, to, old, new):
    assert after(Rename(pattern, to), old) == [new]


@pytest.mark.parametrize(
    ("pattern", "to", "old", "new"),
    [
        (r"^module\.", "", "module.a.module.b", "a.module.b"),
        (r"(\w+)_(g|v)$", r"\1.\2", "x.weight_g", "x.weight.g"),
        (r"layer(?P<n>[0-9]+)", "layers.{n-1}", "layer3.w", "layers.2.w"),
        (r"layer(?P<n>[0-9]+)", r"layers.\g<n>", "layer3.w", "layers.3.w"),
        (r"a(b)?", "x{1}", "a.ab", "x.xb"),
    ],
)
def test_rename_by_regular_expression(pattern, to, old, new):
    edit = Rename(pattern, to, regex=True)
    assert after(edit, old) == [new]
    assert edit.inverse() is None


def test_origins_follow():
    there = inventory("a.x", "b.y")
    Rename("a", "c").apply(there)
    Drop("b").apply(there)
    assert there.origin == {"c.x": ("a.x",)}


def test_what_matches_nothing_is_a_note():
    there = inventory("a.x")
    for edit in (Rename("b", "c"), Drop("b"), Swap("b", "c"), Keep(("a", "q")), Strip("b")):
        edit.apply(there)
    assert list(there) == ["a.x"]
    assert there.notes == [
        "no name matches 'b' to rename",
        "no name matches 'b' to drop",
        "no name has 'b' or 'c' to swap",
        "no name matches 'q' to keep",
        "no name has 'b.' to strip",
    ]


def test_two_names_to_one():
    with pytest.raises(NameCollision, match="'a.w' and 'b.w' would both be 'c.w'"):
        after(Rename("{name}.w", "c.w"), "a.w", "b.w")
    with pytest.raises(NameCollision):
        after(Rename("a", "b"), "a.w", "b.w")


def test_swap():
    assert after(Swap("a", "b"), "a.w", "b.w", "x.a", "ab.w") == ["b.w", "a.w", "x.b", "ab.w"]
    assert after(Swap("a.q", "b"), "a.q.w", "b.w") == ["b.w", "a.q.w"]


def test_drop_and_keep():
    names = "head.weight", "body.head_2.weight", "body.0.head"
    assert after(Drop("head"), *names) == ["body.head_2.weight"]
    assert after(Drop("head.*"), *names) == [*names[1:]]
    assert after(Keep("body.*"), *names) == [*names[1:]]
    assert after(Keep(("^head", "{n}")), *names) == [names[0], names[2]]


def test_ambiguous_matches_are_refused():
    with pytest.raises(BadArgument, match=r"two: it would be 'b.x' or 'b.a.x'|one way"):
        after(Rename("*.a.*", "*_*"), "b.a.a.x")
    # Two ways that come to the same are one.
    assert after(Rename("*.a.*", "*.a.*"), "b.a.a.x") == ["b.a.a.x"]
    with pytest.raises(BadArgument, match="one way"):
        after(Rename("{left}_{right}", "{right}.{left}"), "a_b_c")


def test_a_long_name_is_not_tried_in_a_thousand_million_ways():
    name = "a" * 10_000
    assert after(Rename("*b", "*c"), name) == [name]
    with pytest.raises(BadArgument, match="at most 500 characters"):
        after(Rename("*b*c", "*c*b"), name)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Rename("", "x"), "parts of a name"),
        (lambda: Rename("a.{n}{m}", "b"), "text between placeholders"),
        (lambda: Rename("**", "*"), "text between placeholders"),
        (lambda: Rename("*a*b*c*d", "****"), "at most 3"),
        (lambda: Rename("a.{n}", "b.{m}"), "got {m}"),
        (lambda: Rename("a.*", "b"), "as many"),
        (lambda: Rename("a.{name}", "b.{name+1}"), "arithmetic on text"),
        (lambda: Rename("a.{n*0}", "b.{n}"), "placeholders such as"),
        (lambda: Rename("a.{", "b"), "regular expression"),
        (lambda: Rename("(", "b", regex=True), "regular expression"),
        (lambda: Rename("(a)", "{2}", regex=True), "a group of"),
        (lambda: Swap("a", "a.b"), "share no part"),
        (lambda: Swap("a", ""), "two runs"),
        (lambda: Drop(""), "parts of a name"),
        (lambda: Keep(()), "at least one pattern"),
        (lambda: after(Rename("a.{n}", "a.{n-3}"), "a.2"), "from 0, got 2-3"),
        (lambda: after(Rename("a", ""), "a"), "nothing left of 'a'"),
        (lambda: after(Rename("a(.)", "{1+1}", regex=True), "ax"), "got x"),
    ],
)
def test_what_means_nothing_is_one_sentence(make, says):
    with pytest.raises(BadArgument, match=says):
        make()


@pytest.mark.parametrize(
    ("edit", "back"),
    [
        (Rename("a.{n}", "b.{n+1}"), Rename("b.{n+1}", "a.{n}")),
        (Rename("^a$", "b"), Rename("^b$", "a")),
        (Rename("a.*", "b.*"), Rename("b.*", "a.*")),
        (Rename("x.{n}.e.{m}.w", "l.{n}.e.{m}.v"), Rename("l.{n}.e.{m}.v", "x.{n}.e.{m}.w")),
        (Rename("a.{n}", "b"), None),
        (Rename("a", ""), None),
        (Rename("a", "b.b"), None),
        (Rename("a.{n}.{m}", "{n}.{m}"), None),
        (Rename("{left}.{right}", "{left}_{right}"), None),
        (Rename("a.*", "*"), Rename("*", "a.*")),
        (Swap("a", "b"), Swap("a", "b")),
        (Drop("a"), None),
        (Keep("a"), None),
        (AddPrefix("a"), Strip("a")),
    ],
)
def test_the_way_back(edit, back):
    assert edit.inverse() == back


NEW = ["p", "q.r", "p.{n}", "p{n}.q", "p.{n}.q.{m}", "p.{name}", "{name}_p", "p.q.p", "p.{n*3+2}"]
OLD = ["a", "a.b", "layer.{n}", "{n}.a.{m}", "{name}.gamma", "b.{n+1}", "{name}", "a.{n}.a"]


@given(NAMES, st.sampled_from(OLD), st.sampled_from(NEW), st.sampled_from(["", "^"]))
def test_a_rename_and_its_inverse_change_nothing(names, old, new, begin):
    try:
        edit = Rename(begin + old, new)
    except BadArgument:
        assume(False)
    back = edit.inverse()
    assume(back is not None)
    there = inventory(*names)
    try:
        edit.apply(there)
    except NameCollision:
        assume(False)
    back.apply(there)
    assert list(there) == names
    assert [array.shape for array in there.tensors.values()] == [
        (at,) for at in range(1, len(names) + 1)
    ]


@given(NAMES, st.sampled_from([Swap("a", "b"), Swap("layer.0", "a"), AddPrefix("b.a")]))
def test_swap_and_prefix_and_their_inverses(names, edit):
    there = inventory(*names)
    edit.apply(there)
    edit.inverse().apply(there)
    assert list(there) == names


@given(NAMES, st.lists(st.sampled_from([*PARTS, "b.{n}", "^a"]), min_size=1, max_size=2))
def test_keep_and_drop_part_a_file(names, wanted):
    kept = after(Keep(tuple(wanted)), *names)
    there = inventory(*names)
    for pattern in wanted:
        Drop(pattern).apply(there)
    assert sorted([*kept, *there]) == sorted(names)
