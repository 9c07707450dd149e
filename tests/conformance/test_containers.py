"""TorchScript, packages, exported programs and bundles keep every promise of a format."""

from __future__ import annotations

import functools
import io
import tarfile
import zipfile

import pytest
import torch
from torch import nn
from torch.package import PackageExporter

from tensorkeep.formats import tar_bundle, zips
from tensorkeep.testing import FormatConformance

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
]


class Model(nn.Module):
    """Parameters, a buffer of integers, a plain attribute and a constant."""

    def __init__(self, width=3):
        super().__init__()
        self.layer = nn.Linear(width, 2)
        self.register_buffer("steps", torch.arange(3))
        self.loose = torch.ones(2, dtype=torch.float64)

    def forward(self, x):
        return self.layer(x) + self.loose


def expected(values, prefix=""):
    return {
        f"{prefix}{name}": (
            str(tensor.dtype)[6:],
            tuple(tensor.shape),
            tensor.detach().contiguous().numpy().tobytes(),
        )
        for name, tensor in values.items()
    }


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@functools.cache
def scripted(width=3):
    file = io.BytesIO()
    torch.manual_seed(0)
    module = torch.jit.script(Model(width))
    torch.jit.save(module, file, _extra_files={"labels.txt": "cat"})
    return file.getvalue(), module


@functools.cache
def packaged(width=3):
    file = io.BytesIO()
    torch.manual_seed(0)
    state = Model(width).state_dict()
    with PackageExporter(file) as exporter:
        exporter.extern("torch.**")
        exporter.save_pickle("weights", "weights.pkl", state)
        exporter.save_source_string("own.module", "x = 1\n")
    return file.getvalue(), state


@functools.cache
def exported(width=3):
    file = io.BytesIO()
    torch.manual_seed(0)
    program = torch.export.export(Model(width), (torch.ones(1, width),))
    torch.export.save(program, file)
    return file.getvalue(), program.state_dict


@functools.cache
def zipped(width=3, packed=False):
    file = io.BytesIO()
    torch.manual_seed(0)
    state = Model(width).state_dict()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if packed else 0) as archive:
        archive.writestr("MAR-INF/MANIFEST.json", "{}")
        archive.writestr("model.pt", saved(state))
    return file.getvalue(), state


@functools.cache
def tarred(width=3):
    file = io.BytesIO()
    torch.manual_seed(0)
    state = Model(width).state_dict()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in {"model_weights.ckpt": saved(state), "config.yaml": b"x: 1\n"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue(), state


class TestTorchScript(FormatConformance):
    format = zips

    def samples(self):
        data, module = scripted()
        state = expected(module.state_dict(), "model.")
        loose = expected({"loose": module.loose}, "attributes.")
        return {"scripted": (data, state | loose)}

    def large(self):
        return scripted(1 << 20)[0]


class TestTorchPackage(FormatConformance):
    format = zips

    def samples(self):
        data, state = packaged()
        return {"package": (data, expected(state, "weights/weights.pkl."))}

    def large(self):
        return packaged(1 << 20)[0]


class TestExportedProgram(FormatConformance):
    format = zips

    def samples(self):
        data, state = exported()
        constants = expected({"loose": torch.ones(2, dtype=torch.float64)}, "constants.")
        inputs = expected({"0": torch.ones(1, 3)}, "sample_inputs.model.0.")
        return {"exported": (data, expected(state, "model.") | constants | inputs)}

    def large(self):
        return exported(1 << 20)[0]


class TestZipBundle(FormatConformance):
    format = zips

    def samples(self):
        plain, state = zipped()
        return {
            "plain": (plain, expected(state)),
            "packed": (zipped(packed=True)[0], expected(state)),
        }

    def large(self):
        return zipped(1 << 20)[0]


class TestTarBundle(FormatConformance):
    format = tar_bundle

    def samples(self):
        data, state = tarred()
        return {"nemo": (data, expected(state))}

    def large(self):
        return tarred(1 << 20)[0]
