"""`tensorkeep diff`: exit codes, JSON, and what people read."""

from __future__ import annotations

import json

import pytest
import torch

from tensorkeep.cli.folded import folded, folded_pairs


@pytest.fixture
def pair(tmp_path):
    torch.manual_seed(0)
    a = {"embed.weight": torch.randn(8, 4), "head.weight": torch.randn(3, 4)}
    for layer in range(12):
        a[f"layers.{layer}.up.weight"] = torch.randn(4, 4)
        a[f"layers.{layer}.down.weight"] = torch.randn(4, 4)
    b = {name: tensor.clone() for name, tensor in a.items()}
    b["head.weight"] += 0.01
    b["head.bias"] = torch.zeros(3)
    torch.save(a, tmp_path / "a.pth")
    torch.save(b, tmp_path / "b.pth")
    return tmp_path / "a.pth", tmp_path / "b.pth"


def test_same(cli, pair):
    done = cli("diff", pair[0], pair[0])
    assert done.code == 0
    assert done.out == f"{pair[0]} and {pair[0]} are the same: 26 tensors\n"


def test_differ(cli, pair):
    done = cli("diff", *pair)
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[0] == "a.pth and b.pth differ: 1 of 26 tensors changed, 25 identical, 1 added"
    assert any(line.split() == ["frozen", "embed"] for line in lines)
    assert any(line.split() == ["layers"] for line in lines)
    assert any(line.endswith("  head.weight") and "1.00e-02" in line for line in lines)
    assert "  head.bias" in lines
    assert max(map(len, lines)) <= 80


def test_json(cli, pair):
    done = cli("diff", "--format", "json", *pair)
    assert done.code == 1
    found = json.loads(done.out)
    assert (found["schema"], found["same"], found["added"]) == (1, False, ["head.bias"])
    (changed,) = found["changed"]
    assert (changed["name"], changed["what"]) == ("head.weight", "value")
    assert changed["max_abs"] == pytest.approx(0.01, abs=1e-6)


def test_options(cli, pair):
    assert cli("diff", "--atol", "0.1", "--skip", "head.bias", *pair).code == 0
    assert cli("diff", "--metadata-only", "--only", "layers.*", *pair).code == 0
    done = cli("diff", "--only", "nothing", *pair)
    assert done.code == 2
    assert "no tensor" in done.sentence() or "at least one tensor" in done.sentence()


@pytest.mark.parametrize("bad", ["missing.pth", "README.md"])
def test_bad_input_is_one_sentence(cli, pair, root, bad):
    done = cli("diff", pair[0], root / bad)
    assert done.code == 2
    assert bad in done.sentence()


def test_what_cannot_be_compared_is_2(cli, tmp_path, monkeypatch):
    class Thing:
        pass

    monkeypatch.setitem(globals(), "Thing", Thing)
    Thing.__qualname__ = "Thing"
    thing = Thing()
    thing.weight = torch.ones(2)
    torch.save({"w": torch.ones(2), "thing": thing}, tmp_path / "a.pth")
    done = cli("diff", "--section", "all", tmp_path / "a.pth", tmp_path / "a.pth")
    assert done.code == 2
    assert "no difference found" in done.out
    assert "not compared" in done.out


@pytest.mark.parametrize("columns", [40, 80, 140])
def test_on_a_terminal(terminal, pair, columns):
    done = terminal("diff", *pair, columns=columns)
    assert done.code == 1
    assert "frozen" in done.out


def test_a_bar_while_it_compares(terminal, pair):
    done = terminal("diff", *pair, impatient=True)
    assert "comparing" in done.out
    assert done.out.rfind("\x1b[?25h") > done.out.rfind("\x1b[?25l") >= 0


def test_hostile_names(cli, terminal, named, tmp_path):
    other = {name: tensor + 1 for name, tensor in torch.load(named).items()}
    torch.save(other, tmp_path / "other.pth")
    for done in (
        cli("diff", named, tmp_path / "other.pth"),
        cli("diff", tmp_path / "other.pth", named),
    ):
        assert done.code == 1
        assert "\x1b" not in done.out
        assert "\u202e" not in done.out
    assert "\x1b]" not in terminal("diff", named, tmp_path / "other.pth", columns=140).out


def test_folding():
    names = [f"l.{i}.{part}" for i in range(3) for part in ("w", "b")]
    assert folded([*names, "l.7.w", "x", "y.01.z"]) == ["l.{0..2,7}.w", "l.{0..2}.b", "x", "y.01.z"]
    assert folded(["a.5.w"]) == ["a.5.w"]
    pairs = [(f"a.{i}.w", f"b.{i}.v") for i in range(3)]
    assert folded_pairs([*pairs, ("a.7.w", "b.8.v")]) == [
        ("a.{0..2}.w", "b.{0..2}.v"),
        ("a.7.w", "b.8.v"),
    ]
