"""torch's serialization of before 1.6: what its own loader gives, and every pickle a program."""

import io
import pickle
import struct

import pytest
import torch

import tensorkeep as tk
from tensorkeep.errors import Damaged

WEIGHT = {"weight": torch.arange(6.0).view(2, 3)}


def legacy(value, **options):
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=False, **options)
    return file.getvalue()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors_as_torch_loads_them(agree, tmp_path, random, protocol):
    base = random("float32", 8, 6)
    value = {
        "plain": base,
        "turned": base.t()[1:, ::2],
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(random("bfloat16", 4)),
        "nested": [{"a": random("int64", 3)}, random("bool", 5)],
    }
    path = tmp_path / "model.pth"
    path.write_bytes(legacy(value, pickle_protocol=protocol))
    assert set(agree(path)) >= {"plain", "turned", "nested.0.a"}
    assert tk.scan(path, deep=True).verdict == "safe"
    assert tk.verify(path).ok
    report = tk.inspect(path)
    assert (report.format, report.container) == ("torch_legacy", "torch before 1.6")


def test_storages_that_are_views_of_others(tmp_path):
    """The sixth part of a storage's id, which torch reads and writes no more."""
    data = legacy(WEIGHT)
    whole = b"K\x06Nt"
    assert data.count(whole) == 1
    view = b"K\x06X\x01\x00\x00\x00vK\x02K\x03\x87t"
    shaped = b"K\x00K\x02K\x03\x86"
    at = data.index(shaped)
    data = data[:at] + b"K\x00K\x01K\x03\x86" + data[at + len(shaped) :]
    path = tmp_path / "model.pth"
    path.write_bytes(data.replace(whole, view))
    expected = torch.load(path, weights_only=False)["weight"]
    assert expected.tolist() == [[2.0, 3.0, 4.0]]
    with tk.open(path) as ckpt:
        assert ckpt["weight"].numpy().tolist() == expected.tolist()
    assert tk.scan(path).verdict == "safe"


def test_a_large_file_is_opened_by_its_index(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(legacy({str(n): torch.zeros(1 << 18) for n in range(16)}))
    with tk.open(path) as ckpt:
        assert len(ckpt) == 16
        assert ckpt.bytes_read < 256 << 10
    report = tk.scan(path)
    assert report.verdict == "safe"
    assert report.bytes_not_read >= 16 << 20


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_whole_model_names_its_classes_with_their_source(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
    path = tmp_path / "model.pth"
    path.write_bytes(legacy(model))
    assert tk.inspect(path).kind == "whole_model"
    assert tk.scan(path).verdict == "safe"


def test_converted_it_is_the_same(tmp_path):
    source, target = tmp_path / "old.pth", tmp_path / "new.safetensors"
    source.write_bytes(legacy(WEIGHT))
    tk.convert(source, target)
    with tk.open(target) as ckpt:
        assert torch.equal(torch.from_numpy(ckpt["weight"].numpy()), WEIGHT["weight"])


def test_counts_that_contradict(tmp_path):
    """torch refuses a storage whose count is not what its pickle says; so does the reader."""
    data = legacy(WEIGHT)
    at = data.rindex(struct.pack("<q", 6))
    for count in (5, 7, -1, 1 << 61):
        path = tmp_path / "model.pth"
        path.write_bytes(data[:at] + struct.pack("<q", count) + data[at + 8 :])
        with pytest.raises(Damaged):
            tk.open(path)
        with pytest.raises((RuntimeError, ValueError)):
            torch.load(path, weights_only=False)


def test_keys_that_no_tensor_has(tmp_path):
    data = legacy(WEIGHT)
    keys = pickle.loads(data[data.rindex(b"\x80\x02]") :])
    path = tmp_path / "model.pth"
    path.write_bytes(data.replace(data[data.rindex(b"\x80\x02]") :], pickle.dumps([*keys, "x"], 2)))
    with pytest.raises(Damaged):
        tk.open(path)
