"""Quantised modules saved whole: their packed weights are shown as their state dict names them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tensorkeep as tk
from tensorkeep.errors import Unwritable
from tensorkeep.formats.assembled import Compound

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*quantiz.*"),
    pytest.mark.filterwarnings("ignore:.*reduce_range.*"),
    pytest.mark.filterwarnings("ignore:.*torch.ao.*"),
    pytest.mark.filterwarnings("ignore:.*TypedStorage.*"),
]
quantization = torch.ao.quantization


def dynamic(dtype=torch.qint8):
    inner = nn.Sequential(nn.Linear(3, 2, bias=False), nn.LayerNorm(2))
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), inner)
    return quantization.quantize_dynamic(model, {nn.Linear}, dtype=dtype)


def halves():
    return dynamic(torch.float16)


def recurrent():
    model = nn.Sequential(nn.LSTM(4, 3, bidirectional=True), nn.GRU(4, 3), nn.GRUCell(4, 4))
    return quantization.quantize_dynamic(model, {nn.LSTM, nn.GRU, nn.GRUCell})


def static():
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1, bias=False), nn.Flatten()]
    model = nn.Sequential(
        quantization.QuantStub(), *layers, nn.Linear(16, 2), quantization.DeQuantStub()
    ).eval()
    model.qconfig = quantization.get_default_qconfig("x86")
    model = quantization.fuse_modules(model, [["1", "2"]])
    prepared = quantization.prepare(model)
    prepared(torch.randn(2, 3, 4, 4))
    return quantization.convert(prepared)


def embedding():
    model = nn.Sequential(nn.EmbeddingBag(6, 8, mode="sum")).eval()
    model.qconfig = quantization.float_qparams_weight_only_qconfig
    return quantization.convert(quantization.prepare(model))


def functional():
    model = nn.Sequential(torch.ao.nn.quantized.QFunctional(), torch.ao.nn.quantized.ReLU6())
    model[0].scale, model[0].zero_point = 0.3, 7
    return model


MODELS = [dynamic, halves, recurrent, static, embedding, functional]


def contents(path):
    """Tensors by name with their bytes, and quantised ones with what they are made of."""
    with tk.open(path) as ckpt:
        found = {
            name: (str(ref.dtype), ref.shape, ref.read()) for name, ref in ckpt.tensors.items()
        }
        packed = {
            ".".join(map(str, place)): value for place, value in ckpt.index.leaves
            if isinstance(value, Compound)
        }  # fmt: skip
        return found, {name: (value.why, list(value.parts)) for name, value in packed.items()}


@pytest.mark.parametrize("make", MODELS)
def test_it_holds_what_its_state_dict_holds(tmp_path, make):
    torch.manual_seed(0)
    model = make()
    torch.save(model, tmp_path / "whole.pth")
    torch.save(model.state_dict(), tmp_path / "state.pth")
    whole, state = contents(tmp_path / "whole.pth"), contents(tmp_path / "state.pth")
    assert whole == state
    assert list(whole[0]) == list(state[0])
    plain = {name: t for name, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    for name, tensor in plain.items():
        if not tensor.is_quantized:
            assert whole[0][name][2] == tensor.detach().numpy().tobytes()
    report = tk.inspect(tmp_path / "whole.pth")
    assert report.kind == "whole_model"
    assert not [note for note in report.notes if "unknown" in note]
    names = {name for name, _ in model.named_modules(remove_duplicate=False)}
    assert {module.name for module in report.modules} == names


@pytest.mark.parametrize(
    ("make", "layers"),
    [
        (dynamic, "layers 0, 2.0"),
        (static, "layers 1, 3, 5"),
        (embedding, "layer 0"),
        (recurrent, "layers 0._all_weight_values.0, 0._all_weight_values.1, "),
    ],
)
def test_converting_names_the_layers_and_the_way_out(tmp_path, make, layers):
    model = make()
    torch.save(model, tmp_path / "whole.pth")
    with pytest.raises(Unwritable, match="before it was quantised, or leave") as told:
        tk.convert(tmp_path / "whole.pth", tmp_path / "out.safetensors")
    assert f"packed quantised weights of {layers}" in str(told.value)
    assert not (tmp_path / "out.safetensors").exists()


def test_what_is_not_quantised_is_written_when_the_rest_is_left_out(tmp_path):
    model = dynamic()
    torch.save(model, tmp_path / "whole.pth")
    report = tk.convert(tmp_path / "whole.pth", tmp_path / "out.pth", drop_unsupported=True)
    state = torch.load(tmp_path / "out.pth")
    assert {"0.scale", "0.zero_point", "2.1.weight"} <= state.keys()
    assert torch.equal(state["2.1.weight"], model[2][1].weight)
    left = [name for name, why in report.left_out if why.startswith("quantised tensor")]
    assert left == ["0._packed_params._packed_params.0", "2.0._packed_params._packed_params.0"]


def test_packed_halves_are_written(tmp_path):
    model = halves()
    torch.save(model, tmp_path / "whole.pth")
    tk.convert(tmp_path / "whole.pth", tmp_path / "out.pth", verify=True)
    state = torch.load(tmp_path / "out.pth")
    weight, bias = model.state_dict()["0._packed_params._packed_params"]
    assert torch.equal(state["0._packed_params._packed_params.0"], weight)
    assert torch.equal(state["0._packed_params._packed_params.1"], bias)
    assert torch.equal(state["0.scale"], torch.tensor(model[0].scale))


def test_another_version_of_a_class_is_doubted_and_nothing_is_lost(tmp_path):
    model = dynamic()
    packed = model[0]._modules.pop("_packed_params")
    model[0].__dict__["_packed_params"] = packed._packed_params
    torch.save(model, tmp_path / "whole.pth")
    report = tk.inspect(tmp_path / "whole.pth")
    assert any("a way of its own" in note for note in report.notes)
    assert "0._packed_params.0" in dict(report.unread)
    with pytest.raises(Unwritable):
        tk.convert(tmp_path / "whole.pth", tmp_path / "out.pth")


def test_an_object_of_an_unknown_class_of_c_is_not_taken_apart(tmp_path):
    torch.save(dynamic(), tmp_path / "whole.pth")
    data = (tmp_path / "whole.pth").read_bytes()
    other = data.replace(b"LinearPackedParamsBase", b"LinearPackedParamsCase")
    (tmp_path / "whole.pth").write_bytes(other)
    report = tk.inspect(tmp_path / "whole.pth")
    assert dict(report.unread)["0._packed_params._packed_params"].startswith("object of class")


def test_a_scale_beyond_float32_and_a_huge_zero_point_are_no_tensors(tmp_path):
    model = functional()
    model[0].scale, model[0].zero_point = 1e300, 1 << 70
    torch.save(model, tmp_path / "whole.pth")
    assert tk.inspect(tmp_path / "whole.pth").tensors == []
