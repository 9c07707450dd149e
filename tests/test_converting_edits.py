"""`convert` with edits: order, reports, lineage, what is refused, what casting loses."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import tensorkeep as tk
from tensorkeep.dtypes import BY_NAME
from tensorkeep.edits.arrays import Filled
from tensorkeep.edits.merging import Average
from tensorkeep.edits.names import AddPrefix, Drop, Keep, Rename, Swap
from tensorkeep.edits.recipe import Recipe, write_recipe
from tensorkeep.edits.shaping import CastTo, Scale
from tensorkeep.errors import (
    BadArgument,
    NameCollision,
    NothingSelected,
    NotSafe,
    SelectionError,
    StoreError,
    Unwritable,
)


@pytest.fixture
def state():
    torch.manual_seed(0)
    tied = torch.randn(4, 3)
    return {
        "module.h.0.w": torch.randn(3, 3),
        "module.h.1.w": torch.randn(3, 3),
        "module.wte": tied,
        "module.head": tied,
    }


@pytest.fixture
def source(tmp_path, state):
    torch.save(state, tmp_path / "model.pth")
    return tmp_path / "model.pth"


def metadata(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_edits_apply_in_order_and_are_verified(source, state, tmp_path, ending):
    recipe = tmp_path / "r.toml"
    write_recipe(recipe, [Drop("blocks.2"), Rename("wte", "emb")])
    to = tmp_path / f"a.{ending}"
    report = tk.convert(
        source,
        to,
        strip=["module"],
        rename=["h.{n}=layers.{n+1}"],
        edits=[Rename("layers", "blocks")],
        recipe=recipe,
        dtype="float64",
        verify=True,
    )
    found = torch.load(to) if ending == "pth" else load_file(to)
    assert torch.equal(found["blocks.1.w"], state["module.h.0.w"].double())
    assert torch.equal(found["emb"], state["module.wte"].double())
    assert found.keys() - {"head"} == {"blocks.1.w", "emb"}
    assert report.tied == {"head": "emb"}
    assert report.effect == "3 renamed, 1 dropped of 4 tensors"
    assert report.verified == 2
    assert [edit["op"] for edit in report.edits] == ["strip", "rename", "rename", "drop", "rename"]
    assert {row["name"]: row["from"] for row in report.outputs} == {
        "blocks.1.w": "module.h.0.w",
        "emb": "module.wte",
        "head": "module.head",
    }
    assert json.loads(json.dumps(report.to_dict()))["edits"] == report.edits


def test_only_and_skip_name_what_is_in_the_file(source, tmp_path):
    report = tk.convert(source, tmp_path / "a.pth", skip=["module.h.*"], strip=["module."])
    assert [row["name"] for row in report.outputs] == ["wte", "head"]


def test_the_recipe_s_section_is_taken_unless_another_is_asked_for(tmp_path, state):
    torch.save({"a": state, "b": {"x": torch.ones(1)}}, tmp_path / "m.ckpt")
    write_recipe(tmp_path / "r.toml", Recipe((AddPrefix("p"),), section="b"))
    args = {"recipe": tmp_path / "r.toml", "dry_run": True}
    assert tk.convert(tmp_path / "m.ckpt", tmp_path / "o.pth", **args).tensors == 1
    report = tk.convert(tmp_path / "m.ckpt", tmp_path / "o.pth", section="a", **args)
    assert report.tensors == 4
    assert report.outputs[0]["from"] == "a.module.h.0.w"


def test_nothing_that_matches_is_a_note_and_nothing_left_an_error(source, tmp_path):
    report = tk.convert(source, tmp_path / "a.pth", rename=["zzz=y"])
    assert "no name matches 'zzz' to rename" in report.notes
    with pytest.raises(NothingSelected, match="what the edits left"):
        tk.convert(source, tmp_path / "b.pth", drop=["module"])
    assert not (tmp_path / "b.pth").exists()


def test_bad_arguments(source, tmp_path):
    to = tmp_path / "a.pth"
    for given, says in (
        ({"rename": ["ab"]}, "FROM=TO"),
        ({"rename": "a=b"}, "a list of texts"),
        ({"on_overflow": "no"}, "on_overflow"),
        ({"edits": [Rename("a", "b"), Rename("b", "a")]}, "in a circle"),
        ({"edits": ["strip"]}, "strip: expected a field 'prefix', got none"),
        ({"edits": [3]}, "edits such as Rename"),
    ):
        with pytest.raises(BadArgument, match=says):
            tk.convert(source, to, **given)
    with pytest.raises(NameCollision, match="edit 1, rename"):
        tk.convert(source, to, rename=["h.{n}=h"])
    assert not to.exists()


def test_versions_of_modules_follow_their_names(tmp_path):
    model = nn.Sequential(OrderedDict(body=nn.Sequential(nn.BatchNorm1d(3)), head=nn.Linear(3, 1)))
    torch.save(model.state_dict(), tmp_path / "a.pth")
    tk.convert(tmp_path / "a.pth", tmp_path / "b.pth", rename=["body=trunk.0"])
    found = torch.load(tmp_path / "b.pth")
    assert found._metadata["trunk.0.0"] == {"version": 2}
    assert found._metadata["head"] == {"version": 1}
    assert "body.0" not in found._metadata


class TestLineage:
    def test_a_plain_conversion_says_nothing(self, source, tmp_path):
        tk.convert(source, tmp_path / "a.safetensors", dtype="float16")
        assert metadata(tmp_path / "a.safetensors") == {"format": "pt", "module.wte": "module.head"}

    def test_steps_add_up_through_formats(self, source, tmp_path):
        tk.convert(source, tmp_path / "a.pth", strip=["module"], verify=True)
        tk.convert(tmp_path / "a.pth", tmp_path / "b.pth")
        tk.convert(tmp_path / "b.pth", tmp_path / "c.safetensors", drop=["h"], dtype="float16")
        first, second = json.loads(metadata(tmp_path / "c.safetensors")["tensorkeep.lineage"])
        assert first["source"] == "model.pth"
        assert first["files"] == [
            {
                "name": "model.pth",
                "bytes": source.stat().st_size,
                "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
            }
        ]
        assert first["edits"] == [{"op": "strip", "prefix": "module"}]
        assert second["source"] == "b.pth" and "sha256" not in second["files"][0]
        assert second["dtype"] == "float16"
        assert second["index"].startswith("sha256:") and second["index"] != first["index"]
        assert str(tmp_path) not in json.dumps([first, second])
        # torch takes the file as any other, and so does the scan.
        assert torch.load(tmp_path / "a.pth", weights_only=True, mmap=True).keys() == {
            "h.0.w",
            "h.1.w",
            "wte",
            "head",
        }
        assert tk.scan(tmp_path / "a.pth", deep=True).verdict == "safe"
        with tk.open(tmp_path / "a.pth") as ckpt:
            assert list(ckpt.metadata) == ["tensorkeep.lineage"]

    def test_text_that_is_no_lineage_is_replaced(self, tmp_path):
        for at, text in enumerate(["{", "{}", "[" * 100_000]):
            save_file(
                {"a.b": torch.ones(1)},
                tmp_path / f"{at}.st",
                {"tensorkeep.lineage": text, "k": "v"},
            )
            to = tmp_path / f"{at}.safetensors"
            tk.convert(tmp_path / f"{at}.st", to, strip=["a"])
            assert len(json.loads(metadata(to)["tensorkeep.lineage"])) == 1
            assert metadata(to)["k"] == "v"

    def test_a_record_that_is_no_text_of_ours_is_left_alone(self, source, tmp_path):
        for at, data in enumerate([b"{", b"[1]", b'{"tensorkeep.x": 1, "y": "z"}', b"\xff" * 9]):
            path = tmp_path / f"{at}.pth"
            path.write_bytes(source.read_bytes())
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr(f"{archive.namelist()[0].split('/')[0]}/tensorkeep.json", data)
            with tk.open(path) as ckpt:
                assert ckpt.metadata == {} and len(ckpt) == 4

    def test_an_edit_of_one_s_own_must_be_told(self, source, tmp_path):
        class Odd:
            op = "odd"

            def apply(self, inventory):
                pass

        with pytest.raises(BadArgument, match="a dataclass with an op"):
            tk.convert(source, tmp_path / "a.pth", edits=[Odd()])


class TestCasting:
    def test_what_is_lost_is_counted(self, tmp_path):
        tensors = {
            "big": torch.tensor([1.0, 1e5, -1e6, float("inf"), 65519.0]),
            "small": torch.tensor([1e-9, 0.0, -1e-8, 1.0]),
            "nan": torch.tensor([float("nan"), 1.0]),
            "fine": torch.randn(10),
            "whole": torch.tensor([10**9]),
        }
        torch.save(tensors, tmp_path / "a.pth")
        report = tk.convert(
            tmp_path / "a.pth", tmp_path / "b.safetensors", dtype="float16", verify=True
        )
        assert {row["name"]: tuple(row.values())[2:] for row in report.lost} == {
            "big": (2, 0, 0),
            "small": (0, 2, 0),
            "nan": (0, 0, 1),
        }
        assert report.notes[-3:] == [
            "2 values overflow float16, in 'big'",
            "2 values become 0 in float16, in 'small'",
            "1 value is NaN, in 'nan'",
        ]

    @pytest.mark.parametrize("source_dtype", [torch.float64, torch.float32, torch.bfloat16])
    @pytest.mark.parametrize(
        "to",
        ["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"],
    )
    def test_counts_are_those_of_torch(self, tmp_path, source_dtype, to):
        torch.manual_seed(1)
        scale = 10.0 ** torch.randint(-50, 50, (3000,), dtype=torch.float64)
        values = (torch.randn(3000, dtype=torch.float64) * scale).to(source_dtype)
        values[:3] = torch.tensor([float("nan"), float("inf"), 0.0], dtype=source_dtype)
        torch.save({"x": values}, tmp_path / "a.pth")
        report = tk.convert(tmp_path / "a.pth", tmp_path / "b.pth", dtype=to)
        made = values.to(getattr(torch, to)).double()
        wide = values.double()
        # e4m3fn has no infinity: torch gives the largest, and what rounds to it has not overflowed.
        beyond = wide.abs() > 464 if to == "float8_e4m3fn" else ~made.isfinite()
        expected = {
            "name": "x",
            "values": 3000,
            "overflow": int((beyond & wide.isfinite()).sum()),
            "underflow": int(((made == 0) & (wide != 0)).sum()),
            "nan": int(wide.isnan().sum()),
        }
        assert report.lost == ([expected] if values.dtype != getattr(torch, to) else [])

    def test_overflow_may_be_an_error(self, tmp_path):
        torch.save({"x": torch.full((9,), 1e5)}, tmp_path / "a.pth")
        with pytest.raises(Unwritable, match="x: expected values that float16 holds, got 9"):
            tk.convert(tmp_path / "a.pth", tmp_path / "b.pth", dtype="float16", on_overflow="error")
        assert not (tmp_path / "b.pth").exists()
        torch.save({"x": torch.full((9,), 1e-12)}, tmp_path / "a.pth")
        tk.convert(tmp_path / "a.pth", tmp_path / "b.pth", dtype="float16", on_overflow="error")

    def test_large_tensors_are_counted_once(self, tmp_path):
        big = torch.zeros(3, 1 << 20)
        big[:, ::1000] = 1e30
        torch.save({"x": big, "t": big.t()}, tmp_path / "a.pth")
        report = tk.convert(
            tmp_path / "a.pth", tmp_path / "b.safetensors", dtype="float16", verify=True
        )
        assert [row["overflow"] for row in report.lost] == [3 * 1049] * 2


@pytest.fixture
def run(tmp_path):
    """A training checkpoint of a model with two layers and Adam's state."""
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3, bias=False))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    path = tmp_path / "run.ckpt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1}, path)
    return path


class TestOptimizers:
    def ok(self, run, *edits, **more):
        return tk.convert(run, run.parent / "o.pth", section="all", edits=edits, **more)

    def refused(self, run, *edits, says):
        with pytest.raises(SelectionError, match=says) as caught:
            self.ok(run, *edits)
        assert "--skip 'optimizer.*'" in str(caught.value)
        assert not (run.parent / "o.pth").exists()

    def test_state_stays_under_its_number_when_weights_are_renamed(self, run):
        report = self.ok(run, Rename("model.{n}", "net.layers.{n}"), Rename("model", "x"))
        names = {row["name"]: row["from"] for row in report.outputs}
        assert names["net.layers.2.weight"] == "model.2.weight"
        assert names["optimizer.state.4.exp_avg"] == "optimizer.state.4.exp_avg"

    def test_prefixes_and_dropped_state_and_buffers_are_fine(self, run):
        self.ok(run, AddPrefix("a"))
        self.ok(run, Drop("optimizer"), Drop("model.0"), overwrite=True)
        self.ok(run, Drop("num_batches_tracked"), Drop("running_mean"), overwrite=True)
        self.ok(run, Drop("model.0"), skip=["optimizer.*"], overwrite=True)

    def test_what_would_leave_it_permuted_is_refused(self, run):
        self.refused(run, Drop("model.0.bias"), says="got 'model.0.bias' dropped")
        self.refused(run, Keep(("optimizer", "bias")), says="'model.0.weight' dropped")
        self.refused(run, Rename("0", "first"), says="'optimizer.state.0.step' as 'optimizer.sta")
        self.refused(run, Rename("state.{n}", "state.{n+1}"), says="as 'optimizer.state.1.step'")
        self.refused(run, Drop("state.{n}.exp_avg"), says="dropped and other state kept")
        self.refused(run, Swap("exp_avg", "exp_avg_sq"), says="as 'optimizer.state.0.exp_avg_sq'")

    def test_names_in_another_order_are_refused(self, run):
        """The same model would number them as before, and each meet another's state."""
        swapped = [Rename(f"^model.{old}", f"model.{new}") for old, new in (("0", "x"), ("2", "0"))]
        swapped.append(Rename("x", "2"))
        self.refused(run, *swapped, says="'model.0.weight' as 'model.2.weight', a name in another")
        self.ok(run, Rename("model.{n}", "model.{n+1}"))
        self.ok(run, *swapped, overwrite=True, skip=["optimizer.*"])

    def test_changed_parameters_are_refused(self, run):
        def turned(inventory):
            from tensorkeep.edits.shapes import permuted

            inventory.put("model.2.weight", permuted(inventory["model.2.weight"], (1, 0)))

        def added(inventory):
            inventory.put("model.new", Filled(BY_NAME["float32"], (2,)))

        self.refused_call(run, turned, "'model.2.weight' changed")
        self.refused_call(run, added, "'model.new' added")

    def refused_call(self, run, change, says):
        from tensorkeep.edits import following
        from tensorkeep.edits.inventory import Inventory

        with tk.open(run) as ckpt:
            chosen = ckpt.select("all")
            after = Inventory.of("x", chosen)
            following.follow(ckpt, chosen, after)
            change(after)
            with pytest.raises(SelectionError, match=says):
                following.follow(ckpt, chosen, after)

    def test_state_by_name_follows_the_name(self, tmp_path):
        weights = {"a.w": torch.ones(2), "b.w": torch.ones(2)}
        state = {name: {"exp_avg": torch.zeros(2)} for name in weights}
        groups = [{"params": list(weights)}]
        torch.save(
            {"model": weights, "optimizer": {"state": state, "param_groups": groups}},
            tmp_path / "run.ckpt",
        )
        for edit in (Rename("a", "c"), Rename("model.a", "model.c")):
            report = self.ok(tmp_path / "run.ckpt", edit)
            assert "optimizer.state.c.w.exp_avg" in [row["name"] for row in report.outputs]
            (tmp_path / "o.pth").unlink()
        wrong = Rename("state.a", "state.c")
        self.refused(tmp_path / "run.ckpt", wrong, says="as 'optimizer.state.c.w.exp_avg'")

    def test_state_by_name_whose_parameter_is_gone(self, tmp_path):
        weights = {"a.w": torch.ones(2), "b.w": torch.ones(2)}
        state = {"a.w": {"exp_avg": torch.zeros(2)}}
        groups = [{"params": ["b.w"]}]
        torch.save(
            {"model": weights, "optimizer": {"state": state, "param_groups": groups}},
            tmp_path / "run.ckpt",
        )
        self.refused(tmp_path / "run.ckpt", Drop("model.a"), says="'model.a.w' dropped")

    def test_several_groups_and_named_parameters(self, tmp_path):
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        optimizer = torch.optim.SGD(
            [
                {"params": [("1.weight", model[1].weight)]},
                {"params": [("0.weight", model[0].weight)]},
            ],
            momentum=0.9,
        )
        model(torch.randn(3, 2)).sum().backward()
        optimizer.step()
        path = tmp_path / "run.ckpt"
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
        # The biases are not the optimizer's.
        self.ok(path, Drop("bias"))
        (tmp_path / "o.pth").unlink()
        self.refused(path, Drop("model.1.weight"), says="'model.1.weight' dropped")


def test_a_shape_whose_bytes_cannot_be_counted(source, tmp_path):
    class Grow:
        op = "grow"

        def apply(self, inventory):
            inventory.put("huge", Filled(BY_NAME["float32"], (1 << 62, 4)))

    with pytest.raises(Unwritable, match="huge: .*64 bits"):
        tk.convert(source, tmp_path / "a.safetensors", edits=[Grow()])


class TestOtherCheckpoints:
    def test_an_average_is_written_verified_and_told(self, tmp_path):
        a, b = ({"w": torch.randn(5, 3), "n": torch.tensor([at])} for at in range(2))
        torch.save(a, tmp_path / "a.pth")
        torch.save(b, tmp_path / "b.pth")
        to = tmp_path / "c.safetensors"
        report = tk.convert(
            tmp_path / "a.pth", to, edits=[Average((str(tmp_path / "b.pth"),))], verify=True
        )
        assert torch.allclose(load_file(to)["w"], (a["w"] + b["w"]) / 2)
        assert report.effect == "1 made of 2 tensors"
        [step] = json.loads(metadata(to)["tensorkeep.lineage"])
        assert [other["source"] for other in step["others"]] == ["b.pth"]
        assert step["others"][0]["files"][0]["sha256"]

    def test_the_result_does_not_replace_what_it_is_made_of(self, tmp_path):
        for name in "ab":
            torch.save({"w": torch.randn(2)}, tmp_path / f"{name}.pth")
        before = (tmp_path / "b.pth").read_bytes()
        edit = Average((str(tmp_path / "b.pth"),))
        with pytest.raises(StoreError, match="the source itself"):
            tk.convert(tmp_path / "a.pth", tmp_path / "b.pth", edits=[edit], overwrite=True)
        assert (tmp_path / "b.pth").read_bytes() == before

    def test_casts_in_recipes_are_counted_and_state_stays(self, run, tmp_path):
        torch.save({"w": torch.tensor([1e6])}, tmp_path / "a.pth")
        report = tk.convert(tmp_path / "a.pth", tmp_path / "b.pth", edits=[CastTo("w", "float16")])
        assert report.lost[0]["overflow"] == 1
        with pytest.raises(Unwritable):
            tk.convert(
                tmp_path / "a.pth",
                tmp_path / "c.pth",
                edits=[CastTo("w", "float16")],
                on_overflow="error",
            )
        tk.convert(run, tmp_path / "o.pth", section="all", edits=[CastTo("model", "float16")])
        with pytest.raises(SelectionError, match="changed"):
            tk.convert(run, tmp_path / "p.pth", section="all", edits=[Scale("model.0", 2.0)])

    def test_what_is_computed_is_counted_where_it_overflows(self, tmp_path):
        half, big = torch.float16, torch.tensor([6e4, 1.0, 6e-8], dtype=torch.float16)
        torch.save({"w": big, "n": torch.ones(2)}, tmp_path / "a.pth")
        sources = {"scale pattern=w factor=2": (1, 0), "scale pattern=w factor=0.25": (0, 1)}
        sources["average others=a.pth weights=1,0.5"] = (1, 0)
        for line, counts in sources.items():
            line = line.replace("a.pth", str(tmp_path / "a.pth"))
            report = tk.convert(
                tmp_path / "a.pth", tmp_path / "b.pth", edits=[line], overwrite=True
            )
            rows = [(row["overflow"], row["underflow"]) for row in report.lost]
            assert ([row["name"] for row in report.lost], rows) == (["w"], [counts])
            assert any("in float16, in 'w'" in n or "overflows float16" in n for n in report.notes)
        with pytest.raises(Unwritable, match="got 1 beyond 65504"):
            edits = ["scale pattern=w factor=-2", "slice pattern=w end=1"]
            tk.convert(tmp_path / "a.pth", tmp_path / "c.pth", edits=edits, on_overflow="error")
        assert not (tmp_path / "c.pth").exists()
        assert torch.load(tmp_path / "b.pth")["w"].dtype is half

    def test_what_others_were_taken_as_is_said_and_required(self, tmp_path):
        a, b = {"w": torch.ones(2)}, {"model": {"w": torch.zeros(2)}, "ema": {"w": torch.ones(2)}}
        torch.save(a, tmp_path / "a.pth")
        torch.save({**b, "odd": Strange()}, tmp_path / "b.pth")
        given = {"average": [str(tmp_path / "b.pth")], "dry_run": True}
        report = tk.convert(tmp_path / "a.pth", tmp_path / "c.pth", **given)
        assert any("b.pth: section 'model' taken as the weights" in note for note in report.notes)
        assert any("b.pth is suspicious" in note for note in report.notes)
        with pytest.raises(NotSafe, match="b.pth"):
            tk.convert(tmp_path / "a.pth", tmp_path / "c.pth", **given, require="safe")


class Strange:
    """An object of no known class."""
