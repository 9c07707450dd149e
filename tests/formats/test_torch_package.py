"""What torch.package writes, looked at without running any of its source."""

from __future__ import annotations

import io
import sys
import zipfile

import pytest
import torch
from torch import nn
from torch.package import PackageExporter, PackageImporter, package_exporter

import tensorkeep as tk

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
]
SOURCE = "class Custom:\n    def __init__(self):\n        self.weights = {}\n"
TENSORS = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}


def packed(fill):
    buffer = io.BytesIO()
    with PackageExporter(buffer) as exporter:
        exporter.extern("torch.**")
        fill(exporter)
    return buffer.getvalue()


def weights(exporter):
    exporter.save_pickle("weights", "weights.pkl", TENSORS)


def everything(exporter):
    weights(exporter)
    exporter.save_text("res", "labels.txt", "cat")
    exporter.save_binary("res", "blob.bin", b"\x80 no pickle")
    exporter.save_source_string("own.pkg.mod", SOURCE)


def test_tensors_are_those_that_the_importer_gives(bits):
    data = packed(weights)
    loaded = PackageImporter(io.BytesIO(data)).load_pickle("weights", "weights.pkl")
    with tk.open(data) as ckpt:
        assert (ckpt.kind, ckpt.format, ckpt.writer) == (
            "package",
            "torch_package",
            "torch.package",
        )
        assert list(ckpt) == [f"weights/weights.pkl.{name}" for name in loaded]
        for name, tensor in loaded.items():
            assert ckpt[f"weights/weights.pkl.{name}"].read() == bits(tensor)


def test_a_package_without_code_is_safe_and_converts(tmp_path):
    data = packed(weights)
    assert [found.what for found in tk.scan(data, deep=True).findings] == []
    tk.convert(data, tmp_path / "out.pth")
    assert list(torch.load(tmp_path / "out.pth")) == list(TENSORS)


def test_what_is_in_it_is_listed():
    values = tk.inspect(packed(everything)).to_dict()["values"]
    assert values["modules"][-1] == "own.pkg.mod"
    assert "torch._utils" in values["extern"]
    assert values["resources"] == ["res/labels.txt", "res/blob.bin"]


def test_source_is_suspicious_and_says_where():
    found = tk.scan(packed(everything)).findings
    assert {one.rule for one in found} == {"code/python-source"}
    assert any(one.member.endswith("own/pkg/mod.py") for one in found)


def test_scripted_modules_are_read(bits, monkeypatch):
    monkeypatch.setattr(package_exporter, "_gate_torchscript_serialization", False)
    module = torch.jit.script(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    data = packed(lambda exporter: exporter.save_pickle("m", "m.pkl", module))
    with tk.open(data) as ckpt:
        state = {f"torchscript 0.{name}": tensor for name, tensor in module.state_dict().items()}
        assert list(ckpt) == list(state)
        assert all(ckpt[name].read() == bits(tensor) for name, tensor in state.items())
    assert [found.what for found in tk.scan(data).findings] == []


def repacked(data, more):
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for info in old.infolist():
            if info.filename.partition("/")[2] not in more:
                new.writestr(info.filename, old.read(info))
        for name, content in more.items():
            new.writestr(f"{root}/{name}", content)
    return out.getvalue()


def test_a_module_of_the_packages_own_hides_pythons():
    """The importer asks the package first: an allowlisted name is then anything at all."""
    data = repacked(packed(weights), {"collections/__init__.py": "OrderedDict = print\n"})
    assert "package/own-code" in {found.rule for found in tk.scan(data).findings}


@pytest.mark.parametrize(
    "name", ["evil.pkl", "res/labels.txt", ".data/evil", ".data/ts_code/0/data.pkl"]
)
def test_code_in_a_resource_of_any_name_is_dangerous(name):
    data = repacked(packed(weights), {name: b"cos\nsystem\n(X\x04\0\0\0echotR."})
    assert tk.scan(data).verdict == "dangerous"


def reduction(func, args=b"X\x01\0\0\x000\x85"):
    return b"\x80\x02(X\x0e\0\0\0reduce_packageK\x01" + func + args + b"tQ."


@pytest.mark.parametrize(
    ("func", "rule"),
    [
        (b"cos\nsystem\n", "pickle/dangerous-call"),
        (b"cown.pkg.mod\nf\n", "package/own-code"),
        (b"csomewhere\nf\n", "pickle/unknown-call"),
        (b"cos\nsystem\n)R", "pickle/call-of-value"),
    ],
)
def test_a_persistent_id_that_calls_is_judged_as_a_call(func, rule):
    data = repacked(packed(everything), {"call.pkl": reduction(func)})
    assert rule in {found.rule for found in tk.scan(data).findings}


def test_nothing_of_the_package_is_imported():
    tk.scan(packed(everything))
    assert not [name for name in sys.modules if name.startswith("own")]
