"""What torch's restricted unpickler needs, proved by letting it load the files."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import enum
import fractions
import io
import pathlib
import pickle
import uuid
import warnings

import numpy
import pytest
import torch
import torch._weights_only_unpickler as restricted

import tensorkeep as tk
from tensorkeep.errors import Damaged, NotFound, Unsupported
from tensorkeep.scanning import _torch_allowed as data
from tensorkeep.scanning import weights_only

HONEST = {
    "numpy float": numpy.float64(1.5),
    "numpy int": numpy.int64(3),
    "numpy bool": numpy.bool_(True),
    "numpy complex": numpy.complex64(1j),
    "numpy array": numpy.arange(5.0),
    "numpy text": numpy.array(["ab", "c"]),
    "numpy time": numpy.datetime64("2020-01-01"),
    "numpy dtype": numpy.dtype("f4"),
    "RandomState": numpy.random.RandomState(0),
    "Generator": numpy.random.default_rng(0),
    "Namespace": argparse.Namespace(lr=0.1, layers=[1, 2]),
    "datetime": datetime.datetime(
        2020, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1))
    ),
    "date": datetime.date(2020, 1, 1),
    "Decimal": decimal.Decimal("1.5"),
    "Fraction": fractions.Fraction(1, 3),
    "UUID": uuid.UUID(int=5),
    "path": pathlib.PurePosixPath("/a/b"),
    "slice": slice(1, 2),
    "range": range(3),
    "frozenset": frozenset([1]),
    "empty defaultdict": collections.defaultdict(list),
    "enum": uuid.SafeUUID.safe,
    "module": torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.GELU()),
    "optimizer": {"schedule": torch.optim.lr_scheduler.LinearLR},
}
AS_IT_IS = {
    "state dict": torch.nn.Linear(2, 2).state_dict(),
    "plain": {"a": [1, 2.0, None, "x", (1,), {2}, b"bytes", 1j]},
    "Counter": collections.Counter("hello"),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "sparse": torch.eye(3).to_sparse(),
    "view": torch.arange(6).reshape(2, 3).t(),
}
NEVER = {
    "filled defaultdict": collections.defaultdict(list, {1: [2]}),
    "deque": collections.deque([1]),
}


@pytest.fixture(autouse=True)
def clean():
    """No name of another test is allowed."""
    torch.serialization.clear_safe_globals()
    yield
    torch.serialization.clear_safe_globals()


def saved(value):
    buffer = io.BytesIO()
    torch.save({"value": value, "weight": torch.ones(2)}, buffer)
    return buffer.getvalue()


def loads(data, names=()):
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(list(names))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(io.BytesIO(data), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, AttributeError, TypeError):
        return False
    return True


def listed(told):
    """The objects of the code that was printed."""
    space = {}
    imports, _, call = told.code.partition("\n\n")
    exec(imports, space)
    inner = call.removeprefix("torch.serialization.add_safe_globals(").removesuffix(")")
    return eval(inner, space)


@pytest.mark.parametrize("value", HONEST.values(), ids=HONEST)
def test_exactly_this_list_lets_torch_load_the_file(value):
    content = saved(value)
    told = tk.safe_globals(content)
    assert not loads(content)
    assert (told.loads, told.obstacles) == (False, ())
    names = listed(told)
    assert len(names) == len(told.needed)
    assert loads(content, names)
    for left_out in range(len(names)):
        assert not loads(content, names[:left_out] + names[left_out + 1 :]), names[left_out]


def test_the_code_runs_as_it_is_printed():
    content = saved(HONEST["numpy float"])
    exec(tk.safe_globals(content).code, {})
    assert torch.load(io.BytesIO(content), weights_only=True)["value"] == 1.5


@pytest.mark.parametrize("value", AS_IT_IS.values(), ids=AS_IT_IS)
def test_what_torch_takes_needs_nothing(value):
    content = saved(value)
    assert loads(content)
    told = tk.safe_globals(content)
    assert (told.loads, told.needed, told.obstacles, told.code) == (True, (), (), "")


@pytest.mark.parametrize("value", NEVER.values(), ids=NEVER)
def test_what_no_list_removes_is_an_obstacle(value):
    content = saved(value)
    told = tk.safe_globals(content)
    assert told.obstacles
    assert (told.enough, told.code) == (False, "")
    every = [collections.defaultdict, collections.deque, list, dict]
    assert not loads(content, every)


class Color(enum.Enum):
    RED = 1


def test_a_class_of_ones_own_is_named_and_left_to_the_user():
    content = saved(Color.RED)
    told = tk.safe_globals(content)
    (one,) = told.needed
    assert (one.name.endswith("Color"), one.harmless) == (True, False)
    assert told.verdict == "suspicious"
    assert loads(content, [Color])


def test_names_of_numpy_1_are_allowed_under_their_old_name():
    content = saved(numpy.float64(1.5))
    # The same pickle as numpy 1 writes it: the name is shorter, and zip wants to know lengths.
    told = tk.safe_globals(_rewritten(content, b"numpy._core", b"numpy.core"))
    assert '(numpy._core.multiarray.scalar, "numpy.core.multiarray.scalar"),' in told.code
    old = _rewritten(content, b"numpy._core", b"numpy.core")
    assert not loads(old)
    assert loads(old, listed(told))


def _rewritten(content, before, after):
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(before, after))
    return out.getvalue()


@pytest.mark.parametrize("name", ["numpy float", "Namespace", "datetime"])
def test_the_format_before_torch_1_6(name):
    buffer = io.BytesIO()
    value = {"value": HONEST[name], "weight": torch.ones(2)}
    torch.save(value, buffer, _use_new_zipfile_serialization=False)
    content = buffer.getvalue()
    told = tk.safe_globals(content)
    assert told.obstacles == ()
    names = listed(told)
    assert not loads(content)
    assert loads(content, names)
    for left_out in range(len(names)):
        assert not loads(content, names[:left_out] + names[left_out + 1 :]), names[left_out]


def test_a_module_with_its_source_is_an_obstacle():
    buffer = io.BytesIO()
    torch.save(torch.nn.Linear(2, 2), buffer, _use_new_zipfile_serialization=False)
    told = tk.safe_globals(buffer.getvalue())
    assert any("source text" in obstacle for obstacle in told.obstacles)
    assert not loads(buffer.getvalue(), [torch.nn.Linear])


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_other_protocols_are_an_obstacle(protocol):
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(2), "b": [1] * 5}, buffer, pickle_protocol=protocol)
    told = tk.safe_globals(buffer.getvalue())
    assert told.loads == loads(buffer.getvalue())
    assert protocol == 3 or any("opcodes" in obstacle for obstacle in told.obstacles)


def test_a_dangerous_file_gets_no_list(hostile_digits):
    told = tk.safe_globals(hostile_digits)
    assert (told.verdict, told.enough, told.code) == ("dangerous", False, "")
    assert any("os.system" in obstacle for obstacle in told.obstacles)


def test_what_has_no_pickle_or_is_damaged(tmp_path, digits):
    with pytest.raises(NotFound):
        tk.safe_globals(tmp_path / "gone.pth")
    with pytest.raises(Damaged):
        tk.safe_globals(digits.read_bytes()[:5000])
    tk.convert(digits, tmp_path / "x.safetensors")
    with pytest.raises(Unsupported, match="no pickle in it"):
        tk.safe_globals(tmp_path / "x.safetensors")


def test_the_tables_are_those_of_the_installed_torch():
    assert set(restricted._get_allowed_globals()) == data.ALLOWED
    assert set(restricted._blocklisted_modules) == data.BLOCKED


def test_the_opcodes_are_those_that_torch_knows():
    known = set()
    for code, name in _opcodes():
        # A stream that every opcode finds enough to work with in, or fails for another reason.
        stream = b"\x80\x02" + b"]" * 4 + b"(" + bytes([code]) + bytes(16) + b"\n\n."
        try:
            restricted.load(io.BytesIO(stream))
        except Exception as error:
            if f"Unsupported operand {code}" in str(error):
                continue
        known.add(name)
    assert known == data.OPCODES


def _opcodes():
    from tensorkeep.pickles.opcodes import NAMES

    return NAMES.items()


def test_names_that_an_import_registers():
    source = pathlib.Path(restricted.__file__).read_text("utf-8")
    for name in data.REGISTERED:
        assert f'"{name}"' in source


def test_the_classes_of_numpy_dtypes():
    for kind, name in data.DTYPE_CLASSES.items():
        assert type(numpy.dtype(kind)).__name__ == name
    for kind, name in data.DTYPE_KINDS.items():
        assert type(numpy.dtype(kind if kind == "O" else f"{kind}3")).__name__ == name


def test_a_nested_jagged_tensor_asks_for_an_import():
    one = weights_only._needed("torch.nested._internal.nested_tensor.NestedTensor", set())
    assert one.register == "torch.nested"
    assert list(weights_only._code((one,))) == ["import torch.nested"]
