"""A run that is interrupted goes on as if it had not been."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tensorkeep.checkpoints.keeping import KeepBest, KeepLast
from tensorkeep.errors import (
    AlreadyExists,
    BadArgument,
    DoesNotFit,
    StoreError,
    TensorkeepWarning,
    Unwritable,
)
from tensorkeep.training.run import Run

SGD, ADAM = torch.optim.SGD, torch.optim.AdamW


class Net(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(8, width), nn.BatchNorm1d(width), nn.Dropout(0.3), nn.Linear(width, 8)
        )
        self.head = nn.Linear(8, 8)
        self.head.weight = self.body[3].weight if width == 8 else self.head.weight
        self.register_buffer("scale", torch.rand(8), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x)) * self.scale


def build(optimizer=ADAM, width: int = 16, seed: int = 0):
    torch.manual_seed(seed)
    model = Net(width)
    made = optimizer(model.parameters(), lr=1e-2)
    return model, made, torch.optim.lr_scheduler.OneCycleLR(made, 0.1, total_steps=50)


def train(parts, first: int, last: int, run: Run | None = None) -> None:
    model, optimizer, scheduler = parts
    for step in range(first, last):
        loss = model(torch.randn(4, 8)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if run is not None:
            run.save(step + 1, metrics={"loss": loss.item()})


def opened(path: Path, parts, **options) -> Run:
    run = Run(path, **options)
    model, optimizer, scheduler = parts
    run.track(model=model, optimizer=optimizer, scheduler=scheduler)
    return run


def all_state(parts) -> list[torch.Tensor]:
    model, optimizer, scheduler = parts
    moments = [v for state in optimizer.state.values() for v in state.values() if v is not None]
    rates = [torch.tensor(optimizer.param_groups[0]["lr"]), torch.tensor(scheduler.last_epoch)]
    return [*model.state_dict().values(), model.scale, *moments, *rates, torch.get_rng_state()]


@pytest.mark.parametrize("optimizer", [SGD, ADAM])
@pytest.mark.parametrize("width", [16, 8])
def test_interrupted_equals_uninterrupted(tmp_path, optimizer, width) -> None:
    whole = build(optimizer, width)
    train(whole, 0, 10)
    expected = [each.clone() for each in all_state(whole)]
    first = build(optimizer, width)
    with opened(tmp_path / "run", first) as run:
        assert run.resume() == 0
        train(first, 0, 6, run)
    second = build(optimizer, width, seed=77)
    with opened(tmp_path / "run", second) as run:
        assert run.resume() == 6
        train(second, 6, 10, run)
    got = all_state(second)
    assert len(got) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_any_reader_of_safetensors_opens_the_model(tmp_path) -> None:
    parts = build()
    with opened(tmp_path / "run", parts) as run:
        train(parts, 0, 1, run)
    found = load_file(tmp_path / "run/step-00000001/model.safetensors")
    own = parts[0].state_dict()
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own)
    moments = load_file(tmp_path / "run/step-00000001/optimizer.safetensors")
    assert "body.0.weight.exp_avg" in moments
    manifest = json.loads((tmp_path / "run/step-00000001/manifest.json").read_text())
    assert manifest["step"] == 1
    assert manifest["torch"] == torch.__version__
    assert not list((tmp_path / "run").glob("**/*.pkl"))


def test_a_save_copies_before_it_returns(tmp_path) -> None:
    parts = build()
    with opened(tmp_path / "run", parts) as run:
        train(parts, 0, 1, run)
        saved = parts[0].head.weight.detach().clone()
        with torch.no_grad():
            parts[0].head.weight.fill_(7)
    found = load_file(tmp_path / "run/step-00000001/model.safetensors")
    assert torch.equal(found["head.weight"], saved)


def test_damage_is_named_and_the_one_before_is_taken(tmp_path) -> None:
    parts = build()
    with opened(tmp_path / "run", parts) as run:
        train(parts, 0, 3, run)
    victim = tmp_path / "run/step-00000003/optimizer.safetensors"
    data = bytearray(victim.read_bytes())
    data[-5] ^= 1
    victim.write_bytes(data)
    with opened(tmp_path / "run", build()) as run:
        with pytest.warns(TensorkeepWarning, match=r"step 3 is skipped.*optimizer\.safetensors"):
            assert run.resume() == 2
        assert [step for step, _ in run.skipped] == [3]


def test_when_all_are_damaged_nothing_is_changed(tmp_path) -> None:
    parts = build()
    with opened(tmp_path / "run", parts) as run:
        train(parts, 0, 1, run)
    (tmp_path / "run/step-00000001/manifest.json").write_text("{}")
    fresh = build()
    before = [each.clone() for each in all_state(fresh)]
    with opened(tmp_path / "run", fresh) as run:
        with pytest.warns(TensorkeepWarning), pytest.raises(StoreError, match="1 damaged"):
            run.resume()
        assert all(torch.equal(a, b) for a, b in zip(all_state(fresh), before, strict=True))


def test_policies_keep_and_the_rest_goes(tmp_path) -> None:
    parts = build()
    with opened(tmp_path / "run", parts, keep=KeepLast(2) | KeepBest("score", "max")) as run:
        for step, score in enumerate([1.0, 5.0, 3.0, 2.0, 2.5], start=1):
            run.save(step, metrics={"score": score})
    kept = sorted(path.name for path in (tmp_path / "run").glob("step-*"))
    assert kept == ["step-00000002", "step-00000004", "step-00000005"]


def test_a_damaged_checkpoint_does_not_count_as_kept(tmp_path) -> None:
    parts = build()
    with opened(tmp_path / "run", parts) as run:
        for step in (1, 2, 3):
            run.save(step)
    victim = tmp_path / "run/step-00000003/model.safetensors"
    data = bytearray(victim.read_bytes())
    data[-1] ^= 128
    victim.write_bytes(data)
    with opened(tmp_path / "run", parts, keep=KeepLast(2)) as run:
        with pytest.warns(TensorkeepWarning):
            run.resume()
        run.save(4)
    kept = sorted(path.name for path in (tmp_path / "run").glob("step-*"))
    assert kept == ["step-00000002", "step-00000003", "step-00000004"]


def test_a_second_run_on_the_folder_is_refused(tmp_path) -> None:
    parts = build()
    with opened(tmp_path / "run", parts), pytest.raises(AlreadyExists, match=str(os.getpid())):
        Run(tmp_path / "run")
    Run(tmp_path / "run").close()


def test_a_step_that_exists_is_refused_unless_the_run_went_back(tmp_path) -> None:
    parts = build()
    with opened(tmp_path / "run", parts) as run:
        train(parts, 0, 4, run)
        with pytest.raises(BadArgument, match="after 4"):
            run.save(3)
    with opened(tmp_path / "run", parts) as run:
        with pytest.raises(BadArgument, match="has already"):
            run.save(2)
        assert run.resume(2) == 2
        train(parts, 2, 3, run)
    manifest = json.loads((tmp_path / "run/step-00000003/manifest.json").read_text())
    assert manifest["parent"] == 2
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_a_run_that_went_back_goes_on_from_where_it_then_was(tmp_path) -> None:
    parts = build()
    with opened(tmp_path / "run", parts) as run:
        train(parts, 0, 3, run)
    with opened(tmp_path / "run", parts, keep=KeepLast(2)) as run:
        assert run.resume(1) == 1
        train(parts, 1, 2, run)
    kept = sorted(path.name for path in (tmp_path / "run").glob("step-*"))
    assert kept == ["step-00000002", "step-00000003"]
    with opened(tmp_path / "run", build(), keep=KeepLast(2)) as run:
        assert run.resume() == 2


def test_state_that_is_not_data_is_refused_at_the_first_save(tmp_path) -> None:
    class Strange:
        def state_dict(self) -> dict[str, object]:
            return {"ok": 1, "hooks": [len, lambda: 0]}

        def load_state_dict(self, state: object) -> None: ...

    with Run(tmp_path / "run") as run:
        run.track(thing=Strange())
        with pytest.raises(Unwritable, match=r"thing\.state\.hooks\[0\].*len"):
            run.save(1)
    assert not list((tmp_path / "run").glob("step-*"))
    with Run(tmp_path / "other") as run, pytest.raises(BadArgument, match="load_state_dict"):
        run.track(thing=object())


def test_another_model_is_refused_before_anything_changes(tmp_path) -> None:
    parts = build()
    with opened(tmp_path / "run", parts) as run:
        train(parts, 0, 1, run)
    other = build(width=12)
    before = [each.clone() for each in all_state(other)]
    with opened(tmp_path / "run", other) as run:
        with pytest.raises(DoesNotFit, match=r"model\.body\.0\.weight"):
            run.resume()
        assert all(torch.equal(a, b) for a, b in zip(all_state(other), before, strict=True))


def test_an_error_of_the_writer_is_raised_by_the_next_call(tmp_path, monkeypatch) -> None:
    parts = build()
    run = opened(tmp_path / "run", parts)

    def full(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    run.save(1)
    while run._writer.busy:
        time.sleep(0.01)
    monkeypatch.undo()
    with pytest.raises(StoreError, match="No space"):
        run.save(2)
    run.save(2, wait=True)
    run.save(3)
    run.close()
    with pytest.raises(BadArgument, match="closed"):
        run.save(4)
    with pytest.raises(BadArgument, match="closed"):
        run.resume()
    manifests = [
        json.loads(path.read_text()) for path in (tmp_path / "run").glob("*/manifest.json")
    ]
    # What could not be written is nobody's parent.
    assert sorted((each["step"], each["parent"] or 0) for each in manifests) == [(2, 0), (3, 2)]


def test_reordered_and_regrouped_parameters_get_their_own_moments(tmp_path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    optimizer = ADAM(model.parameters(), lr=0.1)
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    with Run(tmp_path / "run") as run:
        run.track(model=model, optimizer=optimizer)
        run.save(1)
    moments = {n: optimizer.state[p]["exp_avg"].clone() for n, p in model.named_parameters()}
    params = dict(model.named_parameters())
    turned = ADAM([{"params": [params[n]]} for n in reversed(params)], lr=0.5)
    with Run(tmp_path / "run") as run:
        run.track(model=model, optimizer=turned)
        with pytest.warns(TensorkeepWarning) as told:
            run.resume()
    assert [str(each.message).split(":")[0] for each in told] == [
        "optimizer, the order of the parameters in the groups",
        "optimizer, the learning rate",
    ]
    assert all(torch.equal(turned.state[params[n]]["exp_avg"], moments[n]) for n in params)
    assert [group["lr"] for group in turned.param_groups] == [0.1] * 4
