"""Which parts of two checkpoints are compared, and under which names."""

from __future__ import annotations

import pytest
import torch

import tensorkeep as tk
from tensorkeep.errors import NameCollision
from tensorkeep.matching.sides import sides


def optimizer(names, moments):
    groups = [{"params": list(moments), "param_names": names, "lr": 0.1}]
    return {"state": {n: {"exp_avg": t} for n, t in moments.items()}, "param_groups": groups}


@pytest.fixture
def both(tmp_path):
    def opened(first, second, section=None):
        for name, value in (("a", first), ("b", second)):
            torch.save(value, tmp_path / name)
        with tk.open(tmp_path / "a") as a, tk.open(tmp_path / "b") as b:
            return sides(a, b, section)

    return opened


def test_state_follows_the_names_of_parameters(both):
    w, v = torch.ones(2), torch.zeros(3)
    first = {"model": {"x": w, "y": v}, "optimizer": optimizer(["x", "y"], {0: w, 1: v})}
    second = {"model": {"y": v, "x": w}, "optimizer": optimizer(["y", "x"], {0: v, 1: w})}
    a, b = both(first, second)
    assert set(a.tensors) == set(b.tensors)
    assert a.tensors["optimizer.state.x.exp_avg"].shape == (2,)
    assert b.tensors["optimizer.state.x.exp_avg"].shape == (2,)


def test_names_that_one_side_does_not_know_are_not_used(both):
    w, v = torch.ones(2), torch.zeros(2)
    first = {"model": {"x": w, "z": v}, "optimizer": optimizer(["x"], {0: w})}
    second = {"model": {"x": w, "z": v}, "optimizer": optimizer([], {0: w})}
    a, b = both(first, second)
    assert "optimizer.state.0.exp_avg" in a.tensors
    assert "optimizer.state.0.exp_avg" in b.tensors


def test_a_tensor_is_never_lost_to_a_name(both):
    w = torch.ones(2)
    value = {"model": {"x": w}, "optimizer": optimizer(["1"], {0: w})}
    value["optimizer"]["state"][1] = {"exp_avg": torch.zeros(3)}
    with pytest.raises(NameCollision, match="--section"):
        both(value, value)


def test_wrappers_are_taken_off_in_each_part(both):
    w = torch.ones(2)
    first = {"state_dict": {"module.x": w}, "ema": {"x": w}, "epoch": 1}
    second = {"state_dict": {"x": w}, "ema": {"module.x": w}, "epoch": 1}
    a, b = both(first, second, "all")
    assert set(a.tensors) == set(b.tensors) == {"state_dict.x", "ema.x"}
    assert a.dropped == b.dropped == ["module."]


def test_state_dicts_in_and_out_of_a_section(both):
    w = torch.ones(2)
    a, b = both({"model": {"l.x": w}, "epoch": 3}, {"l.x": w})
    assert set(a.tensors) == set(b.tensors) == {"l.x"}
    a, b = both({"model": {"l.x": w}, "epoch": 3}, {"l.x": w}, "model")
    assert set(a.tensors) == set(b.tensors)
    assert any("no sections" in note for note in b.notes)
