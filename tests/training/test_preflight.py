"""What differs from the run that was saved is said before the first step, each with both values."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.utils.data import DataLoader

from tensorkeep.errors import BadArgument, Damaged, DoesNotFit, TensorkeepWarning
from tensorkeep.training.learning_rate import set_lr
from tensorkeep.training.run import Run

SCHEDULES = {
    "none": None,
    "cosine": lambda o: CosineAnnealingLR(o, 20),
    "lambda": lambda o: LambdaLR(o, lambda step: 0.9**step),
    "one cycle": lambda o: OneCycleLR(o, o.param_groups[0]["lr"], total_steps=20),
    "sequence": lambda o: SequentialLR(o, [LinearLR(o), StepLR(o, 3)], [5]),
    "plateau": lambda o: ReduceLROnPlateau(o, patience=0),
}


def build(lr=0.1, schedule=None, optimizer=torch.optim.AdamW, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    made = optimizer(model.parameters(), lr=lr, **options)
    parts = {"model": model, "optimizer": made}
    return parts | ({} if schedule is None else {"scheduler": schedule(made)})


def steps(parts, count=2) -> None:
    for _ in range(count):
        parts["model"](torch.ones(2, 4)).sum().backward()
        parts["optimizer"].step()
        scheduler = parts.get("scheduler")
        if scheduler is not None:
            scheduler.step(*([1.0] if isinstance(scheduler, ReduceLROnPlateau) else []))


def saved(path: Path, parts, step=2) -> None:
    with Run(path) as run:
        run.track(**parts)
        steps(parts)
        run.save(step)


def told(path: Path, parts, accept=(), save=None, change=None) -> list[str]:
    """What resume warns of; then perhaps `change()` and another checkpoint."""
    with Run(path) as run:
        run.track(**parts)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert run.resume(accept=accept) > 0
        if change is not None:
            change()
        if save is not None:
            steps(parts, 1)
            run.save(save)
    assert all(each.category is TensorkeepWarning for each in caught)
    assert all(each.filename == __file__ for each in caught)
    return [str(each.message) for each in caught]


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_same_run_is_told_nothing(tmp_path, schedule) -> None:
    saved(tmp_path, build(schedule=schedule))
    assert told(tmp_path, build(schedule=schedule), save=3) == []
    assert told(tmp_path, build(schedule=schedule)) == []


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_learning_rate_that_is_overridden_is_told_until_it_is_decided(tmp_path, schedule) -> None:
    saved(tmp_path, build(0.1, schedule))
    (text, *more) = told(tmp_path, build(0.02, schedule), save=3)
    assert "learning rate: 0.1 in the checkpoint, 0.02 now" in text
    assert 'tk.set_lr(optimizer, scheduler, 0.02, mode="base") after resume()' in text
    assert 'resume(accept=("lr",))' in text
    assert more == []
    # The checkpoint of a run that kept the old rate has the old rate.
    assert told(tmp_path, build(0.02, schedule), accept=("lr",), save=4) == []
    assert len(told(tmp_path, build(0.02, schedule))) == 1


@pytest.mark.parametrize("kind", [each for each in SCHEDULES if each != "plateau"])
def test_a_learning_rate_that_was_set_is_told_no_more(tmp_path, kind) -> None:
    schedule = SCHEDULES[kind]
    saved(tmp_path, build(0.1, schedule))
    parts = build(0.02, schedule)
    optimizer, scheduler = parts["optimizer"], parts.get("scheduler")
    told(tmp_path, parts, save=3, change=lambda: set_lr(optimizer, scheduler, 0.02))
    assert told(tmp_path, build(0.02, schedule)) == []


def test_a_changed_lambda_is_told(tmp_path) -> None:
    saved(tmp_path, build(schedule=lambda o: LambdaLR(o, lambda step: 0.9**step)))
    other = build(schedule=lambda o: LambdaLR(o, lambda step: 0.8**step))
    (text,) = told(tmp_path, other)
    assert text.startswith("scheduler, a function of the schedule: sha256:")
    assert "lambda" not in (tmp_path / "step-00000002/state.json").read_text().replace(
        "lambdas", ""
    ).replace("LambdaLR", "")


def test_options_and_schedules_that_are_overridden_are_told(tmp_path) -> None:
    saved(tmp_path, build(schedule=lambda o: CosineAnnealingLR(o, 20), weight_decay=0.1))
    other = build(schedule=lambda o: CosineAnnealingLR(o, 40), weight_decay=0.3)
    first, second = told(tmp_path, other, save=3)
    assert "optimizer, weight_decay, an option of the optimizer: 0.1 in the" in first
    assert "scheduler, T_max, the schedule: 20 in the checkpoint, 40 now" in second
    other = build(schedule=lambda o: CosineAnnealingLR(o, 40), weight_decay=0.3)
    assert len(told(tmp_path, other)) == 2
    assert told(tmp_path, other, accept=("options", "schedule")) == []


def edited(path: Path, change) -> None:
    """The newest checkpoint as a run of other circumstances would have written it."""
    from tensorkeep.training import run as module

    state = module.Run._state

    def other(self, package):
        change(package.fingerprint)
        return state(self, package)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Run, "_state", other)
        saved(path, build())


def test_world_size_flags_and_versions_are_told(tmp_path) -> None:
    def change(found) -> None:
        found["world_size"]["the run"] = 8
        found["flags"]["cudnn.benchmark"] = "on"
        found["versions"]["torch"] = "1.0"

    edited(tmp_path, change)
    texts = told(tmp_path, build())
    assert [text.split(" in the")[0] for text in texts] == [
        "the run, the number of processes: 8",
        "cudnn.benchmark, a flag of torch: on",
        "torch, the version: 1.0",
    ]
    assert told(tmp_path, build(), accept=("world_size", "flags", "versions")) == []


def test_bytecode_of_another_python_is_not_compared(tmp_path) -> None:
    def change(found) -> None:
        found["versions"]["python"] = "3.1.0"
        found["lambdas"]["optimizer"] = ["sha256:00"]

    edited(tmp_path, change)
    (text,) = told(tmp_path, build())
    assert text.startswith("python, the version: 3.1.0")


class AdamW(torch.optim.AdamW):
    """One of the user's own, of the same name."""


def test_another_optimizer_of_the_same_name_is_refused_and_nothing_changes(tmp_path) -> None:
    saved(tmp_path, build())
    other = build(optimizer=AdamW)
    before = [each.clone() for each in other["model"].state_dict().values()]
    with pytest.raises(DoesNotFit, match=r"torch\.optim\.AdamW, as in.*got .*\.AdamW\. .*accept"):
        told(tmp_path, other)
    after = other["model"].state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert not other["optimizer"].state
    assert told(tmp_path, other, accept=("optimizer",)) == []


def test_moments_of_another_dtype_are_refused(tmp_path) -> None:
    saved(tmp_path, build())
    other = build()
    steps(other, 1)
    for state in other["optimizer"].state.values():
        state["exp_avg"] = state["exp_avg"].double()
    with pytest.raises(DoesNotFit, match=r"exp_avg float32.*in the checkpoint.*exp_avg float64"):
        told(tmp_path, other)
    assert told(tmp_path, other, accept=("moments",)) == []


def test_parameters_of_another_dtype_are_told_and_the_moments_stay(tmp_path) -> None:
    def named(dtype: torch.dtype):
        param = nn.Parameter(torch.ones(4, dtype=dtype))
        return param, torch.optim.AdamW([("w", param)], lr=0.1)

    param, optimizer = named(torch.float32)
    with Run(tmp_path) as run:
        run.track(optimizer=optimizer)
        param.sum().backward()
        optimizer.step()
        run.save(1)
    param, optimizer = named(torch.bfloat16)
    (text,) = told(tmp_path, {"optimizer": optimizer})
    assert "the dtype of the parameters: float32 in the checkpoint, bfloat16 now" in text
    assert optimizer.state[param]["exp_avg"].dtype == torch.float32


def loader(**options) -> DataLoader:
    return DataLoader([1.0] * 8, **options)


def test_a_loader_that_changed_between_epochs_is_told_once(tmp_path) -> None:
    with Run(tmp_path) as run:
        list(run.batches(loader(batch_size=4)))
        run.save(1)
    with Run(tmp_path) as run:
        run.resume()
        with pytest.warns(TensorkeepWarning, match="train, the batch size: 4 in the .* 2 now"):
            list(run.batches(loader(batch_size=2)))
        list(run.batches(loader(batch_size=1)))
        run.save(2)
    with Run(tmp_path) as run:
        run.resume()  # and no loader is asked for: what is known of it stays known
        run.save(3)
    with Run(tmp_path) as run:
        run.resume(accept="batch_size")
        list(run.batches(loader(batch_size=2)))
    found = json.loads((tmp_path / "step-00000003/state.json").read_text())["fingerprint"]
    assert found["batch_size"] == {"train": 1}


def test_what_is_no_difference_cannot_be_accepted(tmp_path) -> None:
    with Run(tmp_path) as run, pytest.raises(BadArgument, match=r"one of world_size.*got 'rate'"):
        run.resume(accept=("rate",))


def test_a_checkpoint_of_before_has_nothing_to_compare(tmp_path) -> None:
    edited(tmp_path, lambda found: found.clear())
    assert told(tmp_path, build(0.7)) == []


@pytest.mark.parametrize("spoil", [{"lr": [1]}, {"moments": {"optimizer": 7}}])
def test_a_fingerprint_that_we_never_write_is_damage_and_nothing_changes(tmp_path, spoil) -> None:
    edited(tmp_path, lambda found: found.update(spoil))
    parts = build()
    with Run(tmp_path) as run:
        run.track(**parts)
        with pytest.raises((Damaged, DoesNotFit)):
            run.resume(2)
    assert not parts["optimizer"].state
