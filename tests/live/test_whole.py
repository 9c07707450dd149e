"""`load_model` makes what torch.load would, from named classes only; and nothing before it may."""

from __future__ import annotations

import functools
import os
import pickle
import struct
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

import tensorkeep as tk
from tensorkeep import errors
from tensorkeep.formats.contents import Inert

HERE = str(Path(__file__).resolve().parent)
sys.path[:0] = [HERE]
import trusted_zoo as zoo  # noqa: E402


def saved(value: object, path: Path, **options: object) -> Path:
    torch.save(value, path, **options)
    return path


@pytest.fixture
def net() -> zoo.Net:
    torch.manual_seed(0)
    return zoo.Net()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"_use_new_zipfile_serialization": False},
        {"pickle_protocol": 4},
        {"pickle_protocol": 5},
    ],
    ids=["zip", "legacy", "protocol 4", "protocol 5"],
)
def test_a_model_is_the_one_that_torch_loads(net, tmp_path, options) -> None:
    path = saved(net, tmp_path / "net.pt", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = tk.load_model(path, zoo.NAMES, require="safe")
    wanted = torch.load(path, weights_only=False)
    assert type(found) is zoo.Net
    assert list(found.state_dict()) == list(wanted.state_dict())
    for one, other in zip(found.state_dict().values(), wanted.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    x = torch.randn(5, 3)
    assert torch.equal(found(x), wanted(x))
    assert found.seen == float(
        wanted.head.weight.detach().sum()
    )  # torch shows some classes garbage
    assert found.config.mode is zoo.Mode.SLOW
    assert found.block.inner.depth == 2
    assert found.block.norm is torch.nn.LayerNorm
    assert type(found.registry) is zoo.Registry and found.registry == {"a": 1}
    assert found.order["x"] is found.block
    assert found.tied is found.head
    assert all(p.requires_grad for p in found.parameters())
    found(x).sum().backward()


def test_every_missing_name_is_said_at_once(net, tmp_path) -> None:
    path = saved(net, tmp_path / "net.pt")
    with pytest.raises(errors.Untrusted) as caught:
        tk.load_model(path, ["trusted_zoo.Net"])
    for name in zoo.NAMES[1:]:
        assert name in caught.value.remedy
    assert "convert" in caught.value.remedy
    # The remedy is one: the names that it lists are enough.
    names = eval(caught.value.remedy.partition("trust=")[2].partition("]")[0] + "]")
    assert isinstance(tk.load_model(path, names), zoo.Net)


def test_nothing_is_imported_before_everything_is_trusted(net, tmp_path) -> None:
    path = saved(net, tmp_path / "net.pt")
    code = (
        "import sys, tensorkeep as tk\n"
        f"try: tk.load_model({str(path)!r}, {zoo.NAMES[:-1]!r})\n"
        "except tk.TensorkeepError as error: print(type(error).__name__)\n"
        "print('trusted_zoo' in sys.modules)"
    )
    env = {**os.environ, "ZOO_IMPORTED": "1", "PYTHONPATH": HERE}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["Untrusted", "False"]


def test_classes_themselves_can_be_given(net, tmp_path) -> None:
    classes = [zoo.Net, zoo.Config, zoo.Block, zoo.Block.Inner, zoo.Mode, zoo.Registry]
    assert isinstance(tk.load_model(saved(net, tmp_path / "net.pt"), classes), zoo.Net)


def test_models_of_torch_need_no_names(tmp_path) -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3),
        torch.nn.BatchNorm2d(2),
        torch.nn.Flatten(),
        torch.nn.TransformerEncoderLayer(72, 2, batch_first=True),
    ).eval()
    path = saved(model, tmp_path / "net.pt")
    x = torch.randn(2, 1, 8, 8)
    found = tk.load_model(path, require="safe")
    assert not found.training
    assert torch.equal(found(x), model(x))


def test_a_model_in_a_checkpoint_is_named_by_its_key(net, tmp_path) -> None:
    path = saved({"epoch": 3, "model": net}, tmp_path / "run.pt")
    assert isinstance(tk.load_model(path, zoo.NAMES, section="model"), zoo.Net)
    with pytest.raises(errors.BadArgument, match="section='model'"):
        tk.load_model(path, zoo.NAMES)
    with pytest.raises(errors.UnknownSection, match="'model'"):
        tk.load_model(path, zoo.NAMES, section="nothing")


def test_a_state_dict_is_no_model(tmp_path, digits) -> None:
    with pytest.raises(errors.BadArgument, match=r"tensorkeep\.load"):
        tk.load_model(saved({"a": torch.ones(1)}, tmp_path / "x.pt"))
    with pytest.raises(errors.BadArgument):
        tk.load_model(digits)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_hooks_are_classes_to_trust(tmp_path) -> None:
    model = torch.nn.utils.weight_norm(torch.nn.Linear(2, 2))
    path = saved(model, tmp_path / "net.pt")
    name = "torch.nn.utils.weight_norm.WeightNorm"
    with pytest.raises(errors.Untrusted, match=f"{name} .a hook of torch"):
        tk.load_model(path)
    x = torch.randn(3, 2)
    assert torch.equal(tk.load_model(path, [name], require="safe")(x), model(x))


@pytest.mark.parametrize(
    "names",
    [
        "pkg.Class",
        ["Class"],
        ["pkg.Class()"],
        [3],
        ["os.system"],
        ["functools.partial"],
        ["pkg.models.os.system"],  # wherever the file ends the module
    ],
)
def test_what_is_no_name_of_a_class_is_no_trust(tmp_path, names) -> None:
    with pytest.raises(errors.BadArgument, match="trust"):
        tk.load_model(tmp_path / "absent.pt", names)


class Made:
    """Pickles as whatever call it is given."""

    def __init__(self, *reduced: object) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[object, ...]:
        return self.reduced


def test_a_call_that_nobody_trusts_is_an_error(net, tmp_path) -> None:
    net.extra = Made(os.getpid, ())
    path = saved(net, tmp_path / "net.pt")
    with pytest.raises(errors.Untrusted, match="getpid"):
        tk.load_model(path, zoo.NAMES)
    with pytest.raises(errors.NotSafe, match="getpid"):
        tk.load_model(path, zoo.NAMES, require="safe")


@pytest.mark.parametrize("function", [os.system, functools.partial])
def test_nobody_is_told_to_trust_what_does_harm(net, tmp_path, function) -> None:
    net.extra = Made(function, ("true",))
    path = saved(net, tmp_path / "net.pt")
    with pytest.raises(errors.Untrusted, match=f"{function.__name__} .would ") as caught:
        tk.load_model(path, zoo.NAMES)
    assert "trust=" not in caught.value.remedy
    with tk.guard(trust=zoo.NAMES), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held = torch.load(path, weights_only=False)
    with pytest.raises(AttributeError) as unknown:
        held.extra.field  # noqa: B018
    assert "trust=" not in str(unknown.value)


def test_a_name_of_a_million_parts_takes_no_time(net, tmp_path) -> None:
    name = b".".join([b"a"] * (1 << 20))
    data = b"\x80\4\x8c\5other\x8d" + struct.pack("<Q", len(name)) + name + b"\x93)R."
    (tmp_path / "x.pkl").write_bytes(data)
    started = time.process_time()
    with tk.guard(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held = torch.load(tmp_path / "x.pkl", weights_only=False)
    with pytest.raises(AttributeError) as unknown:
        held.field  # noqa: B018
    assert "trust=" not in str(unknown.value)
    with pytest.raises(errors.Untrusted) as untrusted:
        tk.load_model(tmp_path / "x.pkl")
    assert "trust=" not in str(untrusted.value)
    assert time.process_time() - started < 20


def test_what_a_dangerous_file_does_beside_the_model_is_not_done_and_said(net, tmp_path) -> None:
    path = saved({"model": net, "beside": Made(os.getpid, ())}, tmp_path / "run.pt")
    with pytest.warns(
        errors.NotSafeWarning,
        match=r"would call posix\.getpid.*; nothing was run but code of classes",
    ):
        assert isinstance(tk.load_model(path, zoo.NAMES, section="model"), zoo.Net)


@pytest.mark.parametrize("stands_for", [os, os.system, functools.partial])
def test_a_trusted_name_is_no_alias_of_something_else(tmp_path, monkeypatch, stands_for) -> None:
    monkeypatch.setattr(zoo, "Alias", stands_for, raising=False)
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02ctrusted_zoo\nAlias\nX\4\0\0\0true\x85R.")
    with tk.guard(trust=["trusted_zoo.Alias"]) as guarded:
        with pytest.raises(pickle.UnpicklingError, match=r"trusted_zoo\.Alias to be a class of"):
            torch.load(tmp_path / "x.pkl", weights_only=False)
        # Nor does a dotted name walk through it.
        data = b"\x80\4\x8c\x0btrusted_zoo\x8c\x0cAlias.getpid\x93)R."
        (tmp_path / "x.pkl").write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert isinstance(torch.load(tmp_path / "x.pkl", weights_only=False), Inert)
    assert [event.outcome for event in guarded.log.events] == ["refused", "loaded"]


def test_a_function_that_is_named_is_called(net, tmp_path) -> None:
    """For a class whose objects are made by one; what it does with the file is what is trusted."""
    path = saved(Made(zoo.rebuilt, (7,)), tmp_path / "x.pt")
    name = "trusted_zoo.rebuilt"
    with pytest.raises(errors.Untrusted, match=name):
        tk.load_model(path)
    assert tk.load_model(path, [name], require="safe").seven == 7


def test_a_state_that_hides_a_method_makes_no_module_of_torch(tmp_path) -> None:
    model = torch.nn.Linear(1, 1)
    model.forward = torch.nn.Linear
    with pytest.raises(errors.Untrusted, match="pickle/shadowing-key"):
        tk.load_model(saved(model, tmp_path / "net.pt"))


def test_slots_are_set_and_nothing_else_is(tmp_path) -> None:
    slotted = zoo.Slotted()
    slotted.a, slotted.b = 1, [2]
    model = torch.nn.Identity()
    model.extra = slotted
    name = "trusted_zoo.Slotted"
    path = saved(model, tmp_path / "net.pt", pickle_protocol=4)
    with pytest.warns(errors.NotSafeWarning, match="would set the state of"):
        found = tk.load_model(path, [name])
    assert (found.extra.a, found.extra.b) == (1, [2])
    # The same program with another key: it would change the object's class.
    data = pickle.dumps(slotted, 4).replace(b"\x8c\x01a", b"\x8c\x09__class__")
    data = b"\x80\x04" + data[11:]  # without the frame, whose length is another one now
    (tmp_path / "odd.pkl").write_bytes(data)
    with pytest.raises(errors.Unsupported, match="no slot"), pytest.warns(errors.NotSafeWarning):
        tk.load_model(tmp_path / "odd.pkl", [name])


def test_members_of_an_enumeration_may_be_named_and_nothing_else_of_it(tmp_path) -> None:
    for name, found in ((b"FAST", True), (b"__subclasses__", False), (b"mro", False)):
        # As protocol 2 writes an attribute of a class, beside a trusted object.
        value = b"cbuiltins\ngetattr\nctrusted_zoo\nMode\nX%c\0\0\0%s\x86R" % (len(name), name)
        data = b"\x80\x02ctrusted_zoo\nRegistry\n)\x81X\1\0\0\0a" + value + b"s."
        (tmp_path / "x.pkl").write_bytes(data)
        trust = ["trusted_zoo.Registry", "trusted_zoo.Mode"]
        with tk.guard(trust=trust), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            held = torch.load(tmp_path / "x.pkl", weights_only=False)
        assert type(held) is zoo.Registry
        assert (held["a"] is zoo.Mode.FAST) is found
        assert isinstance(held["a"], Inert) is not found


def test_members_of_an_enumeration_are_not_changed(tmp_path) -> None:
    data = (
        b"\x80\x04\x8c\x0btrusted_zoo\x8c\x04Mode\x93\x8c\x04fast\x85R"
        b"}\x8c\x07_value_\x8c\x04evilsb."
    )
    (tmp_path / "odd.pkl").write_bytes(data)
    with pytest.raises(errors.Unsupported, match="others use"):
        tk.load_model(tmp_path / "odd.pkl", ["trusted_zoo.Mode"])
    assert zoo.Mode.FAST.value == "fast"


def test_a_class_that_is_not_there_is_a_sentence(net, tmp_path, monkeypatch) -> None:
    path = saved(net, tmp_path / "net.pt")
    monkeypatch.delattr(zoo, "Config")
    with pytest.raises(errors.Unsupported, match=r"trusted_zoo\.Config to be importable"):
        tk.load_model(path, zoo.NAMES)


def test_a_class_that_refuses_its_state_is_a_sentence(net, tmp_path, monkeypatch) -> None:
    path = saved(net, tmp_path / "net.pt")

    def refuse(_self, _state):
        raise ValueError("older version")

    monkeypatch.setattr(zoo.Net, "__setstate__", refuse)
    with pytest.raises(errors.Unsupported, match="ValueError: older version"):
        tk.load_model(path, zoo.NAMES)
