"""What torch.jit.save writes: its state dict is what the loaded module gives, nothing is run."""

from __future__ import annotations

import enum
import io
import zipfile
from typing import NamedTuple

import pytest
import torch
from torch import nn

import tensorkeep as tk

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*quantiz.*"),
    pytest.mark.filterwarnings("ignore:Lite Interpreter"),
    pytest.mark.filterwarnings("ignore:Converting a tensor to a Python.*"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
]


class Odd(nn.Module):
    """Everything that an attribute can be."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 3)
        self.register_buffer("kept", torch.arange(4.0))
        self.register_buffer("lost", torch.zeros(2), persistent=False)
        self.register_buffer("none", None)
        self.number, self.text, self.names = 3, "a", ["x", "y"]
        self.loose = torch.full((2,), 7.0)
        self.table = {"x": torch.ones(1)}

    def forward(self, x):
        return self.inner(x).sum() + self.kept.sum() + self.loose.sum() + self.table["x"]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(4, 3)
        self.head = nn.Linear(3, 4, bias=False)
        self.head.weight = self.embed.weight
        self.twice = self.head
        self.layers = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])
        self.named = nn.ModuleDict({"a b": nn.Linear(3, 3)})

    def forward(self, x: torch.Tensor):
        for layer in self.layers:
            x = layer(x)
        for layer in self.named.values():
            x = layer(x)
        return self.twice(self.head(x) @ self.embed.weight)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(2, 3, num_layers=2)
        self.norm = nn.BatchNorm1d(3)
        self.bfloat = nn.Linear(2, 2).to(torch.bfloat16)

    def forward(self, x):
        return self.rnn(x)[0]


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Pair(NamedTuple):
    x: torch.Tensor
    n: int


@torch.jit.script
class Held:
    def __init__(self, factor: int):
        self.factor = factor
        self.tensor = torch.ones(2)


class Values(nn.Module):
    """Values of every type that TorchScript has, and text that looks like code."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.table, self.tensors = {"a": 1}, [torch.ones(1)]
        self.pair, self.number, self.flags = (1, "torch.save"), 1j, [True]
        self.device, self.dtype, self.colour = torch.device("cpu"), torch.float32, Colour.RED
        self.held = Held(3)
        self.text = "# torch and ops, they \" cannot ' save"

    def forward(self, x: torch.Tensor, n: int = 3):
        if n < 0:
            raise ValueError("torch cannot save ops here")
        print("torch says", x.shape)
        pair = Pair(x, n)
        if self.colour == Colour.RED:
            x = x + torch.zeros(2, device=self.device, dtype=self.dtype)
        later = torch.jit.fork(torch.relu, x)
        return pair.x, self.held.tensor, torch.jit.wait(later), self.text


MODULES = {
    "values": lambda: torch.jit.script(Values()),
    "odd": lambda: torch.jit.script(Odd()),
    "tied": lambda: torch.jit.script(Tied()),
    "recurrent": lambda: torch.jit.script(Recurrent()),
    "traced": lambda: torch.jit.trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.ones(1, 2)),
    "transformer": lambda: torch.jit.script(nn.TransformerEncoderLayer(4, 2, 8)),
    "convolutions": lambda: torch.jit.script(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.MaxPool2d(2), nn.Flatten())
    ),
}
every_module = pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)


@pytest.fixture
def saved(tmp_path):
    def saved(module, **extra):
        path = tmp_path / "module.pt"
        torch.jit.save(module, str(path), _extra_files=extra)
        return path

    return saved


@every_module
def test_converted_it_is_the_state_dict_of_the_loaded_module(saved, tmp_path, bits, make):
    path = saved(make())
    expected = torch.jit.load(path).state_dict()
    tk.convert(path, tmp_path / "out.pth")
    got = torch.load(tmp_path / "out.pth")
    assert list(got) == list(expected)
    for name, tensor in expected.items():
        assert (got[name].dtype, got[name].shape) == (tensor.dtype, tensor.shape), name
        assert bits(got[name]) == bits(tensor), name
    report = tk.inspect(path)
    assert (report.kind, report.format, report.writer) == (
        "torchscript",
        "torchscript",
        "torch.jit.save",
    )


@every_module
@pytest.mark.parametrize("deep", [False, True])
def test_an_ordinary_module_is_safe(saved, make, deep):
    report = tk.scan(saved(make()), deep=deep)
    assert [found.what for found in report.findings] == []


def test_what_is_no_state_stays_apart(saved):
    path = saved(torch.jit.script(Odd()), **{"labels.txt": "cat\ndog"})
    with tk.open(path) as ckpt:
        apart = {name for name in ckpt if name.startswith("attributes.")}
        assert apart == {"attributes.loose", "attributes.table.x"}
        assert ckpt["attributes.loose"].numpy().tolist() == [7.0, 7.0]
        values = ckpt.values
    assert values["attributes"] == {"number": 3, "text": "a", "names": ["x", "y"]}
    assert values["extra"] == ["extra/labels.txt"]
    assert values["code"]
    assert all("/code/__torch__" in name for name in values["code"])


def test_ties_are_kept(saved):
    with tk.open(saved(torch.jit.script(Tied()))) as ckpt:
        assert ckpt["model.head.weight"].tied_to == "model.embed.weight"


def test_constants_and_traced_inputs_are_shown_apart(saved, tmp_path):
    weight = torch.tensor([[1.5, 2.0], [3.0, 4.0]])

    class Constant(nn.Module):
        def forward(self, x):
            return x @ weight

    path = saved(torch.jit.trace(Constant(), torch.ones(2, 2)))
    with tk.open(path) as ckpt:
        assert ckpt["constants.c0"].numpy().tolist() == weight.tolist()
        (seen,) = ckpt.values["traced_inputs"].values()
        assert "float32 tensor of shape [2, 2], without values" in seen[0].why
    with pytest.raises(tk.TensorkeepError, match="--section"):
        tk.convert(path, tmp_path / "out.safetensors")
    tk.convert(path, tmp_path / "out.safetensors", section="constants")


def test_a_frozen_module_holds_constants_alone(saved):
    module = torch.jit.freeze(torch.jit.script(nn.Linear(2, 2).eval()))
    with tk.open(saved(module)) as ckpt:
        assert {name.partition(".")[0] for name in ckpt} == {"constants"}
        assert tk.scan(saved(module)).verdict == "safe"


def test_packed_weights_are_named_and_safe(saved):
    module = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(2, 2)), {nn.Linear})
    path = saved(torch.jit.script(module))
    report = tk.inspect(path)
    assert "LinearPackedParamsBase" in report.unread[0][1]
    assert tk.scan(path).verdict == "safe"


def test_saved_for_the_mobile_interpreter(tmp_path):
    path = tmp_path / "module.ptl"
    torch.jit.script(Odd())._save_for_lite_interpreter(str(path))
    assert "model.inner.weight" in tk.open(path)
    assert [found.what for found in tk.scan(path).findings] == []
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("bytecode.pkl"))
        bytecode = archive.read(name).replace(b"\x0c\0\0\0aten::linear", b"\x0a\0\0\0aten::save")
    report = tk.scan(changed(path, **{"bytecode.pkl": bytecode}))
    assert [found.rule for found in report.findings] == ["code/reaches-outside"]


def changed(path, **members):
    """The archive with other bytes for some members, or members more."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for info in old.infolist():
            name = info.filename.partition("/")[2]
            new.writestr(f"{root}/{name}", members.pop(name, old.read(info)))
        for name, data in members.items():
            new.writestr(f"{root}/{name}", data)
    return out.getvalue()


@pytest.mark.parametrize(
    "name", ["constants.pkl", "data.pkl", "traced_inputs.pkl", "code/__torch__.py.debug_pkl"]
)
def test_code_in_any_of_its_pickles_is_dangerous(saved, name):
    data = changed(saved(torch.jit.script(Odd())), **{name: b"cos\nsystem\n(X\x04\0\0\0echotR."})
    assert tk.scan(data).verdict == "dangerous"


def test_what_torch_save_writes_beside_it_is_a_contradiction(saved):
    data = changed(saved(torch.jit.script(Odd())), **{".format_version": b"1"})
    report = tk.scan(data)
    assert (report.verdict, report.findings[0].rule) == ("suspicious", "container/ambiguous")


def rewritten(data, name, content):
    """The archive with another member of this name."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for member in old.namelist():
            own = member.partition("/")[2] == name
            new.writestr(member, content if own else old.read(member))
    return out.getvalue()


@pytest.mark.parametrize("member", ["data.pkl", "constants.pkl"])
def test_a_view_beyond_its_storage_is_found_where_no_walk_meets_it(member):
    # As a key of a dictionary: nobody looks for a tensor there.
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    storage += b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQ"
    view = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00M\xe8\x03\x85K\x01\x85\x89"
    hooks = b"ccollections\nOrderedDict\n)R"
    pickle = b"\x80\x02}" + view + hooks + b"tRK\x01s\x85."
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    report = tk.scan(rewritten(file.getvalue(), member, pickle))
    assert "tensor/out-of-bounds" in {found.rule for found in report.findings}
    assert report.verdict == "dangerous"
