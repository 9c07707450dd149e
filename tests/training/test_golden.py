"""A run that an older tensorkeep wrote is resumed for ever."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import tensorkeep as tk


@pytest.mark.parametrize("version", [1])
def test_golden_runs_are_resumed(root: Path, tmp_path: Path, version: int) -> None:
    golden = root / "tests" / "corpus" / "runs" / f"version_{version}"
    shutil.copytree(golden, tmp_path / "run")
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    seen: dict[object, object] = {}
    with tk.Run(tmp_path / "run") as run:
        run.track(model=model, optimizer=optimizer, scheduler=scheduler, seen=seen)
        assert (run.resume(), run.epoch) == (7, 2)
    assert seen == {"tokens": 512, "history": [0.5, float("inf")], (1, 2): {"a", "b"}}
    assert scheduler.last_epoch == 7
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)
    with tk.open(golden) as ckpt:
        moments = optimizer.state[model[0].weight]
        assert torch.equal(moments["exp_avg"], ckpt["optimizer.state.0.exp_avg"].torch())
        assert torch.equal(model[1].running_var, ckpt["model.1.running_var"].torch())
    assert torch.initial_seed() == 0
