"""Names that wrappers and layers changed are brought back, and what cannot be is not guessed."""

from __future__ import annotations

import pytest
from torch import nn

from tensorkeep.matching.finding import find
from tensorkeep.matching.rules import words
from tensorkeep.matching.specs import Spec

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def specs(module):
    """What its state dict looks like from outside."""
    tensors = (module if isinstance(module, dict) else module.state_dict()).items()
    return {n: Spec(str(t.dtype).removeprefix("torch."), tuple(t.shape)) for n, t in tensors}


class Block(nn.Module):
    def __init__(self, wide=8):
        super().__init__()
        self.attention = nn.ModuleDict({n: nn.Linear(wide, wide) for n in ("q", "k", "v")})
        self.LayerNorm = nn.LayerNorm(wide)
        self.fc1, self.fc2 = nn.Linear(wide, 32), nn.Linear(32, wide)


class Net(nn.Module):
    def __init__(self, classes=10, depth=3):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.layers = nn.ModuleList(Block() for _ in range(depth))
        self.norm, self.bn = nn.LayerNorm(8), nn.BatchNorm1d(8)
        self.head = nn.Linear(8, classes)


NET = specs(Net())


def under(prefix, names):
    return {prefix + name: spec for name, spec in names.items()}


def renamed(names, *changes):
    found = {}
    for name, spec in names.items():
        for old, new in changes:
            name = name.replace(old, new)
        found[name] = spec
    return found


def rules(match):
    return [words(edit) for edit in match.rules]


LEADING = [
    "module", "model", "net", "network", "state_dict", "student", "teacher", "ema", "ema_model",
    "encoder", "backbone", "base_model.model", "generator", "_forward_module", "_orig_mod",
    "_fsdp_wrapped_module", "_checkpoint_wrapped_module",
]  # fmt: skip
STACKED = [
    "_orig_mod.module", "module._orig_mod", "state_dict.model", "_forward_module.module.model",
    "model.net.module", "student.backbone", "_orig_mod._fsdp_wrapped_module.module",
]  # fmt: skip


@pytest.mark.parametrize("prefix", LEADING + STACKED)
def test_a_leading_prefix_is_one_rule_both_ways(prefix):
    wrapped = under(f"{prefix}.", NET)
    assert rules(find(wrapped, NET)) == [f"strip `{prefix}.`"] and find(wrapped, NET).fits
    assert rules(find(NET, wrapped)) == [f"add `{prefix}.`"] and find(NET, wrapped).fits


def test_what_fits_needs_no_rule():
    match = find(NET, NET)
    assert match.fits and match.rules == [] and match.coverage == {"tensors": 1.0, "bytes": 1.0}


def test_several_equals_are_named_and_none_is_taken():
    match = find(under("student.", NET) | under("teacher.", NET), NET)
    assert not match.fits and match.rules == [] and match.filled == 0
    assert [words(edit) for edit in match.rivals] == ["strip `student.`", "strip `teacher.`"]


def test_shapes_alone_make_no_rule():
    match = find(renamed(NET, ("fc1", "up"), ("fc2", "down")), NET)
    assert match.rules == [] and not match.fits
    assert ("layers.0.up.weight", "layers.0.fc1.weight") in match.by_shape_only
    assert ("layers.2.down.bias", "layers.2.fc2.bias") not in match.names.items()
