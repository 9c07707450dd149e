from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tensorkeep.edits.merging import Average, Ema
from tensorkeep.errors import BadArgument, UnknownTensor


@pytest.fixture
def models(tmp_path):
    """Three state dicts with batch norm, and the paths of the second and the third."""
    states = [nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).state_dict() for _ in range(3)]
    paths = []
    for at, state in enumerate(states[1:]):
        paths.append(str(tmp_path / f"{at}.pth"))
        torch.save(state, paths[-1])
    return states, tuple(paths)


def test_the_mean(edited, models):
    states, paths = models
    got = edited(states[0], Average(paths))
    for name, value in got.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, torch.stack([s[name] for s in states]).mean(0))
        else:
            assert torch.equal(value, states[0][name])


def test_weights(edited, models):
    states, paths = models
    got = edited(states[0], Average(paths, (0.5, 0.25, -1.0)))["0.weight"]
    wanted = 0.5 * states[0]["0.weight"] + 0.25 * states[1]["0.weight"] - states[2]["0.weight"]
    torch.testing.assert_close(got, wanted)


def test_the_moving_average_is_torch_s(edited, models):
    states, paths = models
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for state in states:
        model.load_state_dict(state)
        averaged.update_parameters(model)
    got = edited(states[0], Ema(paths, 0.9))
    for name, value in averaged.module.named_parameters():
        torch.testing.assert_close(got[name], value.detach())


def test_narrow_floats_are_rounded_once(edited, tmp_path):
    one, two = torch.randn(1000).bfloat16(), torch.randn(1000).bfloat16()
    torch.save({"a": two}, tmp_path / "two.pth")
    got = edited({"a": one}, Average((str(tmp_path / "two.pth"),)))["a"]
    assert torch.equal(got, ((one.double() + two.double()) / 2).float().bfloat16())


def test_it_says_what_it_did_not_average(inventory, models):
    states, paths = models
    found = inventory(states[0])
    Average(paths).apply(found)
    assert "1 tensors that are no floats" in found.notes[0]
    assert "batch norm" in found.notes[1]


def test_what_cannot_be(edited, models, tmp_path):
    states, paths = models
    other = str(tmp_path / "other.pth")
    torch.save({**states[1], "more": torch.ones(1)}, other)
    with pytest.raises(UnknownTensor, match="no 'more'"):
        edited(states[0], Average((other,)))
    torch.save({**states[1], "0.weight": torch.ones(1)}, other)
    with pytest.raises(UnknownTensor):
        edited({**states[0], "x": torch.ones(1)}, Average((other,)))
    torch.save({**states[1], "0.weight": torch.ones(5)}, tmp_path / "shape.pth")
    with pytest.raises(BadArgument, match="floats of shape"):
        edited(states[0], Average((str(tmp_path / "shape.pth"),)))
    for make in (
        lambda: Average(()), lambda: Average(("a",), (1.0,)), lambda: Ema(("a",), 1.0),
        lambda: Ema((), 0.5),
    ):  # fmt: skip
        with pytest.raises(BadArgument):
            make()
