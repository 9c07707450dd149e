"""What torch.export.save writes: weights by name, sample inputs and graphs judged, nothing run."""

from __future__ import annotations

import functools
import io
import json
import zipfile

import pytest
import torch
from torch import nn
from torch.export import Dim

import tensorkeep as tk

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:No complete tensor found"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
]
EVIL = b"cos\nsystem\n(X\x04\0\0\0echotR."


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 2)
        self.second = nn.Linear(2, 4, bias=False)
        self.tied = self.first.weight
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("lost", torch.ones(2), persistent=False)
        self.register_buffer("view", torch.arange(6.0).view(2, 3).t()[1:], persistent=True)
        self.loose = torch.full((2,), 7.0)

    def forward(self, x):
        x = self.norm(self.first(x)) + self.lost + self.loose + self.view.sum() + self.tied.sum()
        return {"out": self.second(x).repeat(3, 1)}


@functools.cache
def exported(**options):
    dynamic = {"x": {0: Dim("batch", min=2, max=100)}}
    program = torch.export.export(
        Model().eval(), (torch.arange(4000.0).view(1000, 4)[:8],), dynamic_shapes=dynamic
    )
    buffer = io.BytesIO()
    torch.export.save(program, buffer, **options)
    return buffer.getvalue(), program.state_dict


def changed(data, change):
    """The archive again, each member through `change(name, data)`; "more" adds members."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for info in old.infolist():
            name = info.filename.partition("/")[2]
            new.writestr(f"{root}/{name}", change(name, old.read(info)))
        for name, content in getattr(change, "more", {}).items():
            new.writestr(f"{root}/{name}", content)
    return out.getvalue()


def replaced(data, **members):
    def change(name, content):
        return members.get(name, content)

    present = set(zipfile.ZipFile(io.BytesIO(data)).namelist())
    root = min(present).partition("/")[0]
    change.more = {name: c for name, c in members.items() if f"{root}/{name}" not in present}
    return changed(data, change)


def test_weights_are_those_of_the_program(bits, tmp_path):
    data, state = exported()
    with tk.open(data) as ckpt:
        assert (ckpt.kind, ckpt.format, ckpt.writer) == (
            "exported_program",
            "pt2",
            "torch.export.save",
        )
        for name, tensor in state.items():
            ref = ckpt[f"model.{name}"]
            assert ref.read() == bits(tensor.detach().contiguous()), name
            assert ref.record.parameter == isinstance(tensor, nn.Parameter), name
        names = {name.removeprefix("model.") for name in ckpt if name.startswith("model.")}
        assert names == set(state)
        assert {"model.tied", "model.first.weight"} & {r.tied_to for r in ckpt.tensors.values()}
        assert {"constants.lost", "constants.loose"} <= set(ckpt)
    tk.convert(data, tmp_path / "out.pth")
    assert set(torch.load(tmp_path / "out.pth")) == set(state)


@pytest.mark.parametrize("deep", [False, True])
def test_an_ordinary_program_is_safe(deep):
    report = tk.scan(exported()[0], deep=deep)
    assert [found.what for found in report.findings] == []


def test_a_sample_input_that_carries_more_than_it_shows_is_noted():
    report = tk.inspect(exported()[0])
    assert any("holds 16000 bytes, its tensors show 128" in note for note in report.notes)
    assert "sample_inputs" in {section.name for section in report.sections}


@pytest.mark.parametrize(
    "name",
    [
        "data/sample_inputs/model.pt",
        "data/constants/opaque_obj_0",
        "data/weights/model.pt",
        "extra/notes.txt",
        "models/other.bin",
    ],
)
def test_code_in_any_pickle_is_dangerous(name):
    evil = io.BytesIO()
    with zipfile.ZipFile(evil, "w") as archive:
        archive.writestr("a/data.pkl", EVIL)
        archive.writestr("a/version", "3")
    content = evil.getvalue() if name.endswith(".pt") else EVIL
    assert tk.scan(replaced(exported()[0], **{name: content})).verdict == "dangerous"


def graph(change):
    """The program with its graph's JSON changed."""
    data, _ = exported()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        root = archive.namelist()[0].partition("/")[0]
        program = json.loads(archive.read(f"{root}/models/model.json"))
    change(program)
    return replaced(data, **{"models/model.json": json.dumps(program).encode()})


def expression(text):
    def change(program):
        values = program["graph_module"]["graph"]["sym_int_values"]
        values["more"] = {"as_expr": {"expr_str": text, "hint": None}}

    return change


def target(text):
    def change(program):
        program["graph_module"]["graph"]["nodes"][0]["target"] = text

    return change


def guard(text):
    return lambda program: program.update(guards_code=[text])


def tree(context):
    spec = [1, {"type": "collections.defaultdict", "context": context, "children_spec": []}]

    def change(program):
        program["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps(spec)

    return change


def factory(module, name):
    return json.dumps(
        {"default_factory_module": module, "default_factory_name": name, "dict_context": []}
    )


CHANGES = {
    "eval": (expression("__import__('os').system('echo')"), "dangerous"),
    "attribute": (expression("Symbol('s').__class__"), "dangerous"),
    "text": (expression("eval('1 + 1')"), "dangerous"),
    "breakpoint": (expression("breakpoint()"), "dangerous"),
    "unheard": (expression("Unheard(3)"), "suspicious"),
    "arithmetic": (expression("Mul(Integer(3), Symbol('s77', positive=True))"), "safe"),
    "infix": (expression("2*s0 // 3 + Max(1, s1)"), "safe"),
    "torch_os": (target("torch.serialization.os.system"), "dangerous"),
    "hub": (target("torch.hub.load"), "dangerous"),
    "from_file": (target("torch.ops.aten.from_file.default"), "dangerous"),
    "custom": (target("torch.ops.mine.anything.default"), "suspicious"),
    "operator": (target("_operator.add"), "safe"),
    "attrgetter": (target("_operator.attrgetter"), "dangerous"),
    "sym": (target("torch.sym_max"), "safe"),
    "guard": (guard("L['x'].size()[0] % 2 == 0"), "safe"),
    "guard_code": (guard("print(open('/etc/passwd').read())"), "dangerous"),
    "factory": (tree(factory("builtins", "list")), "safe"),
    "factory_code": (tree(factory("os", "system")), "dangerous"),
    "enum": (tree(json.dumps({"__enum__": True, "fqn": "somewhere:E", "name": "A"})), "suspicious"),
}


@pytest.mark.parametrize(("change", "verdict"), CHANGES.values(), ids=CHANGES)
def test_what_the_graph_asks_its_loader_for(change, verdict):
    report = tk.scan(graph(change))
    assert report.verdict == verdict, [found.what for found in report.findings]


def weights(change):
    data, _ = exported()
    name = "data/weights/model_weights_config.json"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        root = archive.namelist()[0].partition("/")[0]
        config = json.loads(archive.read(f"{root}/{name}"))
    change(config["config"]["first.weight"])
    return replaced(data, **{name: json.dumps(config).encode()})


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda m: m.update(path_name="../../etc/passwd"), "container/path-traversal"),
        (lambda m: m.update(path_name="/etc/passwd"), "container/path-traversal"),
        (lambda m: m.update(path_name="weight_99"), "tensor/odd"),
        (
            lambda m: m["tensor_meta"].update(sizes=[{"as_int": 1 << 40}, {"as_int": 4}]),
            "tensor/out-of-bounds",
        ),
        (lambda m: m["tensor_meta"].update(storage_offset={"as_int": 10}), "tensor/out-of-bounds"),
    ],
)
def test_weights_outside_their_bytes(change, rule):
    data = weights(change)
    assert rule in {found.rule for found in tk.scan(data).findings}
    with tk.open(data) as ckpt:
        ref = ckpt.tensors.get("model.first.weight")
        if ref is not None:
            with pytest.raises(tk.TensorkeepError):
                ref.read()


@pytest.mark.parametrize("odd", [None, [], {"dtype": 7}, {"dtype": "x", "sizes": 3}])
def test_a_description_that_is_none_is_named(odd):
    report = tk.inspect(weights(lambda m: m.update(tensor_meta=odd)))
    assert ("model.first.weight", "tensor whose description is not torch's") in report.unread


def test_compiled_code_is_suspicious():
    data = replaced(exported()[0], **{"data/aotinductor/model/a.so": b"\x7fELF" + bytes(100)})
    report = tk.scan(data)
    assert (report.verdict, {found.rule for found in report.findings}) == (
        "suspicious",
        {"container/native-code"},
    )


def old_layout():
    """As torch 2.6 wrote it: a zip without a root folder."""
    files = {}
    for name, value in (
        ("state_dict", {"w": torch.ones(2)}),
        ("constants", {}),
        ("example_inputs", ((), {})),
    ):
        buffer = io.BytesIO()
        torch.save(value, buffer)
        files[f"serialized_{name}.pt"] = buffer.getvalue()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("version", "8.7")
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def test_the_older_layout(tmp_path):
    with tk.open(old_layout()) as ckpt:
        assert list(ckpt) == ["model.w"]
    assert [found.what for found in tk.scan(old_layout()).findings] == []


def test_archive_format_beside_a_pickle_is_a_contradiction():
    data = replaced(exported()[0], **{"data.pkl": EVIL})
    report = tk.scan(data)
    assert report.verdict == "dangerous"
    assert "container/ambiguous" in {found.rule for found in report.findings}


@pytest.mark.parametrize("name", ["models/other.json", "models/a/b.json", "models/other.jsox"])
def test_every_model_in_it_is_judged(name):
    """The loader takes whatever lies below models/."""
    evil = json.dumps({"guards_code": ["exit()"]}).encode()
    assert tk.scan(replaced(exported()[0], **{name: evil})).verdict == "dangerous"


def test_a_graph_that_is_no_json_is_not_passed_over():
    report = tk.scan(replaced(exported()[0], **{"models/model.json": b"{"}))
    assert report.verdict == "unknown"
