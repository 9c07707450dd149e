"""The same state dict in every container and protocol that its writers know."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from cases_tensors import LAYOUTS
from safetensors.torch import save_file
from writing import Case, pickled, torch_legacy, torch_zip


def state() -> dict[str, torch.Tensor]:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    return model.state_dict()


def stacked(folder: Path) -> Path:
    path = folder / "stacked.pkl"
    path.write_bytes(b"".join(pickle.dumps({"part": n}, 4) for n in range(3)))
    return path


def safetensors(folder: Path) -> Path:
    path = folder / "model.safetensors"
    save_file(state(), path, metadata={"format": "pt"})
    return path


CASES: dict[str, Case] = {
    **{f"zip/protocol-{n}": torch_zip(state, pickle_protocol=n) for n in range(2, 6)},
    **{f"legacy/protocol-{n}": torch_legacy(state, pickle_protocol=n) for n in range(2, 6)},
    **{f"pickle/tensors-protocol-{n}": pickled(state, n) for n in range(2, 6)},
    **{
        f"legacy/{name}": torch_legacy(LAYOUTS[name])
        for name in ("strided", "coo", "csr", "meta", "quantised-qint8", "parameter", "tied")
    },
    **{
        f"pickle/{name}": pickled(LAYOUTS[name])
        for name in ("strided", "coo", "parameter", "tied", "untyped-storage", "meta")
    },
    "safetensors/state-dict": safetensors,
}
