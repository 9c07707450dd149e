"""Modules saved whole: what is read is what `state_dict()` gives, without the class."""

from __future__ import annotations

import importlib
import io
import json
import struct
import zipfile
from collections import OrderedDict

import pytest
import torch
from torch import nn

import tensorkeep as tk

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Lazy modules.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*quantiz.*"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor.*:UserWarning"),
]


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.linear = nn.Linear(width, width)
        self.register_buffer("scale", torch.rand(width))
        self.register_buffer("cache", torch.rand(100), persistent=False)
        self.register_buffer("nothing", None)
        self.register_parameter("absent", None)
        self.loose = torch.rand(7)  # no part of a state dict
        self.width = width


class Net(nn.Module):
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3, 3))

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.blocks = nn.ModuleList(Block(4) for _ in range(2))
        self.again = self.blocks[0]  # one module under two names
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        self.inner = Net.Inner()
        self.off = nn.Parameter(torch.rand(2), requires_grad=False)
        self.parent = [self]  # a circle that a state dict does not follow


class Own(nn.Module):
    """Says itself what is pickled."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.handle = lambda: None  # could not be pickled

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != "handle"}


class Reduced(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def __reduce__(self):
        return (Reduced, (), self.__dict__.copy())


def weight_norm():
    return nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 2)), nn.ReLU())


def spectral_norm():
    return nn.utils.spectral_norm(nn.Linear(3, 2))


def parameter_containers():
    module = nn.Module()
    module.list = nn.ParameterList([torch.rand(2), torch.rand(3)])
    module.dict = nn.ParameterDict({"b": torch.rand(1), "a": torch.rand(2)})
    module.modules_ = nn.ModuleDict({"x": nn.Linear(1, 1), "none": nn.Identity()})
    return module


def lazy():
    module = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    module(torch.rand(4, 2))
    return module


def traced():
    return torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))


def tied_layers():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    module[2] = module[0]
    module[1].weight = module[0].weight
    return module


def half_and_views():
    module = nn.Linear(4, 4).half()
    module.bias.data = torch.rand(8).half()[::2]
    return module


def observed():
    module = torch.ao.quantization.FakeQuantize()
    module(torch.rand(4))
    return nn.Sequential(module, torch.ao.quantization.HistogramObserver())


MODELS = [
    Net,
    Own,
    Reduced,
    Net.Inner,
    weight_norm,
    spectral_norm,
    parameter_containers,
    lazy,
    traced,
    tied_layers,
    half_and_views,
    observed,
    nn.Identity,
    lambda: nn.Linear(2, 3),
    lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2),
    lambda: nn.GRU(3, 4),
    lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=3),
    lambda: nn.Transformer(4, 2, 1, 1, 8),
    lambda: nn.TransformerEncoderLayer(4, 2),
    lambda: nn.Sequential(OrderedDict(a=nn.Conv2d(1, 2, 3), b=nn.PReLU(), c=nn.GroupNorm(1, 2))),
    lambda: nn.DataParallel(nn.Linear(2, 2)),
    lambda: nn.EmbeddingBag(3, 2),
    lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True),
    lambda: nn.Bilinear(2, 2, 2),
    lambda: nn.ConvTranspose2d(2, 2, 3),
    lambda: torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2)),
]


def torch_zip(model, buffer):
    torch.save(model, buffer)


def zip_protocol_4(model, buffer):
    torch.save(model, buffer, pickle_protocol=4)


def same(path, expected, section=""):
    """What is read is `expected`: names in order, values bit for bit, ties."""
    with tk.open(path) as ckpt:
        chosen = ckpt.select(section)
        assert list(chosen) == list(expected)
        for name, tensor in expected.items():
            assert chosen[name].shape == tuple(tensor.shape)
            bits = tensor.contiguous().view(torch.uint8) if tensor.dim() else tensor.view(1)
            assert chosen[name].read() == bits.numpy().tobytes(), name
        kept = {}
        for name, tensor in expected.items():
            place = (tensor.data_ptr(), tensor.shape, tensor.stride())
            first = kept.setdefault(place, name) if tensor.numel() else name
            prefix = f"{section}." if section else ""
            assert chosen[name].tied_to == (prefix + first if first != name else None), name
        return ckpt.kind


@pytest.mark.parametrize("write", [torch_zip, zip_protocol_4])
@pytest.mark.parametrize("make", MODELS, ids=lambda make: getattr(make, "__name__", "module"))
def test_it_is_the_state_dict(tmp_path, make, write):
    torch.manual_seed(0)
    model, path = make(), tmp_path / "model.pth"
    with path.open("wb") as file:
        write(model, file)
    assert same(path, model.state_dict()) == "whole_model"
    names = {name or "" for name, _ in model.named_modules(remove_duplicate=False)}
    if make is not traced:
        assert {module.name for module in tk.inspect(path).modules} == names


@pytest.mark.parametrize("section", ["model", "ema"])
def test_inside_a_training_checkpoint(tmp_path, section):
    model, average = Net(), Net()
    value = {"model": model, "ema": average, "epoch": 3, "train_args": {"lr": 0.1}}
    torch.save(value, tmp_path / "last.pt")
    assert same(tmp_path / "last.pt", value[section].state_dict(), section) == "training_checkpoint"


def test_what_was_converted_loads_into_the_model(tmp_path):
    model, twin = Net(), Net()
    torch.save(model, tmp_path / "model.pth")
    for name in ("out.pth", "out.safetensors"):
        report = tk.convert(tmp_path / "model.pth", tmp_path / name)
        assert any("state dict recovered" in note for note in report.notes)
        assert sum("Net" in note and "override" in note for note in report.notes) == 1
    twin.load_state_dict(torch.load(tmp_path / "out.pth"))
    for name, tensor in model.state_dict().items():
        assert torch.equal(twin.state_dict()[name], tensor)


def test_ordered_dicts_and_no_list_of_persistent_buffers_before_torch_1_6(tmp_path):
    model = nn.BatchNorm1d(2)
    for name in ("_parameters", "_buffers", "_modules"):
        model.__dict__[name] = OrderedDict(model.__dict__[name])
    del model.__dict__["_non_persistent_buffers_set"]
    torch.save(model, tmp_path / "model.pth")
    same(tmp_path / "model.pth", nn.BatchNorm1d(2).state_dict())


def add_one(module, state, prefix, local):
    state[prefix + "more"] = torch.ones(1)


def before(module, prefix, keep):
    pass


def rename(state, *_):
    pass


@pytest.mark.parametrize(
    ("register", "words"),
    [
        (lambda m: m._register_state_dict_hook(add_one), "hooks change its state dict"),
        (lambda m: m.register_state_dict_pre_hook(before), "before its state dict is made"),
        (lambda m: m._register_load_state_dict_pre_hook(rename), "before it is loaded"),
    ],
)
def test_hooks_are_named_as_unknown(tmp_path, register, words):
    model = nn.Sequential(nn.Linear(2, 2))
    register(model[0])
    torch.save(model, tmp_path / "model.pth")
    notes = tk.inspect(tmp_path / "model.pth").notes
    assert any(words in note and "0 is torch.nn.Linear" in note for note in notes)


def test_torch_s_own_hooks_that_change_nothing_are_not(tmp_path):
    torch.save(spectral_norm(), tmp_path / "model.pth")
    notes = tk.inspect(tmp_path / "model.pth").notes
    assert not any("before its state dict is made" in n or "change its" in n for n in notes)


def test_nothing_is_said_of_what_torch_s_own_classes_could_do(tmp_path):
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "model.pth")
    assert not any("override" in note for note in tk.inspect(tmp_path / "model.pth").notes)


def test_uninitialised_parameters_are_named(tmp_path):
    torch.save(nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3)), tmp_path / "model.pth")
    report = tk.inspect(tmp_path / "model.pth")
    assert report.unread == [
        ("1.weight", "uninitialised parameter"),
        ("1.bias", "uninitialised parameter"),
    ]
    with pytest.raises(tk.TensorkeepError, match="uninitialised"):
        tk.convert(tmp_path / "model.pth", tmp_path / "out.pth")
    tk.convert(tmp_path / "model.pth", tmp_path / "out.pth", drop_unsupported=True)
    assert list(torch.load(tmp_path / "out.pth")) == ["0.weight", "0.bias"]


def overriding():
    """Classes of torch that say themselves what their state dict is."""
    for name in ("intrinsic.quantized.dynamic", "quantized.dynamic", "sparse.quantized"):
        importlib.import_module(f"torch.ao.nn.{name}")
    todo, found = [nn.Module], []
    while todo:
        for cls in todo.pop().__subclasses__():
            todo.append(cls)
            own = [
                name
                for name in ("state_dict", "_save_to_state_dict", "get_extra_state")
                if getattr(cls, name) is not getattr(nn.Module, name)
            ]
            if own and cls.__module__.startswith("torch."):
                found.append(f"{cls.__module__}.{cls.__qualname__}")
    return sorted(set(found))


# They put the same tensors there under the same names: compared above, or by reading them.
SAME = ("torch.nn.modules.", "torch.ao.quantization.", "torch.jit.", "torch.export.")


def test_every_class_of_torch_that_overrides_is_known():
    from tensorkeep.formats._modules import _OWN_STATE

    found = overriding()
    assert len(found) > 20
    assert [name for name in found if not name.startswith((*SAME, *_OWN_STATE))] == []


def test_state_that_changes_after_it_was_given_is_not_believed(tmp_path):
    """The dict goes on changing in the file; what the object was given is not what is there now."""
    tail = b"\x80\x02ctorch.nn.modules.module\nModule\n)\x81}q\x00(X\x0b\x00\x00\x00_parameters}"
    tail += b"X\x08\x00\x00\x00_buffers}X\x08\x00\x00\x00_modules}ubh\x00X\x01\x00\x00\x00xNs0."
    path = tmp_path / "model.pth"
    torch.save({"a": 1}, path)
    path.write_bytes(with_pickle(path, tail))
    report = tk.inspect(path)
    assert report.modules == [] and report.kind != "state_dict"


def with_pickle(path, data):
    out = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            kept = data if name.endswith("data.pkl") else source.read(name)
            target.writestr(name, kept)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["GPT2", "Bert"])
def test_models_of_transformers(tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    sizes = {
        "GPT2": {"n_layer": 2, "n_head": 2, "n_embd": 8, "vocab_size": 11, "n_positions": 7},
        "Bert": {
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "hidden_size": 8,
            "intermediate_size": 8,
            "vocab_size": 11,
        },
    }[kind]
    config = getattr(transformers, f"{kind}Config")(**sizes)
    head = {"GPT2": "GPT2LMHeadModel", "Bert": "BertForMaskedLM"}[kind]
    model = getattr(transformers, head)(config)
    torch.save(model, tmp_path / "model.pth")
    assert same(tmp_path / "model.pth", model.state_dict()) == "whole_model"
    with tk.open(tmp_path / "model.pth") as ckpt:
        assert any(ref.tied_to for ref in ckpt.tensors.values())


HUGE = b"\x8b" + struct.pack("<I", 5000) + b"\x7f" * 5000  # 12,000 digits: Python refuses them


@pytest.mark.parametrize(
    "parameters",
    [
        b"ccollections\nOrderedDict\n)R]Ns",  # a list as a key, which no dict takes
        b"}" + HUGE + b"Ns",
        b"}X\x01\x00\x00\x00x" + HUGE + b"s",
        b"}X\x01\x00\x00\x00xh\x00s",  # the module itself
    ],
)
def test_odd_parameters_do_no_harm(tmp_path, parameters):
    state = b"X\x0b\x00\x00\x00_parameters" + parameters
    state += b"X\x08\x00\x00\x00_buffers}X\x08\x00\x00\x00_modules}"
    data = b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81q\x00}(" + state + b"ub."
    path = tmp_path / "model.pth"
    torch.save({"a": 1}, path)
    path.write_bytes(with_pickle(path, data))
    report = tk.inspect(path)
    assert report.kind == "whole_model" and report.tensors == []
    assert json.dumps(report.to_dict())
