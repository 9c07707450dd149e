"""`tensorkeep runs`, and the other verbs on a run folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import tensorkeep as tk
from tensorkeep.checkpoints.keeping import KeepBest
from tensorkeep.training.run import Run


@pytest.fixture
def run(tmp_path) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    with Run(tmp_path / "exp1", keep=KeepBest("acc", "max", 9)) as made:
        made.track(net=net, optimizer=optimizer, notes={"seen": 5})
        for step, acc in enumerate((0.5, 0.9, 0.7), start=1):
            net(torch.randn(4, 4)).sum().backward()
            optimizer.step()
            made.save(step, metrics={"acc": acc})
    return tmp_path / "exp1"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def test_list_shows_what_there_is(run, cli) -> None:
    shown = cli("runs", "list", run)
    assert shown.code == 0
    assert [line.split()[0] for line in shown.out.splitlines()[1:4]] == ["1", "2", "3"]
    listed = json.loads(cli("runs", "list", "--format", "json", run).out)
    assert [row["metrics"]["acc"] for row in listed["checkpoints"]] == [0.5, 0.9, 0.7]


@pytest.mark.parametrize(
    "victim",
    ["net.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json", "manifest.json"],
)
def test_a_flipped_bit_is_named(run, cli, victim) -> None:
    flip(run / "step-00000002" / victim)
    shown = cli("runs", "verify", "--format", "json", run)
    assert shown.code == 1
    damaged = {row["step"]: row["damaged"] for row in json.loads(shown.out)["checkpoints"]}
    assert not damaged[1]
    assert not damaged[3]
    assert {each["file"] for each in damaged[2]} == {victim}


def test_the_other_verbs_understand_a_run(run, tmp_path) -> None:
    assert tk.inspect(f"{run}@best").path.endswith("step-00000002")
    assert tk.verify(run).checked == "digests"
    assert not tk.diff(f"{run}@1", f"{run}@3").same
    tk.convert(f"{run}@newest", tmp_path / "out.safetensors")
    whole = tk.load(run / "step-00000003" / "net.safetensors")
    flat = tk.load(tmp_path / "out.safetensors")
    assert all(torch.equal(flat[name], whole[name]) for name in whole)


def test_a_run_loads_as_torch_nests_it(run) -> None:
    nested = tk.load(run, nested=True)
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    optimizer = torch.optim.AdamW(net.parameters())
    net.load_state_dict(nested["net"])
    optimizer.load_state_dict(nested["optimizer"])
    assert optimizer.param_groups[0]["lr"] == 0.01
    assert nested["notes"] == {"seen": 5}
    assert nested["step"] == 3


def test_prune_says_first_and_keeps_the_last_good_one(run, cli) -> None:
    dry = cli("runs", "prune", run, "--keep-last", "1")
    assert dry.out.splitlines() == ["would delete step 1", "would delete step 2"]
    assert len(list(run.glob("step-*"))) == 3
    flip(run / "step-00000003" / "net.safetensors")
    assert cli("runs", "prune", run, "--keep-last", "1", "--delete").out == "deleted step 1\n"
    assert sorted(path.name for path in run.glob("step-*")) == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize("arguments", [["list", "nowhere"], ["show", "."], ["verify", "exp1@7"]])
def test_what_is_no_run_is_said(run, cli, arguments, monkeypatch) -> None:
    monkeypatch.chdir(run.parent)
    shown = cli("runs", *arguments)
    assert shown.code == 2
    assert shown.err.startswith("tensorkeep: ")
    assert shown.err.count("\n") == 1


def test_the_rate_is_changed_in_a_checkpoint(run, cli) -> None:
    shown = cli("runs", "set-lr", run, "0.002", "--format", "json")
    assert shown.code == 0, shown.err
    changed = json.loads(shown.out)
    assert (changed["step"], changed["before"], changed["after"]) == (3, [0.01], [0.002])
    assert tk.load(run, nested=True)["optimizer"]["param_groups"][0]["lr"] == 0.002
    assert cli("runs", "verify", run).code == 0
    assert "number" in cli("runs", "set-lr", run, "fast").sentence()
