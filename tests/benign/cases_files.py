"""Whole files of other writers: TorchScript, packages, exports, DCP, numpy, joblib, streams."""

from __future__ import annotations

import gzip
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import torch
from cases_containers import state
from cases_models import convolutions, perceptron, recurrent
from cases_plain import RECORD, objects
from safetensors.numpy import save_file as save_numpy
from torch import nn
from writing import Case


def quietly(write: Callable[[Path], Path]) -> Case:
    def case(folder: Path) -> Path:
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says of TorchScript that it is old
            return write(folder)

    return case


def _scripted(make: Callable[[], nn.Module], folder: Path) -> Path:
    torch.jit.script(make()).save(folder / "model.pt")
    return folder / "model.pt"


def _traced(make: Callable[[], nn.Module], given: torch.Tensor, folder: Path) -> Path:
    torch.jit.trace(make().eval(), given).save(folder / "model.pt")
    return folder / "model.pt"


def _lstm() -> nn.Module:
    return recurrent()[0]


def _package(folder: Path) -> Path:
    with torch.package.PackageExporter(folder / "model.pt") as exporter:
        exporter.save_pickle("weights", "state.pkl", state())
        exporter.save_text("notes", "readme.txt", "weights alone")
    return folder / "model.pt"


def _exported(folder: Path) -> Path:
    program = torch.export.export(perceptron(), (torch.ones(1, 4),))
    torch.export.save(program, folder / "model.pt2")
    return folder / "model.pt2"


def _distributed(folder: Path) -> Path:
    import torch.distributed.checkpoint as dcp

    values = {"model": state(), "epoch": 3, "history": [0.5, 0.25]}
    dcp.save(values, checkpoint_id=folder / "step-1", no_dist=True)
    return folder / "step-1"


def _npy(value: np.ndarray, folder: Path) -> Path:
    np.save(folder / "value.npy", value)
    return folder / "value.npy"


def _npz(folder: Path, write: Callable[..., None]) -> Path:
    write(folder / "values.npz", weight=np.ones((2, 3)), label=np.array(["a"]))
    return folder / "values.npz"


def _joblib(value: object, compress: object, folder: Path) -> Path:
    joblib.dump(value, folder / "value.joblib", compress=compress)
    return folder / "value.joblib"


JOBLIB = {"weights": np.ones((3, 4)), "names": ["a", "b"], "empty": np.zeros(0), "rate": 0.1}


def _gzipped(folder: Path) -> Path:
    path = folder / "value.pkl.gz"
    with gzip.open(path, "wb") as file:
        pickle.dump({"weights": np.ones(3)}, file)
    return path


def _numpy_safetensors(folder: Path) -> Path:
    save_numpy({"weight": np.ones((2, 3), np.float32)}, folder / "model.safetensors")
    return folder / "model.safetensors"


def _stacked(folder: Path) -> Path:
    path = folder / "log.pkl"
    path.write_bytes(b"".join(pickle.dumps({"step": n}, 4) for n in range(3)))
    return path


IMAGE = torch.ones(1, 3, 8, 8)

CASES: dict[str, Case] = {
    "torchscript/script": quietly(partial(_scripted, perceptron)),
    "torchscript/script-convolutions": quietly(partial(_scripted, convolutions)),
    "torchscript/script-lstm": quietly(partial(_scripted, _lstm)),
    "torchscript/trace": quietly(partial(_traced, perceptron, torch.ones(1, 4))),
    "torchscript/trace-convolutions": quietly(partial(_traced, convolutions, IMAGE)),
    "package/without-code": quietly(_package),
    "export/pt2": quietly(_exported),
    "dcp/state": quietly(_distributed),
    "numpy/npy": partial(_npy, np.ones((2, 3))),
    "numpy/npy-fortran": partial(_npy, np.asfortranarray(np.ones((2, 3)))),
    "numpy/npy-record": partial(_npy, np.zeros(2, RECORD)),
    "numpy/npy-text": partial(_npy, np.array(["a", "bc"])),
    "numpy/npy-objects": partial(_npy, objects()),
    "numpy/npz": partial(_npz, write=np.savez),
    "numpy/npz-compressed": partial(_npz, write=np.savez_compressed),
    "joblib/raw": partial(_joblib, JOBLIB, 0),
    "joblib/zlib": partial(_joblib, JOBLIB, 3),
    "joblib/gzip": partial(_joblib, JOBLIB, ("gzip", 3)),
    "joblib/bz2": partial(_joblib, JOBLIB, ("bz2", 3)),
    "joblib/xz": partial(_joblib, JOBLIB, ("xz", 1)),
    "joblib/objects": partial(_joblib, {"a": objects()}, 0),
    "pickle/gzip": _gzipped,
    "pickle/stacked": _stacked,
    "safetensors/numpy": _numpy_safetensors,
}
