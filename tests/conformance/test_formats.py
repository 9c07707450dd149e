"""Every format of ours keeps every promise of a format."""

from __future__ import annotations

import functools
import io

import torch
from safetensors.torch import save

from tensorkeep.formats import safetensors, zips
from tensorkeep.testing import FormatConformance


@functools.cache
def tensors():
    """One of many a dtype, of no element, of no dimension; any bits at all."""
    made = {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3)}
    for number, dtype in enumerate([torch.float32, torch.bfloat16, torch.int64, torch.bool]):
        data = torch.arange(24 * dtype.itemsize, dtype=torch.uint8) * (number + 3)
        data = data % 2 if dtype is torch.bool else data
        made[f"layer.{number}.weight"] = data.view(dtype).reshape(4, 6)
    return made


def expected(values):
    return {
        name: (
            str(tensor.dtype)[6:],
            tuple(tensor.shape),
            tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(),
        )
        for name, tensor in values.items()
    }


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@functools.cache
def large():
    return {"weight": torch.zeros(3 << 20), "bias": torch.ones(16)}


class TestTorchZip(FormatConformance):
    format = zips

    def samples(self):
        base = torch.arange(12, dtype=torch.float32)
        views = {"a": base[2:8], "b": base.view(3, 4).t(), "tied": base[2:8]}
        nested = {"model": tensors(), "epoch": 3, "note": "as it is"}
        inside = {f"model.{name}": tensor for name, tensor in tensors().items()}
        return {
            "flat": (saved(tensors()), expected(tensors())),
            "views": (saved(views), expected(views)),
            "nested": (saved(nested), expected(inside)),
        }

    def large(self):
        return saved(large())


class TestSafetensors(FormatConformance):
    format = safetensors

    def samples(self):
        return {
            "plain": (save(tensors()), expected(tensors())),
            "metadata": (save(tensors(), {"made": "by hand"}), expected(tensors())),
            "nothing": (save({}), {}),
        }

    def large(self):
        return save(large())
