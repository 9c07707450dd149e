"""A training function that is killed, really, and resumed: proven, or what differs is named.

Each proof starts children that import torch: what needs no child is tested without one.
"""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tensorkeep.checkpoints.runs import RunFolder
from tensorkeep.errors import AlreadyExists, BadArgument, DidNotFinish
from tensorkeep.training import causes, records
from tensorkeep.training.batches import Loaders
from tensorkeep.training.proof import DIFFERS, Difference, ProofReport
from tensorkeep.training.proving import assert_resumes, prove_resume
from tensorkeep.training.run import Run
from tensorkeep.training.tracking import tracked
from tensorkeep.training.untracked import untracked


def whole(run: Run, steps: int) -> None:
    """Everything is tracked: weights, buffers, moments, rates, the place in the data."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=50)
    data = DataLoader(TensorDataset(torch.randn(12, 4)), batch_size=4, shuffle=True)
    run.track(model=model, optimizer=optimizer, scheduler=scheduler)
    step = run.resume()
    while step < steps:
        for (batch,) in run.batches(data):
            model(batch).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            step += 1
            run.save(step)
            if step == steps:
                break


def forgetful(run: Run, steps: int) -> None:
    """Data comes from a generator that nobody tracks."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    run.track(model=model, optimizer=optimizer)
    for step in range(run.resume(), steps):
        model(torch.from_numpy(rng.random((2, 4), dtype=np.float32))).sum().backward()
        optimizer.step()
        run.save(step + 1)


def unsteady(run: Run, steps: int) -> None:
    """What it saves depends on when it runs."""
    seen = {"at": 0.0}
    run.track(seen=seen)
    for step in range(run.resume(), steps):
        seen["at"] = time.time()
        run.save(step + 1)


def failing(run: Run, steps: int) -> None:
    print("about to fail")
    run.track(seen={})
    run.save(run.resume() + 1)
    raise RuntimeError(f"no step {steps}")


def headless(run: Run, steps: int) -> None:
    for step in range(steps):
        run.save(step + 1)


def test_a_run_that_is_killed_and_resumed_is_proven(tmp_path) -> None:
    report = prove_resume(whole, steps=5, kill_at=[2, 4], folder=tmp_path / "kept")
    assert report.proven, str(report)
    assert [kill.step for kill in report.kills] == [2, 4]
    assert report.kills[0].resumed == 2
    assert report.kills[1].resumed in (3, 4)  # killed while 4 was written
    assert report.step == json.loads(json.dumps(report.to_dict()))["step"] == 5
    assert report.compared == [1, 2, 3, 4, 5]
    assert report.tensors > 20
    newest = [
        RunFolder(tmp_path / "kept" / name).saved()[-1] for name in ("uninterrupted", "killed")
    ]
    assert newest[0].manifest.step == newest[1].manifest.step == 5
    assert records.differences(*newest) == []
    with pytest.raises(AlreadyExists):
        prove_resume(whole, steps=5, folder=tmp_path / "kept")


def test_an_untracked_generator_is_named() -> None:
    with pytest.raises(AssertionError) as raised:
        assert_resumes(forgetful, steps=4, kill_at=[2])
    told = str(raised.value)
    assert told.startswith("differs: ")
    assert "first at step 3: " in told
    assert "rng (numpy.random.Generator), which is not tracked" in told
    assert "optimizer" in told


def test_a_function_that_differs_by_itself_is_told_apart() -> None:
    report = prove_resume(unsteady, steps=3)
    assert report.verdict == "not deterministic"
    assert report.step == 1
    assert report.first == Difference("seen", "dict", "seen.state.at")
    assert report.kills == []
    assert "not deterministic by itself" in report.cause


def test_what_a_function_raises_is_said() -> None:
    with pytest.raises(DidNotFinish, match=r"RuntimeError: no step 3 .*test_proving\.py") as raised:
        prove_resume(failing, steps=3)
    assert "about to fail" in raised.value.output
    assert raised.value.output[-1] == "RuntimeError: no step 3"


def test_a_function_that_does_not_resume_is_refused() -> None:
    with pytest.raises(DidNotFinish, match=r"calls run\.resume\(\)"):
        prove_resume(headless, steps=3)


@pytest.mark.parametrize(
    ("function", "asked"),
    [
        ("no colon", {"steps": 5}),
        ("a:b", {"steps": 1}),
        ("a:b", {"steps": 5, "kills": 0}),
        ("a:b", {"steps": 5, "kill_at": [5]}),
        ("a:b", {"steps": 5, "kill_at": []}),
        (lambda run, steps: None, {"steps": 5}),
    ],
)
def test_what_means_nothing_is_refused_before_anything_runs(function, asked) -> None:
    with pytest.raises(BadArgument):
        prove_resume(function, **asked)


def saved(path, **change):
    """A checkpoint of a model with a buffer, moments and a rate, with something changed in it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=change.get("lr", 0.5))
    model(torch.ones(3, 2)).sum().backward()
    optimizer.step()
    torch.manual_seed(change.get("seed", 1))
    with torch.no_grad():
        if "weight" in change:
            model[0].weight[0, 0] += change["weight"]
        if "mean" in change:
            model[1].running_mean += change["mean"]
    with Run(path) as run:
        run.track(model=model, optimizer=optimizer, own={"zero": change.get("zero", 0.0)})
        run.save(1)
    return RunFolder(path).saved()[0]


@pytest.mark.parametrize(
    ("change", "kind", "where"),
    [
        ({"weight": 1e-6}, "module", "model.0.weight"),
        ({"mean": 1.0}, "buffer", "model.1.running_mean"),
        ({"lr": 0.25}, "optimizer", "optimizer.groups[0].options.lr"),
        ({"seed": 2}, "generators", "rng.torch"),
        ({"zero": -0.0}, "dict", "own.state.zero"),
    ],
)
def test_what_differs_is_named(tmp_path, change, kind, where) -> None:
    one = saved(tmp_path / "a")
    found = records.differences(one, saved(tmp_path / "b", **change))
    assert (found[0].kind, found[0].where) == (kind, where)
    assert records.differences(one, saved(tmp_path / "c")) == []


def test_what_the_caller_holds_and_does_not_track_is_found() -> None:
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = TensorDataset(torch.ones(2, 2))
    data.rng = np.random.default_rng(0)
    loader = DataLoader(data)
    none = Loaders(None, {})
    found = untracked({}, none)
    assert "optimizer (torch.optim.sgd.SGD)" in found
    assert "loader (torch.utils.data.dataloader.DataLoader)" in found
    assert any(each.endswith(".rng (numpy.random.Generator)") for each in found)
    assert (
        untracked(
            {"o": tracked("o", optimizer, {}), "r": tracked("r", data.rng, {})}, none, [loader]
        )
        == []
    )


@pytest.mark.parametrize(
    ("differ", "kinds", "said"),
    [
        (["module"], {"module"}, "no optimizer is tracked"),
        (["generators"], {"module", "optimizer"}, "weights are equal, and random numbers are not"),
        (["buffer"], {"module", "optimizer"}, "batch norm"),
        (["optimizer"], {"module", "optimizer"}, "moments"),
        (["scheduler"], {"module", "optimizer"}, "scheduler"),
        (["loaders"], {"module", "optimizer"}, "position in the data"),
        (["generators", "module"], {"module", "optimizer"}, "a different number"),
        (["loaders", "module"], {"module", "optimizer"}, "position in the data"),
        (["optimizer", "module"], {"module", "optimizer"}, "not tracked: the data"),
    ],
)
def test_the_cause_follows_from_what_differs(differ, kinds, said) -> None:
    report = ProofReport("a:b", 5, 0, DIFFERS)
    report.differences = [Difference("x", kind, "x.y") for kind in differ]
    assert said in causes.likely(report, kinds)


def test_the_cause_names_what_is_held() -> None:
    report = ProofReport("a:b", 5, 0, DIFFERS, untracked=["r (x.Generator)", "l (x.DataLoader)"])
    said = causes.likely(report, {"module"})
    assert "r (x.Generator), which is not tracked: pass it to run.track(...)" in said
    assert "run.batches(loader) for l (x.DataLoader)" in said
