"""Recipes say what edits say, and what is wrong with one is said with its line."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, fields
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.edits.test_names import inventory

from tensorkeep.edits import recipe as recipes
from tensorkeep.edits import registry
from tensorkeep.edits.applying import apply, effect, invert
from tensorkeep.edits.names import AddPrefix, Drop, Keep, Rename, Strip, Swap
from tensorkeep.edits.recipe import Recipe, parse, read_recipe, to_toml, write_recipe
from tensorkeep.errors import AlreadyExists, BadArgument, NameCollision, NotFound

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
PLAIN = TEXTS.filter(lambda text: not set(text) & set("*{}^$.") and text.strip())
EDITS = st.one_of(
    st.builds(Rename, PLAIN, PLAIN),
    st.just(Rename(r"^a\.(\d+)", r"b.\1", regex=True)),
    st.just(Rename("it's\\a", 'say "b"', regex=True)),
    st.builds(Strip, PLAIN, st.booleans()),
    st.builds(AddPrefix, PLAIN),
    st.builds(Drop, PLAIN),
    st.builds(Keep, PLAIN | st.lists(PLAIN, min_size=1, max_size=3).map(tuple)),
)


@given(st.lists(EDITS, max_size=5), TEXTS | st.just(""), TEXTS | st.none())
def test_what_is_written_is_read(edits, name, section):
    recipe = Recipe(tuple(edits), name=name, section=section)
    assert parse(to_toml(recipe)) == recipe


def test_a_recipe_is_for_people():
    edits = [Rename("h.{n}", "layers.{n}"), Rename(r"_(\d)", r".\1", regex=True), Keep(("a", "b"))]
    assert (
        to_toml(Recipe(tuple(edits), description="GPT-2's blocks"))
        == """\
schema = 1

[recipe]
description = "GPT-2's blocks"

[[edit]]
op = "rename"
pattern = "h.{n}"
to = "layers.{n}"

[[edit]]
op = "rename"
pattern = '_(\\d)'
to = '.\\1'
regex = true

[[edit]]
op = "keep"
pattern = ["a", "b"]
"""
    )


def test_files(tmp_path):
    path = tmp_path / "r.toml"
    write_recipe(path, [Drop("a")])
    assert read_recipe(path).edits == (Drop("a"),)
    with pytest.raises(AlreadyExists):
        write_recipe(path, [Drop("b")])
    write_recipe(path, [Drop("b")], overwrite=True)
    assert read_recipe(str(path)).edits == (Drop("b"),)
    with pytest.raises(NotFound):
        read_recipe(tmp_path / "none.toml")
    path.write_bytes(b"\xff")
    with pytest.raises(BadArgument, match="UTF-8"):
        read_recipe(path)


RECIPE = '''\
schema = 1

[recipe]
name = """
[[edit]]
op = "no edit, but a text"
"""

[[edit]]
op = "drop"
pattern = "a"

  [[ edit ]]  # the second
op = "rename"
pattern = "b"
to = "c"
'''


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("schema = 1", "", "r.toml: expected schema = 1, got none"),
        ("schema = 1", "schema = 2", "expected schema = 1, got 2"),
        ("schema = 1", "schema = true", "expected schema = 1, got True"),
        ("schema = 1", "schema = 1\nedits = []", "line 2: field 'edits'"),
        ("[recipe]", "[recipe]\nauthor = 'x'", "line 4: field 'author': expected name, desc"),
        ("[recipe]", "[recipe]\nsection = 3", "line 4: field 'section': expected a text, got 3"),
        ("[recipe]", "[[recipe]]", "as a table"),
        ("[recipe]", "]", "expected TOML"),
        ('"rename"', '"renam"', "r.toml, line 14: op: .*Did you mean 'rename'"),
        ('"rename"', '"zzz"', "line 14: op: expected one of rename, swap"),
        ('"rename"', "7", 'line 14: an edit: expected op = "..."'),
        ('op = "rename"\n', "", 'line 13: an edit: expected op = "...", got none'),
        ("to =", "too =", "line 16: rename, field 'too': .*Did you mean 'to'"),
        ("to =", '"t" =', "line 16: rename, field 't'"),
        ('to = "c"', "to = 3", "line 16: rename, field 'to': expected a text, got 3"),
        ('to = "c"', 'to = ["c"]', "line 16: rename, field 'to': expected a text"),
        ('to = "c"', 'to = "c"\nregex = 1', "line 17: rename, field 'regex': expected true"),
        ('to = "c"', "", "line 14: rename: expected a field 'to', got none"),
        ('to = "c"', 'to = "{n}"', "line 14: rename: expected the placeholders of 'b'.*{n}"),
        ('to = "c"', "[edit.to]\nx = 1", "line 16: rename, field 'to'"),
        ('pattern = "a"', "pattern = [1]", "line 11: drop, field 'pattern': expected a text"),
    ],
)
def test_errors_name_file_line_and_field(tmp_path, old, new, says):
    path = tmp_path / "r.toml"
    path.write_text(RECIPE.replace(old, new, 1))
    with pytest.raises(BadArgument, match=says) as caught:
        read_recipe(path)
    assert "\n" not in str(caught.value)


def test_the_recipe_itself_is_right():
    assert parse(RECIPE).edits == (Drop("a"), Rename("b", "c"))
    with pytest.raises(BadArgument, match="a recipe: drop, field 'x'"):
        parse('schema = 1\nedit = [{op = "drop", pattern = "a", x = 1}]')
    with pytest.raises(BadArgument, match="tables"):
        parse("schema = 1\nedit = [1]")


def test_every_op_is_what_the_table_says():
    for op in registry.OPS:
        assert registry.kind(op).op == op


@dataclass(frozen=True)
class Shout:
    """Somebody else's edit."""

    loud: float = 1.0
    op: ClassVar[str] = "shout"

    def apply(self, inventory):
        inventory.rename(str.upper)

    def inverse(self):
        return None


def test_an_edit_of_others_by_entry_point(monkeypatch):
    point = importlib.metadata.EntryPoint(
        "shout", "tests.edits.test_recipe:Shout", "tensorkeep.edits"
    )
    found = importlib.metadata.EntryPoints([point])
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **by: found.select(**by))
    [edit] = parse('schema = 1\n[[edit]]\nop = "shout"\nloud = 2').edits
    assert type(edit).__name__ == "Shout" and edit.loud == 2.0
    assert [field.name for field in fields(edit)] == ["loud"]
    assert recipes.to_toml([edit]).endswith('op = "shout"\nloud = 2.0\n')
    with pytest.raises(BadArgument, match="can be taken back"):
        invert([Drop("a"), edit])


def test_edits_apply_in_order_and_errors_name_the_edit():
    there = inventory("module.h.0.w", "module.h.1.w", "module.head")
    edits = [Strip("module"), Rename("h.{n}", "layers.{n+1}"), Drop("head")]
    before = there.copy()
    apply(there, edits)
    assert list(there) == ["layers.1.w", "layers.2.w"]
    assert effect(there, before) == "2 renamed, 1 dropped of 3 tensors"
    with pytest.raises(NameCollision, match="edit 2, rename"):
        apply(there, [Strip("x"), Rename("{n}", "0")])
    with pytest.raises(BadArgument, match="edits such as Rename"):
        apply(there, ["strip"])


def test_renames_in_a_circle():
    names = "a.x", "b.y"
    for rules in ("ab ba", "ab bc ca"):
        with pytest.raises(BadArgument, match="in a circle.*swap"):
            apply(inventory(*names), [Rename(*rule) for rule in rules.split()])
    by_a_third = inventory(*names)
    apply(by_a_third, [Rename("a", "t"), Rename("b", "a"), Rename("t", "b")])
    assert list(by_a_third) == ["b.x", "a.y"]


def test_the_way_back_of_a_list():
    edits = [AddPrefix("m"), Rename("a", "b"), Swap("c", "d")]
    assert invert(edits) == (Swap("c", "d"), Rename("b", "a"), Strip("m"))
    there = inventory("a.x", "c.y")
    assert invert(edits, there) == invert(edits)
    assert list(there) == ["a.x", "c.y"]
    with pytest.raises(BadArgument, match="1 names that are not, 'b.z' first"):
        invert(edits, inventory("a.x", "b.z"))
    with pytest.raises(BadArgument, match="edit 1, drop"):
        invert([Drop("a"), *edits])
