"""Renames: the same bytes, dtype and shape under another name; ambiguous ones are none."""

from __future__ import annotations

import pytest
import torch

import tensorkeep as tk
from tensorkeep.matching import renames


@pytest.fixture
def found(tmp_path):
    opened = []

    def find(old, new):
        refs = []
        for name, value in (("a", old), ("b", new)):
            torch.save(value, tmp_path / name)
            opened.append(tk.open(tmp_path / name))
            refs.append(dict(opened[-1].tensors))
        return renames.find(*refs)

    yield find
    for ckpt in opened:
        ckpt.close()


def test_by_bytes(found):
    a, b, c = torch.randn(3, 4), torch.randn(3, 4), torch.randn(5000)
    changed = c.clone()
    changed[-1] += 1  # behind the first bytes
    result = found({"p": a, "q": b, "r": c}, {"x": b, "y": a, "z": changed})
    assert result.pairs == {"p": "y", "q": "x"}
    assert result.ambiguous == 0


def test_dtype_and_shape_belong_to_it(found):
    a = torch.arange(6, dtype=torch.int32)
    assert not found({"p": a}, {"x": a.clone().view(torch.float32), "y": a.view(2, 3)}).pairs


def test_a_view_equals_its_copy(found):
    a = torch.randn(20, 30).t()
    assert found({"p": a}, {"x": a.contiguous()}).pairs == {"p": "x"}


def test_zeros_are_told_apart_by_numbers_and_last_parts(found):
    zeros, ones = torch.zeros(4), torch.ones(4)
    old = {
        f"layers.{i}.norm.{p}": t for i in range(12) for p, t in (("bias", zeros), ("weight", ones))
    }
    new = {name.replace("layers", "blocks"): t for name, t in reversed(old.items())}
    result = found(old, new)
    assert result.pairs == {name: name.replace("layers", "blocks") for name in old}


def test_in_order(found):
    zeros = torch.zeros(4)
    old = {f"layers.{i}.{n}.bias": zeros for i in range(3) for n in ("norm1", "norm2")}
    new = {f"layers.{i}.{n}.bias": zeros for i in range(3) for n in ("ln_a", "ln_b")}
    result = found(old, new)
    assert result.pairs["layers.2.norm2.bias"] == "layers.2.ln_b.bias"
    assert len(result.pairs) == 6


def test_what_cannot_be_told_is_no_rename(found):
    zeros = torch.zeros(4)
    result = found(
        {"p.bias": zeros, "q.bias": zeros}, {"x.bias": zeros, "y.bias": zeros, "z.bias": zeros}
    )
    assert not result.pairs
    assert result.ambiguous == 2


def test_empty_tensors_are_never_renamed(found):
    assert not found({"p": torch.empty(0)}, {"x": torch.empty(0)}).pairs
