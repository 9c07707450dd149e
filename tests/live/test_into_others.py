"""Optimizers, schedulers and scalers out of a training checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, SequentialLR, StepLR

import tensorkeep as tk
from tensorkeep import errors

# The schedulers here begin after the optimizer did.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of")


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def trained(*, named: bool = False) -> tuple[nn.Module, torch.optim.AdamW]:
    net = model()
    optimizer = torch.optim.AdamW(net.named_parameters() if named else net.parameters(), lr=0.1)
    for _ in range(2):
        net(torch.randn(5, 3)).sum().backward()
        optimizer.step()
    return net, optimizer


def moments(optimizer: torch.optim.Optimizer) -> list[dict[str, torch.Tensor]]:
    return [optimizer.state[p] for group in optimizer.param_groups for p in group["params"]]


def same(a: Any, b: Any) -> bool:
    return len(a) == len(b) and all(
        one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
        for one, two in zip(a, b, strict=True)
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    net, optimizer = trained(named=True)
    scheduler = CosineAnnealingLR(optimizer, 10)
    scheduler.step()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    torch.save(
        {
            "model": net.state_dict(),
            "optimizer": optimizer.state_dict(),
            "lr_scheduler": scheduler.state_dict(),
            "scaler": scaler.state_dict(),
            "epoch": 4,
        },
        tmp_path / "run.ckpt",
    )
    return tmp_path / "run.ckpt"


def test_an_optimizer(path: Path) -> None:
    _, wanted = trained()
    fresh = torch.optim.AdamW(model().parameters(), lr=1.0)
    report = tk.load_into(fresh, path)
    assert same(moments(fresh), moments(wanted))
    assert fresh.param_groups[0]["lr"] < 0.1
    assert (report.section, report.target, report.loaded) == ("optimizer", "AdamW", 12)


def test_its_state_goes_by_name_where_names_are_known(path: Path) -> None:
    _, wanted = trained()
    net = model()
    turned = torch.optim.AdamW(list(net.named_parameters())[::-1])
    tk.load_into(turned, path)
    assert same(moments(turned), moments(wanted)[::-1])
    assert turned.param_groups[0]["param_names"] == ["1.bias", "1.weight", "0.bias", "0.weight"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda net: [*net.parameters()][:3], r"expected 3 parameters, got 4 \(at optimizer, gr"),
        (lambda net: [{"params": [p]} for p in net.parameters()], "expected 4 parameter groups"),
        (lambda net: [*net.parameters()][::-1], r"MISMATCH in shape: \[4, 3\] in 'exp_avg'"),
        (lambda _: [("a", nn.Parameter(torch.ones(1)))] * 1, "expected 1 parameters, got 4"),
    ],
)
def test_another_model_is_refused(path: Path, build: Any, message: str) -> None:
    optimizer = torch.optim.AdamW(build(model()))
    with pytest.raises(errors.DoesNotFit, match=message):
        tk.load_into(optimizer, path)
    assert not optimizer.state
    assert optimizer.param_groups[0]["lr"] == 1e-3


def test_what_fails_late_is_taken_back(path: Path) -> None:
    _, optimizer = trained()
    before = [{k: v.clone() for k, v in each.items()} for each in moments(optimizer)]
    optimizer.param_groups[0]["lr"] = 7.0

    def late(_: torch.optim.Optimizer) -> None:
        raise ValueError("too late")

    optimizer.register_load_state_dict_post_hook(late)
    with pytest.raises(errors.DoesNotFit, match="too late"):
        tk.load_into(optimizer, path)
    assert same(moments(optimizer), before)
    assert optimizer.param_groups[0]["lr"] == 7.0


def test_schedulers_and_scalers(path: Path) -> None:
    _, optimizer = trained()
    scheduler = CosineAnnealingLR(optimizer, 10)
    tk.load_into(scheduler, path)
    assert scheduler.last_epoch == 1
    scaler = torch.amp.GradScaler("cpu")
    tk.load_into(scaler, path)
    assert scaler.get_scale() == 8.0


def test_a_scheduler_of_another_kind(path: Path) -> None:
    scheduler = StepLR(trained()[1], 3)
    before = scheduler.state_dict()
    with pytest.raises(errors.DoesNotFit, match="MISSING: `step_size`"):
        tk.load_into(scheduler, path)
    assert scheduler.state_dict() == before


def test_sections(path: Path, tmp_path: Path) -> None:
    _, optimizer = trained()
    state = optimizer.state_dict()
    torch.save({"optimizer_g": state, "optimizer_d": state}, tmp_path / "gan.pth")
    with pytest.raises(errors.AmbiguousSection, match="section='optimizer_g'"):
        tk.load_into(optimizer, tmp_path / "gan.pth")
    assert tk.load_into(optimizer, tmp_path / "gan.pth", section="optimizer_d").loaded == 12
    with pytest.raises(errors.UnknownSection, match="'optimizer'"):
        tk.load_into(optimizer, path, section="model")
    torch.save(model().state_dict(), tmp_path / "x.pth")
    with pytest.raises(errors.NothingSelected, match="an optimizer's state"):
        tk.load_into(optimizer, tmp_path / "x.pth")


def test_an_optimizer_of_another_class(path: Path) -> None:
    optimizer = torch.optim.SGD(model().parameters(), lr=0.5, momentum=0.9)
    with pytest.raises(errors.DoesNotFit, match="another optimizer; MISSING: `dampening`"):
        tk.load_into(optimizer, path)
    assert not optimizer.state
    assert optimizer.param_groups[0]["momentum"] == 0.9


def test_schedulers_inside_a_scheduler_are_taken_back(tmp_path: Path) -> None:
    def build() -> SequentialLR:
        optimizer = trained()[1]
        return SequentialLR(optimizer, [StepLR(optimizer, 3), StepLR(optimizer, 5)], [4])

    state = build().state_dict()
    state["_schedulers"][0]["step_size"] = 99
    state["_schedulers"][1] = 5
    torch.save({"scheduler": state}, tmp_path / "x.pth")
    scheduler = build()
    with pytest.raises(errors.DoesNotFit, match="a SequentialLR takes"):
        tk.load_into(scheduler, tmp_path / "x.pth")
    assert [each.step_size for each in scheduler._schedulers] == [3, 5]


def test_what_is_for_modules_only(path: Path) -> None:
    with pytest.raises(errors.BadArgument, match="edits, dtype: expected a module.*got a AdamW"):
        tk.load_into(trained()[1], path, edits=[object()], dtype="exact")  # type: ignore[list-item]
