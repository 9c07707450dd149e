"""Tensors of every dtype and layout, and the comparison that every test here ends with."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

import tensorkeep as tk

_CARRIERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}


def _bits(tensor):
    """The contiguous little-endian bytes of a tensor, by torch alone."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    # Many of the newer dtypes cannot be copied; integers of the same size can.
    return tensor.view(_CARRIERS[tensor.dtype.itemsize]).numpy().tobytes()


def _random(dtype, *shape, seed=0):
    """Any bit pattern at all, so that NaN payloads and subnormals are among them."""
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    count = torch.Size(shape).numel() * dtype.itemsize
    data = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=_generator(seed, count))
    if dtype is torch.bool:
        data &= 1
    return data.view(_CARRIERS[dtype.itemsize]).reshape(shape).view(dtype)


def _generator(seed, count):
    return torch.Generator().manual_seed(seed * 1_000_003 + count)


def _flat(value, path=()):
    """Names to tensors, as the names of a nested checkpoint are made."""
    if isinstance(value, torch.Tensor):
        return {".".join(map(str, path)): value}
    if isinstance(value, Mapping):
        pairs = value.items()
    elif isinstance(value, list | tuple):
        pairs = enumerate(value)
    else:
        return {}
    return {
        name: tensor for key, item in pairs for name, tensor in _flat(item, (*path, key)).items()
    }


def _agree(path, loaded=None):
    """Every tensor that `torch.load` finds in `path` is read, bit for bit, and no other."""
    if loaded is None:
        loaded = torch.load(path, weights_only=False)
    expected = _flat(loaded)
    with tk.open(path) as ckpt:
        assert list(ckpt) == list(expected)
        for name, tensor in expected.items():
            ref = ckpt[name]
            assert (ref.dtype, ref.shape) == (str(tensor.dtype)[6:], tuple(tensor.shape)), name
            assert ref.read() == _bits(tensor), name
            if not tensor.is_quantized:
                assert ref.record.requires_grad == tensor.requires_grad, name
            assert ref.record.parameter == isinstance(tensor, torch.nn.Parameter), name
    return expected


@pytest.fixture(scope="session")
def bits():
    return _bits


@pytest.fixture(scope="session")
def random():
    return _random


@pytest.fixture(scope="session")
def flat():
    return _flat


@pytest.fixture(scope="session")
def agree():
    return _agree


@pytest.fixture
def save(tmp_path):
    """`torch.save` to a file of the test's own; gives the path."""

    def save(value, name="model.pth", **options):
        path = tmp_path / name
        torch.save(value, path, **options)
        return path

    return save
