"""What the cases share: writers that take a function which makes the value."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

Case = Callable[[Path], Path]
Make = Callable[[], Any]


def _torch(make: Make, name: str, options: dict[str, Any], folder: Path) -> Path:
    path = folder / name
    torch.manual_seed(0)
    with warnings.catch_warnings():
        # torch says of sparse, nested and quantised layouts that they are new or old.
        warnings.simplefilter("ignore")
        torch.save(make(), path, **options)
    return path


def torch_zip(make: Make, name: str = "model.pth", **options: Any) -> Case:
    """`torch.save` of what `make` makes."""
    return partial(_torch, make, name, options)


def torch_legacy(make: Make, name: str = "model.pth", **options: Any) -> Case:
    """The format before torch 1.6, which torch still writes when asked."""
    return torch_zip(make, name, _use_new_zipfile_serialization=False, **options)


def _pickle(make: Make, name: str, protocol: int, folder: Path) -> Path:
    path = folder / name
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path.write_bytes(pickle.dumps(make(), protocol))
    return path


def pickled(make: Make, protocol: int = 4, name: str = "value.pkl") -> Case:
    """`pickle.dump` of what `make` makes."""
    return partial(_pickle, make, name, protocol)
