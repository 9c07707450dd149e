"""What this version does not read: named in words, left out when asked, never wrong."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch

import tensorkeep as tk
from tensorkeep.errors import Damaged, NotACheckpoint, ReadError, Unsupported, Unwritable

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Sparse.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*sparse.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*nested tensors.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*quantiz.*"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
]


class WithObjects:
    def __init__(self):
        self.inner = {"weight": torch.ones(3)}


class Plain:
    def __init__(self):
        self.answer = 42


def sparse_coo():
    return torch.eye(3).to_sparse()


def sparse_csr():
    return torch.eye(3).to_sparse_csr()


def sparse_bsr():
    return torch.eye(4).to_sparse_bsr((2, 2))


def quantised_per_tensor():
    return torch.quantize_per_tensor(torch.ones(3), 0.5, 1, torch.qint8)


def quantised_per_channel():
    scales, zeros = torch.tensor([0.1, 0.2]), torch.zeros(2, dtype=torch.int64)
    return torch.quantize_per_channel(torch.ones(2, 3), scales, zeros, 0, torch.qint8)


def nested_jagged():
    parts = [torch.ones(2, 3), torch.ones(4, 3)]
    return torch.nested.nested_tensor(parts, layout=torch.jagged)


def nested_strided():
    return torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)], layout=torch.strided)


def bare_storage():
    return torch.ones(3).untyped_storage()


def object_with_tensors():
    return WithObjects()


TENSORS = {
    sparse_coo: "sparse COO tensor float32 [3, 3], nnz 3",
    sparse_csr: "sparse CSR tensor float32 [3, 3], nnz 3",
    sparse_bsr: "sparse BSR tensor float32 [4, 4], nnz 2",
    quantised_per_tensor: "quantised tensor qint8 [3], scheme per_tensor_affine, scale 0.5",
    quantised_per_channel: "quantised tensor qint8 [2, 3], scheme per_channel_affine, axis 0",
    nested_jagged: "nested tensor (jagged) float32 [6, 3], tensors 2",
    nested_strided: "nested tensor float32 [2], tensors 2",
    bare_storage: "storage uint8 [12]",
    object_with_tensors: "object of class",
}
CASES = pytest.mark.parametrize(
    ("make", "words"), TENSORS.items(), ids=[make.__name__ for make in TENSORS]
)


@CASES
def test_it_is_named_and_the_rest_is_read(save, tmp_path, make, words):
    path = save({"layer.weight": torch.arange(3.0), "layer.odd": make()})
    report = tk.inspect(path)
    assert [name for name, _ in report.unread] == ["layer.odd"]
    assert words in report.unread[0][1]
    assert [tensor.name for tensor in report.tensors] == ["layer.weight"]
    for ending in ("safetensors", "pth"):
        target = tmp_path / f"out.{ending}"
        with pytest.raises(Unwritable) as caught:
            tk.convert(path, target)
        assert caught.value.where == "layer.odd"
        assert words in caught.value.got
        assert "--drop-unsupported" in caught.value.remedy
        assert not target.exists()
        done = tk.convert(path, target, drop_unsupported=True)
        assert done.left_out == [*done.left_out[:-1], report.unread[0]]
        with tk.open(target) as ckpt:
            assert list(ckpt) == ["layer.weight"]


@CASES
def test_alone_it_is_nothing_to_convert(save, tmp_path, make, words):
    path = save(make())
    assert tk.inspect(path).tensors == []
    with pytest.raises((Unsupported, Unwritable, tk.TensorkeepError)) as caught:
        tk.convert(path, tmp_path / "out.safetensors")
    assert caught.value.remedy or caught.value.expected
    assert not (tmp_path / "out.safetensors").exists()


def test_meta_tensors_have_no_values(save, tmp_path):
    path = save({"a.real": torch.ones(2), "a.meta": torch.empty(1000, 1000, device="meta")})
    with tk.open(path) as ckpt:
        if "a.meta" in ckpt:
            with pytest.raises(ReadError):
                ckpt["a.meta"].read()
    with pytest.raises(Unwritable, match="meta"):
        tk.convert(path, tmp_path / "out.safetensors")
    done = tk.convert(path, tmp_path / "out.safetensors", drop_unsupported=True)
    assert any(name == "a.meta" and "meta" in why for name, why in done.left_out)
    with tk.open(tmp_path / "out.safetensors") as ckpt:
        assert list(ckpt) == ["a.real"]


@pytest.mark.parametrize("dtype", [torch.quint8, torch.qint32, torch.quint4x2])
def test_raw_bytes_of_a_quantised_dtype(save, tmp_path, dtype):
    """Of such a dtype and without a quantiser: torch crashes if it touches what it loaded."""
    path = save({"a.b": torch.arange(16, dtype=torch.uint8).view(dtype)})
    with tk.open(path) as ckpt:
        assert ckpt["a.b"].read() == bytes(range(16))
    with pytest.raises(Unwritable, match="safetensors has no"):
        tk.convert(path, tmp_path / "out.safetensors")


@pytest.mark.parametrize(
    "array",
    [np.arange(6.0).reshape(2, 3), np.array([{"a": 1}, None], dtype=object), np.array(["x", "yy"])],
    ids=["numbers", "objects", "text"],
)
def test_numpy_arrays_are_values(save, tmp_path, array):
    path = save({"model": {"w": torch.ones(2)}, "extra": array, "scalar": np.float64(2.5)})
    report = tk.inspect(path)
    assert [tensor.name for tensor in report.tensors] == ["model.w"]
    assert "extra" in report.to_dict()["values"]
    assert report.to_dict()["values"]["scalar"] == 2.5
    done = tk.convert(path, tmp_path / "out.safetensors")
    assert "extra" in dict(done.left_out)


def test_objects_without_tensors_are_values(save, tmp_path):
    path = save({"model": {"w": torch.ones(2)}, "config": Plain()})
    report = tk.inspect(path)
    assert report.unread == []
    assert "Plain" in report.to_dict()["values"]["config"]
    assert "config" in dict(tk.convert(path, tmp_path / "out.safetensors").left_out)


def gguf():
    return b"GGUF\3\0\0\0" + bytes(100)


def plain_zip():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    return buffer.getvalue()


FILES = {
    gguf: "GGUF",
}


@pytest.mark.parametrize(("make", "words"), FILES.items(), ids=[m.__name__ for m in FILES])
def test_other_containers_are_named(tmp_path, make, words):
    path = tmp_path / "model.pth"
    path.write_bytes(make())
    for verb in (tk.open, tk.inspect, lambda p: tk.convert(p, tmp_path / "out.safetensors")):
        with pytest.raises(Unsupported) as caught:
            verb(path)
        assert words in caught.value.got
    assert [p.name for p in tmp_path.iterdir()] == ["model.pth"]


ARCHIVES = {
    b"7z\xbc\xaf\x27\x1c\0\0": "7z x",
    b"\x28\xb5\x2f\xfd\0": "unzstd",
    b"\x04\x22\x4d\x18\0": "unlz4",
    b"Rar!\x1a\x07\x01\0": "rar archive",
}


@pytest.mark.parametrize("data", ARCHIVES, ids=range(len(ARCHIVES)))
def test_archives_that_are_not_opened_are_never_passed_over(tmp_path, data):
    (tmp_path / "weights.dat").write_bytes(data)
    report = tk.scan(tmp_path)
    assert (report.verdict, report.skipped) == ("unknown", 0)
    with pytest.raises(Unsupported) as caught:
        tk.open(data)
    assert ARCHIVES[data] in str(caught.value)


OTHERS = {
    b"": "empty",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0": "git lfs pull",
    b"<!DOCTYPE html><html></html>": "web page",
    b"<HTML><body>404": "web page",
    b"hello": "begins with",
    b"\0": "begins with",
    b"\xff" * 600: "begins with",
}


def test_a_zip_with_nothing_of_a_model_in_it():
    with pytest.raises(NotACheckpoint, match="a zip without a model in it"):
        tk.open(plain_zip())
    assert tk.scan(plain_zip()).verdict == "unknown"


@pytest.mark.parametrize("data", OTHERS, ids=range(len(OTHERS)))
def test_what_is_no_checkpoint_at_all(data):
    with pytest.raises(NotACheckpoint) as caught:
        tk.open(data)
    assert OTHERS[data].lower() in str(caught.value).lower()


@pytest.mark.parametrize("cut", [4, 30, 100, 1000])
def test_the_beginning_of_a_zip(save, cut):
    data = save({"a": torch.ones(1000)}).read_bytes()
    with pytest.raises((Damaged, Unsupported)):
        tk.open(data[:cut])
