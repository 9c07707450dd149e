"""What torch writes beside checkpoints: python tests/corpus/make_containers.py

TorchScript, packages, exported programs and archives of model files. The modules are made from
text under a name of their own, so that no path of the machine stands in the files.
"""

from __future__ import annotations

import io
import linecache
import tarfile
import warnings
import zipfile
from pathlib import Path

import torch
from making import keep
from safetensors.torch import save as safetensors
from torch.package import PackageExporter, PackageImporter

HERE = Path(__file__).resolve().parent
SOURCE = """
class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
        self.register_buffer("steps", torch.arange(3))
        self.register_buffer("lost", torch.ones(2), persistent=False)
        self.scale = 3
        self.loose = torch.full((2,), 7.0)
        self.names = ["a", "b"]

    def forward(self, x):
        return torch.matmul(x, self.weight.t()) * self.scale + self.lost + self.loose


class Outer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Inner()
        self.second = torch.nn.ModuleList([Inner(), Inner()])
        self.tied = self.first.weight

    def forward(self, x):
        x = self.first(x)
        return x @ self.tied


class Constant(torch.nn.Module):
    def forward(self, x):
        return x + torch.tensor([[1.5, 2.0]])
"""
PLACES = (b"/work", b"/tmp", b"/home", b"/root", b"site-packages")


def modules():
    linecache.cache["model.py"] = (len(SOURCE), None, SOURCE.splitlines(True), "model.py")
    space = {"torch": torch, "__name__": "model"}
    exec(compile(SOURCE, "model.py", "exec"), space)
    return space


def bits(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def named(tensors, prefix=""):
    return {f"{prefix}{name}": bits(tensor) for name, tensor in tensors.items()}


def case(kind, name, file, data, expected, check=None):
    for member in _members(data):
        assert not any(place in member for place in PLACES), f"{name} names a place"

    def write(folder):
        (folder / file).write_bytes(data)

    keep(HERE / kind / name, write, expected, file, check)


def _members(data):
    if data[:2] != b"PK":
        return [data]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [archive.read(name) for name in archive.namelist()]


def written(save, *arguments, **options):
    file = io.BytesIO()
    save(*arguments, file, **options)
    return file.getvalue()


def loaded_script(state):
    return lambda path: _same(torch.jit.load(path).state_dict(), state)


def _same(found, state):
    assert {name: bits(tensor) for name, tensor in found.items()} == named(state)


def scripts(made):
    outer = torch.jit.script(made["Outer"]())
    loose = {
        f"attributes.{name}.loose": bits(torch.full((2,), 7.0))
        for name in ("first", "second.0", "second.1")
    }
    state = outer.state_dict()
    expected = named(state, "model.") | loose
    data = written(torch.jit.save, outer, _extra_files={"labels.txt": "cat"})
    case("torchscript", "modules", "module.pt", data, expected, loaded_script(state))
    frozen = torch.jit.freeze(torch.jit.script(made["Constant"]().eval()))
    constant = {"constants.c0": bits(torch.tensor([[1.5, 2.0]]))}
    data = written(torch.jit.save, frozen)
    case("torchscript", "frozen", "frozen.pt", data, constant, loaded_script({}))
    inner = torch.jit.script(made["Inner"]())
    data = inner._save_to_buffer_for_lite_interpreter()
    expected = named(inner.state_dict(), "model.") | {
        "attributes.loose": bits(torch.full((2,), 7.0))
    }
    case("torchscript", "mobile", "module.ptl", data, expected)


def packages():
    state = {"w": torch.arange(4.0), "b": torch.ones(2, dtype=torch.bfloat16)}
    other = {"w": state["w"], "n": torch.arange(3)}

    def write(file):
        with PackageExporter(file) as exporter:
            exporter.extern("torch.**")
            exporter.save_pickle("first", "weights.pkl", state)
            exporter.save_pickle("second", "more.pkl", {"nested": [other, 3, "x"]})
            exporter.save_text("res", "labels.txt", "cat")
            exporter.save_binary("res", "bytes.bin", b"\x80 no pickle")

    def check(path):
        _same(PackageImporter(path).load_pickle("first", "weights.pkl"), state)

    expected = named(state, "first/weights.pkl.") | named(other, "second/more.pkl.nested.0.")
    case("torch_package", "pickles", "weights.pt", written(write), expected, check)


def programs(made):
    program = torch.export.export(made["Outer"](), (torch.arange(30.0).reshape(10, 3)[:2],))
    state = program.state_dict
    constants = dict(program.constants)
    expected = (
        named(state, "model.")
        | named(constants, "constants.")
        | {"sample_inputs.model.0.0": bits(torch.arange(6.0))}
    )

    def check(path):
        _same(torch.export.load(path).state_dict, state)

    data = written(torch.export.save, program, extra_files={"notes.txt": "x"})
    case("pt2", "modules", "program.pt2", data, expected, check)
    before = {
        "serialized_exported_program.json": b"{}",
        "serialized_state_dict.pt": written(torch.save, {"w": torch.ones(2)}),
        "serialized_constants.pt": written(torch.save, {}),
        "serialized_example_inputs.pt": written(torch.save, ((torch.zeros(1),), {})),
        "version": b"8.7",
    }
    expected = {"model.w": bits(torch.ones(2)), "sample_inputs.0.0": bits(torch.zeros(1))}
    case("pt2", "before_2_8", "program.pt2", zipped(before), expected)


def zipped(files, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


def tarred(files):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def bundles():
    state = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.ones(2)}
    saved = written(torch.save, state)
    nemo = {"./model_config.yaml": b"target: nemo.core.Model\n", "./model_weights.ckpt": saved}
    case("bundle", "nemo", "model.nemo", tarred(nemo), named(state))
    mar = {"model.pt": saved, "MAR-INF/MANIFEST.json": b'{"model": {"handler": "text"}}'}
    packed = zipped(mar, zipfile.ZIP_DEFLATED)
    case("bundle", "mar", "model.mar", packed, named(state))
    several = {"a.pth": saved, "b.safetensors": safetensors(state), "README": b"two"}
    expected = named(state, "a.pth.") | named(state, "b.safetensors.")
    case("bundle", "several", "models.zip", zipped(several), expected)
    inner = {"inner.zip": zipped({"deeper/a.pth": saved})}
    case("bundle", "zip_in_zip", "models.zip", zipped(inner), named(state))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    made = modules()
    scripts(made)
    packages()
    programs(made)
    bundles()
