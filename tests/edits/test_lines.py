"""An edit on one line says what the recipe's table says, and what is wrong with it is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.edits.test_recipe import EDITS

from tensorkeep.edits.attention import Fuse, Split
from tensorkeep.edits.flags import flagged
from tensorkeep.edits.lines import parse_line, to_line
from tensorkeep.edits.lora import MergeLora
from tensorkeep.edits.merging import Average
from tensorkeep.edits.names import Drop, Keep, Rename, Strip
from tensorkeep.edits.resizing import Resize
from tensorkeep.edits.shaping import Pad, Reshape, Scale, Transpose
from tensorkeep.errors import BadArgument

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
MORE = st.one_of(
    EDITS,
    st.builds(Average, st.lists(TEXTS, min_size=1, max_size=3).map(tuple)),
    st.builds(MergeLora, TEXTS, st.floats(allow_nan=False), TEXTS, TEXTS, st.booleans()),
    st.builds(Reshape, TEXTS, st.lists(st.integers(0, 1 << 70), max_size=3).map(tuple)),
)


@given(MORE.filter(lambda edit: not isinstance(edit, Keep) or len(edit._texts()) != 1))
def test_what_is_written_is_read(edit):
    assert parse_line(to_line(edit)) == edit


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("resize pattern=wte size=12 fill=mean", Resize("wte", 12, fill="mean")),
        ("  drop\tpattern='a b'  ", Drop("a b")),
        (r"rename pattern=^a\.(\d+) to=b.\1 regex=true", Rename(r"^a\.(\d+)", r"b.\1", regex=True)),
        ("rename pattern=a to=", Rename("a", "")),
        ("fuse parts=q,k to=qk layout=per-head heads=4", Fuse(("q", "k"), "qk", "per-head", 4)),
        ("average others='a,b.pth',\"it's\"", Average(("a,b.pth", "it's"))),
        ("average others=a weights=.25,75e-2", Average(("a",), (0.25, 0.75))),
        ("keep pattern=a,b", Keep(("a", "b"))),
        ("keep pattern='a,b'", Keep("a,b")),
        ("transpose pattern=w dims=", Transpose("w")),
        ("scale pattern=a=b factor=2", Scale("a=b", 2.0)),
        ("strip prefix=module. anywhere=true", Strip("module.", anywhere=True)),
    ],
)  # fmt: skip
def test_lines(text, edit):
    assert parse_line(text) == edit


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected one of rename, "),
        ("rezise pattern=a", "Did you mean 'resize'?"),
        ("resize patern=a size=3", "resize, field 'patern': expected the fields pattern, size, "),
        ("resize patern=a size=3", "Did you mean 'pattern'?"),
        ("resize pattern=a size=x", "field 'size': expected a whole number, got 'x'"),
        ("resize pattern=a", "resize: expected a field 'size', got none. Its fields are: pattern"),
        ("resize wte", "expected FIELD=VALUE after 'resize', got 'wte'"),
        ("drop pattern=a b", "Put a value with blanks in it into quotes"),
        ("drop pattern=a pattern=b", "expected the field 'pattern' once"),
        ("drop op=a pattern=b", "expected the field 'op' once"),
        ("drop pattern='a", "expected a second '"),
        ("strip prefix=a anywhere=yes", "expected true or false, got 'yes'"),
        ("fuse parts=q,k to=qk layout=odd", "expected one of 'concat', 'per-head', 'grouped'"),
        ("reshape pattern=a shape=2,x", "a list, each a whole number"),
    ],
)
def test_mistakes(text, says):
    with pytest.raises(BadArgument) as caught:
        parse_line(text)
    assert says in str(caught.value)
    assert caught.value.subject.startswith(f"the edit {text!r}")
    assert caught.value.remedy


def test_options_keep_their_order_and_a_mean_is_one():
    given = [("average", "a"), ("strip", "m"), ("edit", "drop pattern=x"), ("average", "b")]
    assert flagged(given) == [Average(("a", "b")), Strip("m"), Drop("x")]
    assert flagged([("merge_lora", "dir"), ("rename", "a=b")]) == [
        MergeLora("dir"),
        Rename("a", "b"),
    ]


def test_tables_have_no_line(monkeypatch):
    monkeypatch.setattr(
        "tensorkeep.edits.lines.table_of", lambda edit: {"op": "x", "map": {"a": 1}}
    )
    with pytest.raises(BadArgument, match="Write it into a recipe"):
        to_line(Pad("a"))


def test_split_and_its_line():
    edit = Split("qkv", ("q", "k", "v"), "grouped", 8, 2)
    assert to_line(edit) == "split pattern=qkv parts=q,k,v layout=grouped heads=8 groups=2"
