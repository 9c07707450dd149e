"""Files that real frameworks write; each is made once for the whole run, offline."""

from __future__ import annotations

import os
from pathlib import Path

# Read when the frameworks are imported: nothing here may ask a network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch

import tensorkeep as tk

_CARRIERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _bits(tensor):
    tensor = tensor.detach().cpu()
    return tensor.view(_CARRIERS[tensor.dtype.itemsize]).numpy().tobytes()


def _flat(value, path=()):
    if isinstance(value, torch.Tensor):
        return {".".join(map(str, path)): value}
    pairs = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list | tuple):
        pairs = enumerate(value)
    return {
        name: tensor for key, item in pairs for name, tensor in _flat(item, (*path, key)).items()
    }


def _agree(path, expected, *, exactly=True):
    """`path` is safe, whole, and holds these tensors bit for bit, and (`exactly`) no other."""
    assert tk.scan(path).verdict == "safe", [
        finding.what for file in tk.scan(path).files for finding in file.findings
    ]
    report = tk.verify(path)
    assert report.ok, report.damaged
    with tk.open(path) as ckpt:
        assert ckpt.contents.anomalies == []
        assert ckpt.unread("all") == []
        if exactly:
            assert set(ckpt) == set(expected)
        for name, tensor in expected.items():
            ref = ckpt[name]
            assert (ref.dtype, ref.shape) == (str(tensor.dtype)[6:], tuple(tensor.shape)), name
            assert ref.read() == _bits(tensor), name


@pytest.fixture(scope="session")
def bits():
    return _bits


@pytest.fixture(scope="session")
def flat():
    return _flat


@pytest.fixture(scope="session")
def agree():
    return _agree


@pytest.fixture(scope="session")
def room(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("peers")
