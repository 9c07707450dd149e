"""Tensors that are no plain view, and tensors in pickles without a container."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

import tensorkeep as tk
from tensorkeep.formats.contents import Inert

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*nested tensors.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*quantiz.*"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
]


class Tagged(torch.Tensor):
    """A plain tensor with attributes of Python's."""


class Called:
    """Pickles as a call of a function with arguments."""

    def __init__(self, func, *args):
        self.func, self.args = func, args

    def __reduce__(self):
        return self.func, self.args


def compound(path):
    (found,) = tk.inspect(path).to_dict()["compounds"]
    return found


def part(path, name):
    """The values of one part, read as a tensor of its own would be."""
    with tk.open(path) as ckpt:
        (leaf,) = (value for _, value in ckpt.index.leaves)
        ref = type(next(iter(ckpt.tensors.values())))("", leaf.parts[name], "")
        return ref.numpy()


def test_scales_of_a_quantised_tensor(save):
    value = torch.quantize_per_tensor(torch.rand(3), 0.25, 3, torch.quint8)
    found = compound(save({"w": value}))
    assert (found["scheme"], found["scale"], found["zero_point"]) == ("per_tensor_affine", 0.25, 3)
    assert found["dtype"] == "quint8" and list(found["parts"]) == ["int_repr"]


def test_channels_of_a_quantised_tensor(save):
    scales, zeros = torch.tensor([0.5, 0.25]), torch.tensor([1, 2])
    value = torch.quantize_per_channel(torch.rand(3, 2), scales, zeros, 1, torch.qint8)
    path = save({"w": value, "x": torch.ones(1)})
    assert compound(path)["axis"] == 1
    assert part(path, "scales").tolist() == [0.5, 0.25]
    assert part(path, "zero_points").tolist() == [1, 2]
    assert tk.scan(path).verdict == "safe"


def test_packed_elements_stay_within_their_storage(save):
    scales, zeros = torch.ones(4), torch.zeros(4)
    value = torch.quantize_per_channel(torch.rand(4, 4), scales, zeros, 0, torch.quint4x2)
    assert tk.scan(save({"w": value})).verdict == "safe"


def test_indices_and_values_of_a_sparse_tensor(save):
    value = torch.sparse_coo_tensor(
        torch.tensor([[0, 2], [1, 0]]), torch.tensor([3.0, 4.0]), (3, 2)
    )
    path = save({"w": value, "x": torch.ones(1)})
    assert part(path, "indices").tolist() == [[0, 2], [1, 0]]
    assert part(path, "values").tolist() == [3.0, 4.0]
    assert compound(path)["nnz"] == 2


def test_a_subclass_over_a_plain_tensor_is_read_as_that(save, bits):
    value = torch.arange(6.0).reshape(2, 3).t().as_subclass(Tagged)
    value.tag = {"any": "thing"}
    path = save({"w": value, "p": nn.Parameter(torch.rand(2).as_subclass(Tagged))})
    with tk.open(path) as ckpt:
        assert ckpt["w"].read() == bits(value.as_subclass(torch.Tensor))
        assert list(ckpt) == ["w", "p"]
    assert any("Tagged" in note for note in tk.inspect(path).notes)


def test_buffers_and_parameters_with_state_are_plain(save, bits):
    parameter = nn.Parameter(torch.rand(3), requires_grad=False)
    parameter.tag = 1
    path = save({"b": nn.Buffer(torch.rand(2)), "p": parameter})
    with tk.open(path) as ckpt:
        assert ckpt["p"].read() == bits(parameter)
        assert len(ckpt) == 2
    assert tk.inspect(path).notes == []


def test_a_subclass_that_wraps_others_shows_them(save):
    two = TwoTensor(torch.rand(3), torch.rand(3))
    found = compound(save({"w": two}))
    assert (found["layout"], found["dtype"], found["shape"]) == ("subclass", "float32", [3])
    assert sorted(found["parts"]) == ["a", "b"]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<i8", "|b1", "<c8"])
def test_device_tensors_that_travel_as_numpy(save, order, dtype):
    array = np.asarray(np.arange(6).reshape(2, 3) % 2 == 0, dtype=dtype, order=order)
    plain = array.astype(array.dtype.newbyteorder("="))
    kind = torch.from_numpy(plain).dtype
    rebuild = torch._utils._rebuild_device_tensor_from_numpy
    path = save({"w": Called(rebuild, array, kind, "cpu", False)})
    with tk.open(path) as ckpt:
        assert np.array_equal(ckpt["w"].numpy(), plain)


def test_a_device_tensor_that_would_be_rounded_is_not_guessed(save):
    rebuild = torch._utils._rebuild_device_tensor_from_numpy
    array = np.ones((2, 3), dtype=np.float32)
    path = save({"w": Called(rebuild, array, torch.bfloat16, "cpu", False)})
    assert "bfloat16 [2, 3]" in tk.inspect(path).unread[0][1]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_plain_pickle_of_tensors(tmp_path, protocol):
    base = torch.arange(12.0).reshape(3, 4)
    value = {"a.w": base, "a.t": base.t(), "a.p": nn.Parameter(torch.rand(2)), "a.same": base}
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    tk.convert(path, tmp_path / "out.pth")
    loaded = torch.load(tmp_path / "out.pth")
    assert list(loaded) == list(value)
    for name, tensor in value.items():
        assert torch.equal(loaded[name], tensor), name
    assert {t.name: t.tied_to for t in tk.inspect(path).tensors}["a.same"] == "a.w"


def test_storages_of_different_files_in_a_pickle_are_not_tied(tmp_path):
    """Each of them counts for itself, and may give the same key to its storage."""
    one = pickle.dumps(torch.ones(2))
    other = one.replace(torch.ones(2).numpy().tobytes(), torch.zeros(2).numpy().tobytes())
    assert one != other
    stacked = b"\x80\x02(" + one[2:-1] + other[2:-1].replace(b"q\x00", b"q\x00") + b"t."
    path = tmp_path / "weights.pkl"
    path.write_bytes(stacked)
    with tk.open(path) as ckpt:
        first, second = ckpt.tensors.values()
        assert first.read() != second.read()
        assert second.tied_to is None


@pytest.mark.parametrize("make", [lambda t: t.storage(), lambda t: t.untyped_storage()])
def test_storages_are_values_of_known_length(save, tmp_path, make):
    path = save({"s": make(torch.ones(3)), "w.x": torch.ones(1)})
    ((name, why),) = tk.inspect(path).unread
    assert name == "s" and "storage" in why and ("[3]" in why or "[12]" in why)
    (tmp_path / "s.pkl").write_bytes(pickle.dumps(make(torch.ones(3))))
    with tk.open(tmp_path / "s.pkl") as ckpt:
        assert isinstance(ckpt.values, Inert) and ckpt.values.unread == "tensor"


def test_whole_models_in_the_older_containers(tmp_path):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    torch.save(model, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(model))
    (tmp_path / "text.pkl").write_bytes(pickle.dumps({"model": model}, protocol=0))
    for name in ("legacy.pth", "plain.pkl", "text.pkl"):
        tk.convert(tmp_path / name, tmp_path / f"{name}.pth")
        loaded = torch.load(tmp_path / f"{name}.pth")
        assert list(loaded) == list(model.state_dict())
        for key, tensor in model.state_dict().items():
            assert torch.equal(loaded[key], tensor)


def test_meta_tensors_show_their_shape(save):
    path = save({"a.b": torch.empty(3, 4, device="meta"), "a.c": torch.empty(3, 4, device="meta")})
    shown = [(t.dtype, t.shape, t.tied_to) for t in tk.inspect(path).tensors]
    assert shown == [("float32", (3, 4), None)] * 2
    assert tk.scan(path).verdict == "safe"


def test_a_legacy_file_of_sparse_tensors_is_checked_too():
    buffer = io.BytesIO()
    bad = torch.sparse_coo_tensor(torch.tensor([[9]]), torch.ones(1), (3,), check_invariants=False)
    torch.save({"w": bad}, buffer, _use_new_zipfile_serialization=False)
    report = tk.scan(buffer.getvalue())
    assert {found.rule for found in report.findings} == {"tensor/out-of-bounds"}
