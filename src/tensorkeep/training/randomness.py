"""Every generator of random numbers that a process has of its own, as state and back."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch

_PYTHON, _NUMPY, _TORCH, _CUDA = "python", "numpy", "torch", "cuda"


def captured() -> dict[str, Any]:
    """The states of Python's, numpy's (where it was imported) and torch's global generators."""
    return {_PYTHON: python_state(random), **_numpy(), _TORCH: torch.get_rng_state(), **_cuda()}


def _numpy() -> dict[str, Any]:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return {}
    return {_NUMPY: numpy.random.get_state(legacy=False)}


def _cuda() -> dict[str, Any]:
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):  # type: ignore[no-untyped-call]
        return {}
    return {_CUDA: list(torch.cuda.get_rng_state_all())}


def restored(state: dict[str, Any]) -> list[str]:
    """Put every generator where it was; returns what could not be, in words."""
    random.setstate(python_tuple(state[_PYTHON]))
    torch.set_rng_state(state[_TORCH])
    notes = []
    if _NUMPY in state:
        import numpy

        numpy.random.set_state(state[_NUMPY])
    devices = state.get(_CUDA, [])
    if devices and torch.cuda.is_available() and torch.cuda.device_count() == len(devices):
        torch.cuda.set_rng_state_all(devices)
    elif devices:
        have = torch.cuda.device_count() if torch.cuda.is_available() else 0
        notes.append(f"generators of {len(devices)} CUDA devices were saved, here are {have}")
    return notes


def python_state(generator: Any) -> dict[str, Any]:  # noqa: ANN401
    """The state of a `random.Random`, its 625 words as a tensor."""
    version, words, gauss = generator.getstate()
    return {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss}


def python_tuple(state: dict[str, Any]) -> tuple[Any, ...]:
    """What `random.Random.setstate` takes."""
    return state["version"], tuple(state["words"].tolist()), state["gauss"]
