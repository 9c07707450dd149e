from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from tensorkeep.edits.weight_norm import FoldWeightNorm, UnfoldWeightNorm
from tensorkeep.errors import BadArgument


def normed(module, *, old, dim=0):
    """Weight norm by torch's own functions, the one of today or the one before."""
    if not old:
        return nn.utils.parametrizations.weight_norm(module, dim=dim)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(module, dim=dim)


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize(
    "make", [lambda: nn.Linear(5, 7), lambda: nn.Linear(5, 1), lambda: nn.Conv2d(3, 4, 2)]
)
def test_folded_as_torch_folds(edited, old, dim, make):
    model = nn.Sequential(normed(make(), old=old, dim=dim))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    got = edited(model.state_dict(), FoldWeightNorm())
    assert got.keys() == {"0.weight", "0.bias"}
    if old:
        model(torch.randn(1, 5) if hasattr(model[0], "in_features") else torch.randn(1, 3, 4, 4))
    torch.testing.assert_close(got["0.weight"], model[0].weight.detach())


@pytest.mark.parametrize("old", [True, False])
def test_unfolded_as_torch_does_and_back(edited, old):
    plain = nn.Linear(5, 7)
    state = {name: value.clone() for name, value in plain.state_dict().items()}
    got = edited(state, UnfoldWeightNorm("weight", parametrized=not old))
    wanted = normed(plain, old=old).state_dict()
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value)
    back = edited(got, FoldWeightNorm())
    torch.testing.assert_close(back["weight"], state["weight"])


def test_what_is_no_weight_norm(edited, inventory):
    with pytest.raises(BadArgument, match="a magnitude along one dimension"):
        edited({"a.weight_g": torch.ones(3, 2), "a.weight_v": torch.ones(3, 4)}, FoldWeightNorm())
    found = inventory({"a.weight_g": torch.ones(3)})
    FoldWeightNorm().apply(found)
    assert found.notes == ["no weight norm to fold"]
