"""`load_into` a module: names, shapes, dtypes, ties; and that a load that fails changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_nets import Net, Tied, equal, net
from torch import nn

import tensorkeep as tk
from tensorkeep import errors
from tensorkeep.edits.names import Drop, Rename
from tensorkeep.edits.recipe import Recipe, write_recipe


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("into") / "run.pth"
    torch.save({"model": nn.DataParallel(net()).state_dict(), "epoch": 3}, path)
    return path


def test_values_go_into_the_memory_that_is_there(wrapped: Path) -> None:
    model = Net()
    before = {name: (id(p), p.data_ptr()) for name, p in model.named_parameters()}
    report = tk.load_into(model, wrapped)
    assert equal(model, net())
    assert before == {name: (id(p), p.data_ptr()) for name, p in model.named_parameters()}
    assert report.fits
    assert report.loaded == report.tensors == 20
    assert report.coverage == {"tensors": 1.0, "parameters": 1.0, "bytes": 1.0}
    assert str(report).startswith("20 of 20 tensors loaded after: strip `module.`. 100% of the")
    assert json.loads(json.dumps(report.to_dict()))["rules"] == [
        {"op": "strip", "prefix": "module."}
    ]


def test_without_fix_names_must_agree(wrapped: Path) -> None:
    with pytest.raises(errors.DoesNotFit, match=r"19 MISSING in the file: .*20 UNEXPECTED"):
        tk.load_into(Net(), wrapped, fix=False)


def test_another_head_is_named_and_left_alone_if_not_strict(wrapped: Path) -> None:
    model, first = Net(3), Net(3)
    model.load_state_dict(first.state_dict())
    with pytest.raises(errors.DoesNotFit, match=r"2 MISMATCH in shape: `head.weight`") as caught:
        tk.load_into(model, wrapped)
    assert equal(model, first)
    assert "tensorkeep match" in str(caught.value)
    report = caught.value.report
    assert [one.name for one in report.mismatched] == ["head.weight", "head.bias"]  # type: ignore[attr-defined]
    with pytest.raises(errors.DoesNotFit, match="MISMATCH"):
        tk.load_into(model, wrapped, strict=False, shapes="refuse")
    done = tk.load_into(model, wrapped, strict=False)
    assert "2 stay at their initial value: `head.weight`, `head.bias` (10 classes" in str(done)
    assert torch.equal(model.head.weight, first.head.weight)
    assert torch.equal(model.embed.weight, net().embed.weight)
    assert 0.98 < done.coverage["bytes"] < 0.99
    with pytest.raises(errors.DoesNotFit, match=r"99% of the bytes of Net, got 98.\d%"):
        tk.load_into(model, wrapped, strict=False, min_coverage=0.99)


def test_a_file_of_something_else_is_no_success_even_if_not_strict(tmp_path: Path) -> None:
    save_file({"other.weight": torch.ones(3)}, tmp_path / "x.safetensors")
    model = net()
    with pytest.raises(errors.DoesNotFit, match=r"50% of the bytes of Net, got 0%; MISSING"):
        tk.load_into(model, tmp_path / "x.safetensors", strict=False)
    assert equal(model, net())


def test_what_would_mend_shapes_is_hinted_as_match_does_it(tmp_path: Path) -> None:
    good = net().state_dict()
    wrong = {f"module.{name}": tensor for name, tensor in good.items()}
    wrong["module.embed.weight"] = wrong["module.embed.weight"].T.contiguous()
    torch.save(wrong, path := tmp_path / "x.pth")
    model = net(seed=1)
    said = "`embed.weight` would fit after `--edit 'transpose pattern=^embed.weight$'`: transposed"
    with pytest.raises(errors.DoesNotFit) as info:
        tk.load_into(model, path)
    assert said in str(info.value) and "match(...).mended" in str(info.value)
    report = tk.load_into(model, path, strict=False)
    found = tk.match(path, model)
    assert said in str(report) and said in str(found)
    assert report.hints == found.hints
    assert report.to_dict()["hints"] == found.to_dict()["hints"]
    tk.load_into(model, path, recipe=found.mended)
    assert equal(model, net())


def test_shapes_refused_by_themselves_are_what_was_expected(tmp_path: Path) -> None:
    torch.save(net(4).state_dict(), tmp_path / "x.pth")
    with pytest.raises(errors.DoesNotFit, match="the shapes of Net, got 2 MISMATCH in shape"):
        tk.load_into(net(), tmp_path / "x.pth", strict=False, shapes="refuse")
    save_file({"weight": torch.ones(4, 5)}, tmp_path / "x.safetensors")
    with pytest.raises(errors.DoesNotFit, match="the shapes of Linear, got 1 MISMATCH in shape"):
        tk.load_into(nn.Linear(3, 4), tmp_path / "x.safetensors", strict=False, shapes="refuse")


def test_shape_alone_fills_nothing(tmp_path: Path) -> None:
    save_file({"kernel": torch.ones(4, 3)}, tmp_path / "x.safetensors")
    model = nn.Sequential(nn.Linear(3, 4, bias=False))
    with pytest.raises(errors.DoesNotFit, match="MISSING"):
        tk.load_into(model, tmp_path / "x.safetensors", strict=False)


def test_edits_and_recipes_come_first(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.ones(4, 3), "b": torch.ones(1)}, tmp_path / "x.pth")
    edits = (Rename("^a", "layer"), Drop("^b$"))
    model = nn.ModuleDict({"layer": nn.Linear(3, 4, bias=False)})
    with pytest.raises(errors.DoesNotFit):
        tk.load_into(model, tmp_path / "x.pth", fix=False)
    tk.load_into(model, tmp_path / "x.pth", edits=edits, fix=False)
    assert torch.equal(model["layer"].weight, torch.ones(4, 3))
    write_recipe(tmp_path / "r.toml", Recipe(edits))
    other = nn.ModuleDict({"layer": nn.Linear(3, 4, bias=False)})
    tk.load_into(other, tmp_path / "x.pth", recipe=tmp_path / "r.toml", fix=False)
    assert equal(model, other)


class TestDtypes:
    def test_casts_count_what_they_lose(self, tmp_path: Path) -> None:
        given = torch.tensor([[1.0, 70000.0, 1e-9], [0.0, float("inf"), -70000.0]])
        save_file({"weight": given}, tmp_path / "x.safetensors")
        model = nn.Linear(3, 2, bias=False).half()
        report = tk.load_into(model, tmp_path / "x.safetensors")
        assert torch.equal(model.weight, given.half())
        (one,) = report.cast
        assert (one.file, one.model, one.elements) == ("float32", "float16", 6)
        assert (one.overflowed, one.underflowed) == (2, 1)
        assert "2 values too large for it, in `weight`; 1 values became zero" in str(report)

    def test_exact_refuses(self, tmp_path: Path) -> None:
        save_file({"weight": torch.ones(2, 3)}, tmp_path / "x.safetensors")
        model = nn.Linear(3, 2, bias=False).half()
        with pytest.raises(errors.DoesNotFit, match="MISMATCH in dtype: float32"):
            tk.load_into(model, tmp_path / "x.safetensors", dtype="exact")

    @pytest.mark.parametrize(("dtype", "is_now"), [("keep", "float32"), ("bfloat16", "bfloat16")])
    def test_the_module_takes_another(self, tmp_path: Path, dtype: str, is_now: str) -> None:
        save_file({"weight": torch.ones(2, 3)}, tmp_path / "x.safetensors")
        model = nn.Linear(3, 2, bias=False).half()
        parameter = model.weight
        tk.load_into(model, tmp_path / "x.safetensors", dtype=dtype)
        assert model.weight is parameter
        assert str(parameter.dtype) == f"torch.{is_now}"
        assert torch.equal(parameter, torch.ones(2, 3, dtype=parameter.dtype))

    def test_integers_do_not_become_floats(self, tmp_path: Path) -> None:
        save_file({"weight": torch.ones(2, 3, dtype=torch.int8)}, tmp_path / "x.safetensors")
        with pytest.raises(errors.DoesNotFit, match="MISMATCH in dtype: int8"):
            tk.load_into(nn.Linear(3, 2, bias=False), tmp_path / "x.safetensors")


class TestTies:
    def test_one_name_fills_both(self, tmp_path: Path) -> None:
        save_file({"embed.weight": torch.ones(5, 3)}, tmp_path / "x.safetensors")
        model = Tied()
        report = tk.load_into(model, tmp_path / "x.safetensors")
        assert report.tied == {"head.weight": "embed.weight"}
        assert model.head.weight is model.embed.weight
        assert torch.equal(model.head.weight, torch.ones(5, 3))

    @pytest.mark.parametrize("mmap", [False, True])
    def test_tied_on_meta_is_tied_again(self, tmp_path: Path, mmap: bool) -> None:
        torch.save(Tied().state_dict(), tmp_path / "x.pth")
        with tk.empty_weights():
            model = Tied()
        tk.load_into(model, tmp_path / "x.pth", mmap=mmap)
        assert model.head.weight is model.embed.weight

    @pytest.mark.parametrize("mmap", [False, True])
    def test_what_only_the_file_ties_stays_apart(self, tmp_path: Path, mmap: bool) -> None:
        torch.save(Tied().state_dict(), tmp_path / "x.pth")
        with tk.empty_weights():
            model = Tied(tie=False)
        tk.load_into(model, tmp_path / "x.pth", mmap=mmap)
        assert torch.equal(model.head.weight, model.embed.weight)
        with torch.no_grad():
            model.head.weight += 1
        assert not torch.equal(model.head.weight, model.embed.weight)

    def test_one_parameter_and_two_tensors(self, tmp_path: Path) -> None:
        torch.save(Tied(tie=False).state_dict(), tmp_path / "x.pth")
        with pytest.raises(errors.DoesNotFit, match="are one parameter, and two tensors"):
            tk.load_into(Tied(), tmp_path / "x.pth")
        assert "the first was taken" in str(tk.load_into(Tied(), tmp_path / "x.pth", strict=False))


def test_assign_replaces_and_keeps_what_parameters_say(wrapped: Path) -> None:
    model = Net()
    model.embed.weight.requires_grad_(requires_grad=False)
    model.embed.weight.note = "kept"  # type: ignore[attr-defined]
    old = model.embed.weight
    tk.load_into(model, wrapped, assign=True)
    assert equal(model, net())
    assert model.embed.weight is not old
    assert not model.embed.weight.requires_grad
    assert model.head.weight.requires_grad
    assert model.embed.weight.note == "kept"  # type: ignore[attr-defined]
    tokens = torch.arange(4)
    assert torch.equal(model.eval()(tokens), net().eval()(tokens))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shapes": "slice"}, "shapes: expected 'refuse' or 'skip'"),
        ({"min_coverage": 50}, "min_coverage: expected a share between 0 and 1"),
        ({"dtype": "float31"}, "dtype: expected 'cast', 'exact', 'keep' or a floating"),
        ({"dtype": "int8"}, "dtype: expected"),
        ({"device": "nowhere"}, "device: expected a device"),
        ({"device": "meta"}, "device meta: expected a device that is here"),
        ({"device_map": 3}, "device_map: expected a dict of prefixes"),
        ({"recipe": 3}, "recipe: expected a path or a Recipe"),
        ({"edits": "strip"}, "edits: expected a list of edits"),
        ({"lazy": True, "assign": True}, "lazy, assign: expected one of them"),
        ({"section": "ema"}, "expected one of"),
    ],
)
def test_options_that_mean_nothing(wrapped: Path, options: dict[str, object], message: str) -> None:
    model = net(seed=1)
    with pytest.raises(tk.TensorkeepError, match=message):
        tk.load_into(model, wrapped, **options)  # type: ignore[arg-type]
    assert equal(model, net(seed=1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without one")
def test_a_device_that_is_not_here(wrapped: Path) -> None:
    with pytest.raises(errors.BadArgument, match="device cuda: expected a device that is here"):
        tk.load_into(Net(), wrapped, device="cuda")


@pytest.mark.parametrize("target", [3, Net, {"a": 1}, None])
def test_targets_that_are_none(wrapped: Path, target: object) -> None:
    with pytest.raises(errors.BadArgument, match="load_into: expected a module, an optimizer"):
        tk.load_into(target, wrapped)


def test_nothing_to_fill_and_nothing_to_fill_it_with(tmp_path: Path, wrapped: Path) -> None:
    with pytest.raises(errors.NothingSelected, match="ReLU: expected parameters or buffers"):
        tk.load_into(nn.ReLU(), wrapped)
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(errors.NothingSelected):
        tk.load_into(Net(), tmp_path / "x.pth")


def test_an_open_checkpoint_stays_open(wrapped: Path) -> None:
    with tk.open(wrapped) as ckpt:
        for _ in range(2):
            model = Net()
            tk.load_into(model, ckpt)
            assert equal(model, net())
    with pytest.raises(tk.TensorkeepError, match="closed"):
        tk.load_into(model, ckpt)
