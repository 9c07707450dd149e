"""`diff`: formats against each other, training checkpoints, names, values, bad input."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

import tensorkeep as tk
from tensorkeep.errors import Amplified, BadArgument, NothingSelected, UnknownSection


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 3)
    )


@pytest.fixture
def state():
    return model().state_dict()


@pytest.fixture
def runs(tmp_path):
    """Two checkpoints of one run, the second of a wrapped model."""
    net = model()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for epoch in (1, 2):
        net[2](net[1](net[0](torch.randn(4, 1, 8, 8))).mean((2, 3))).sum().backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] /= 10
        front = "module." * (epoch - 1)
        weights = {f"{front}{name}": tensor for name, tensor in net.state_dict().items()}
        value = {"model": weights, "optimizer": optimizer.state_dict(), "epoch": epoch}
        torch.save(value, tmp_path / f"{epoch}.ckpt")
    return tmp_path / "1.ckpt", tmp_path / "2.ckpt"


def saved(tmp_path, *values):
    paths = []
    for at, value in enumerate(values):
        paths.append(tmp_path / f"{at}.pth")
        torch.save(value, paths[-1])
    return paths


def names(changes):
    return [change.name for change in changes]


def test_formats_compare(tmp_path, state):
    single, shards = tmp_path / "m.safetensors", f"{tmp_path}/shards/"
    torch.save(state, tmp_path / "m.pth")
    torch.save({"state_dict": state}, tmp_path / "m.ckpt")
    torch.save(state, tmp_path / "m.old", _use_new_zipfile_serialization=False)
    save_file(state, single)
    tk.convert(single, shards, shard_size=200)
    for other in (single, shards, tmp_path / "m.ckpt", tmp_path / "m.old"):
        for a, b in ((tmp_path / "m.pth", other), (other, tmp_path / "m.pth")):
            report = tk.diff(a, b)
            assert report.same, report.to_dict()
            assert report.identical == len(state)


def test_what_changed(tmp_path, state):
    other = {name: tensor.clone() for name, tensor in state.items()}
    other["2.weight"] += 0.5
    other["0.bias"] = other["0.bias"].double()
    other["2.bias"] = torch.zeros(7)
    other["3.new"] = torch.ones(2)
    del other["1.running_mean"]
    report = tk.diff(*saved(tmp_path, state, other))
    found = {change.name: change for change in report.changed}
    assert {name: change.what for name, change in found.items()} == {
        "2.weight": "value",
        "0.bias": "dtype",
        "2.bias": "shape",
    }
    assert found["2.weight"].distance.max_abs == pytest.approx(0.5, abs=1e-6)
    assert found["0.bias"].distance.max_abs == 0
    assert found["2.bias"].distance is None
    assert (report.added, report.removed) == (["3.new"], ["1.running_mean"])
    frozen = {module.name: module.frozen for module in report.modules}
    assert frozen == {"": False, "0": False, "1": False, "2": False}
    shape = found["2.bias"].to_dict()
    assert (shape["from"]["shape"], shape["to"]["shape"]) == ([3], [7])
    assert shape["max_abs"] is shape["rel_l2"] is shape["cosine"] is None


def test_modules_add_up(tmp_path, state):
    other = {name: tensor.clone() for name, tensor in state.items()}
    other["2.weight"] *= 1.1
    report = tk.diff(*saved(tmp_path, state, other))
    by_name = {module.name: module for module in report.modules}
    assert [name for name, module in by_name.items() if not module.frozen] == ["", "2"]
    square = sum(t.double().square().sum() for name, t in state.items() if name[0] == "2")
    wanted = (0.1 * state["2.weight"].double()).norm() / square.sqrt()
    assert by_name["2"].rel_l2 == pytest.approx(wanted.item(), rel=1e-5)
    assert by_name["0"].rel_l2 == 0
    assert (by_name[""].tensors, by_name[""].changed) == (len(state), 1)


def test_a_run_by_the_names_of_its_parameters(runs):
    report = tk.diff(*runs)
    assert report.sections == ("all", "all")
    assert report.aligned == [("b", "module.")]
    assert not report.added
    assert not report.removed
    assert "optimizer.state.2.weight.exp_avg" in names(report.changed)
    values = {name: (a, b) for name, a, b in report.values.changed}
    assert values["epoch"] == (1, 2)
    assert values["optimizer.param_groups.0.lr"] == pytest.approx((0.001, 0.0001))
    assert report.optimizers == ["optimizer"]


def test_a_run_against_its_weights(runs, tmp_path):
    tk.convert(runs[0], tmp_path / "weights.safetensors")
    report = tk.diff(runs[0], tmp_path / "weights.safetensors")
    assert report.same
    assert report.sections == ("model", "")
    assert any("optimizer" in note for note in report.notes)
    assert tk.diff(runs[0], tmp_path / "weights.safetensors", section="model").same


def test_section_only_skip(runs):
    assert {n.split(".")[0] for n in names(tk.diff(*runs, section="model").changed)} <= set("012")
    report = tk.diff(*runs, only=["model.2.*"])
    assert set(names(report.changed)) == {"model.2.weight", "model.2.bias"}
    assert not report.values
    report = tk.diff(*runs, skip=["optimizer.*", "epoch", "nothing.*"])
    assert all(name.startswith("model.") for name in names(report.changed))
    assert not report.values
    assert "no name matches 'nothing.*'" in report.notes


def test_metadata_only_reads_no_tensor(tmp_path, state):
    other = {name: tensor + 1 for name, tensor in state.items()}
    a, b = saved(tmp_path, state, other)
    report = tk.diff(a, b, metadata_only=True)
    assert report.same
    assert not report.values_read
    other["2.bias"] = torch.zeros(4)
    report = tk.diff(*saved(tmp_path, state, other), metadata_only=True)
    assert names(report.changed) == ["2.bias"]


def test_tolerance(tmp_path, state):
    other = {name: tensor.clone() for name, tensor in state.items()}
    other["2.weight"] += 1e-4
    paths = saved(tmp_path, state, other)
    assert names(tk.diff(*paths).changed) == ["2.weight"]
    report = tk.diff(*paths, atol=1e-3)
    assert report.same
    assert report.close == 1
    assert names(tk.diff(*paths, atol=1e-5).changed) == ["2.weight"]


def test_renamed_by_their_bytes(tmp_path, state):
    other = {name.replace("2.", "head."): tensor for name, tensor in state.items()}
    report = tk.diff(*saved(tmp_path, state, other))
    assert report.renamed == [("2.weight", "head.weight"), ("2.bias", "head.bias")]
    assert not report.added
    assert not report.removed
    assert not report.same


def test_special_values_are_no_bare_nan(tmp_path):
    a = {"n": torch.tensor([math.nan, 1.0]), "i": torch.tensor([math.inf, 1.0])}
    b = {"n": torch.tensor([0.0, 1.0]), "i": torch.tensor([-math.inf, 1.0])}
    report = tk.diff(*saved(tmp_path, a, b))
    shown = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert {c["name"]: (c["max_abs"], c["odd"]) for c in shown["changed"]} == {
        "n": ("nan", 1),
        "i": ("inf", 1),
    }
    report = tk.diff(*saved(tmp_path, {"n": a["n"], "w": a["i"]}, {"n": a["n"], "w": b["n"]}))
    assert names(report.changed) == ["w"]


def test_values_and_metadata(tmp_path):
    w = torch.ones(2)
    a = {"state_dict": {"w.x": w}, "epoch": 1, "nan": math.nan, "gone": 3, "s": "a", "one": 1}
    b = {"state_dict": {"w.x": w}, "epoch": 2, "nan": math.nan, "come": 3, "s": "a", "one": True}
    report = tk.diff(*saved(tmp_path, a, b))
    assert report.values.changed == [("epoch", 1, 2), ("one", 1, True)]
    assert (report.values.added, report.values.removed) == (["come"], ["gone"])
    assert not report.same
    for at, text in enumerate("ab"):
        save_file({"w": w}, tmp_path / f"{at}.safetensors", metadata={"run": text})
    report = tk.diff(tmp_path / "0.safetensors", tmp_path / "1.safetensors")
    assert report.values.changed == [("metadata.run", "a", "b")]


def test_sparse_tensors_by_their_parts(tmp_path):
    sparse = torch.eye(4).to_sparse()
    a, b = {"s": sparse, "w": torch.ones(2)}, {"s": sparse * 2, "w": torch.ones(2)}
    report = tk.diff(*saved(tmp_path, a, b))
    assert names(report.changed) == ["s.values"]
    assert tk.diff(*saved(tmp_path, a, a)).same


class Thing:
    def __init__(self):
        self.weight = torch.ones(3)


def test_what_cannot_be_read_is_not_called_the_same(tmp_path):
    value = {"w": torch.ones(2), "thing": Thing()}
    report = tk.diff(*saved(tmp_path, value, value), section="all")
    assert not report.differs
    assert not report.same
    assert [name for name, _ in report.not_compared] == ["thing"]
    assert tk.diff(*saved(tmp_path, value, value), section="all", skip=["thing"]).same


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"only": "w"}, BadArgument),
        ({"atol": -1}, BadArgument),
        ({"rtol": math.nan}, BadArgument),
        ({"section": "nope"}, UnknownSection),
        ({"only": ["nothing"]}, NothingSelected),
    ],
)
def test_bad_arguments(runs, options, error):
    with pytest.raises(error):
        tk.diff(*runs, **options)


def test_one_stdin_is_no_two_files():
    with pytest.raises(BadArgument, match="stdin"):
        tk.diff("-", "-")


def test_a_few_bytes_that_are_many_are_refused(tmp_path):
    a, b = saved(tmp_path, *({"w": torch.tensor(float(at)).expand(10**12)} for at in range(2)))
    with pytest.raises(Amplified, match="--skip"):
        tk.diff(a, b)
    assert tk.diff(a, b, metadata_only=True).same
    a, b = saved(tmp_path, *({"w": torch.tensor(float(at)).expand(10**6)} for at in range(2)))
    assert names(tk.diff(a, b).changed) == ["w"]


def test_no_tensors_are_no_empty_success(tmp_path, state):
    a, b = saved(tmp_path, {"epoch": 1}, state)
    for pair in ((a, a), (a, b), (b, a)):
        with pytest.raises(NothingSelected):
            tk.diff(*pair)


def test_torch_is_not_needed(tmp_path, state):
    a, b = saved(tmp_path, state, {name: tensor + 1 for name, tensor in state.items()})
    code = (
        "import sys, tensorkeep as tk; r = tk.diff(*sys.argv[1:]); assert not r.same; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, a, b], check=True)
    code = code.replace("tk.diff(*sys.argv[1:])", "tk.diff(*sys.argv[1:], metadata_only=True)")
    code = code.replace("not r.same", "r.same").replace("'torch'", "'numpy'")
    subprocess.run([sys.executable, "-c", code, a, b], check=True)


def test_a_twin_that_would_run_something_is_said(digits, hostile_digits):
    report = tk.diff(digits, hostile_digits)
    assert report.same
    [note] = [note for note in report.notes if "dangerous" in note]
    assert str(hostile_digits) in note and "os.system" in note
    assert not any("dangerous" in note for note in tk.diff(digits, digits).notes)
