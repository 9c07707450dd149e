"""The allowlist: what honest writers write gives no finding, and entries are what they claim."""

from __future__ import annotations

import argparse
import collections
import copyreg
import datetime
import decimal
import fractions
import importlib
import io
import pathlib
import pickle
import re
import types
import uuid
import warnings
import zipfile

import numpy as np
import pytest
import torch

from tensorkeep import dtypes
from tensorkeep.facts import Finding
from tensorkeep.pickles import Call, Global, run
from tensorkeep.scanning import allowlist
from tensorkeep.scanning._allow_results import NAMES_TEXT
from tensorkeep.scanning._allow_tensor_names import TENSOR_NAMES
from tensorkeep.scanning.rules import judge_program

PROTOCOLS = range(6)


def findings(data: bytes) -> list[Finding]:
    return judge_program(run(data), "data.pkl")


def torch_pickle(value: object, protocol: int) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(value, file, pickle_protocol=protocol)
    with zipfile.ZipFile(file) as archive:
        return archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))


def tensors() -> dict[str, object]:
    square = torch.ones(2, 2)
    tagged = torch.nn.Parameter(square.clone())
    tagged.partition_dim = 1
    attributed = square.clone()
    attributed.note = {"a": [1, None]}
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    values: dict[str, object] = {
        "tensor": square,
        "view": torch.arange(12.0).reshape(3, 4).t()[1:, ::2],
        "grad": torch.ones(2, requires_grad=True),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        "conj": torch.ones(2, dtype=torch.complex64).conj(),
        "parameter": torch.nn.Parameter(square),
        "parameter with state": tagged,
        "tensor with state": attributed,
        "coo": square.to_sparse(),
        "csr": square.to_sparse_csr(),
        "csc": square.to_sparse_csc(),
        "bsr": square.to_sparse_bsr((1, 1)),
        "nested": torch.nested.nested_tensor([square, square]),
        "meta": torch.ones(2, device="meta"),
        "per tensor": torch.quantize_per_tensor(square, 1.0, 0, torch.qint8),
        "per channel": torch.quantize_per_channel(
            square, torch.ones(2), torch.zeros(2), 0, torch.qint8
        ),
        "untyped storage": square.untyped_storage(),
        "state dict": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "parts": [torch.device("cuda:1"), torch.device("cpu"), square.shape, torch.bfloat16],
        "layouts": [torch.strided, torch.sparse_coo],
        "tied": [square, square, square[0]],
    }
    for name in dtypes.BY_NAME:
        dtype = getattr(torch, name)
        storage = torch.UntypedStorage(16)
        # torch 2.13 itself cannot save the sub-byte ones ("dtype torch.int1 is not recognized").
        if not name.startswith(("q", "bits")) and not re.fullmatch("u?int[1-7]", name):
            values[name] = torch.empty(0, dtype=dtype).set_(storage, 0, (2,), (1,))
        values[f"the dtype {name}"] = dtype
    return values


def plain() -> dict[str, object]:
    tz = datetime.timezone(datetime.timedelta(hours=1), "x")
    record = np.dtype([("a", "f4"), ("b", "<i8"), ("c", "S3"), ("d", "U2")], align=True)
    return {
        "atoms": [None, True, 1, -(2**70), 1.5, float("nan"), "é", b"\xff\x00", b"", "", 1j],
        "containers": [(), (1,), [], {}, {1: {2}}, frozenset({(1, "a")}), set(), bytearray(b"x")],
        "ordered": collections.OrderedDict([("a", 1), (2, [3])]),
        "defaultdict": [
            collections.defaultdict(kind, a=kind())
            for kind in (list, dict, int, float, set, str, tuple, bool, collections.OrderedDict)
        ],
        "no factory": collections.defaultdict(None, {1: 2}),
        "counter": collections.Counter("abca"),
        "deque": [collections.deque([1, 2], 3), collections.deque("ab"), collections.deque()],
        "slice": [slice(1, None, 2), range(3), Ellipsis, NotImplemented, type(None)],
        "dates": [
            datetime.datetime(2024, 5, 6, 7, 8, 9, 10),
            datetime.datetime(2024, 5, 6, tzinfo=datetime.UTC),
            datetime.datetime(2024, 5, 6, tzinfo=tz),
            datetime.date(2024, 1, 1),
            datetime.time(1, 2, tzinfo=tz),
            datetime.timedelta(-1, 2, 3),
        ],
        "numbers": [
            decimal.Decimal("-1.50E+3"),
            decimal.Decimal("NaN"),
            decimal.Decimal("-Infinity"),
            fractions.Fraction(-1, 3),
            fractions.Fraction(4),
        ],
        "uuid": uuid.UUID(int=5),
        "paths": [
            pathlib.Path("/a/b"),
            pathlib.PurePosixPath("c"),
            pathlib.PureWindowsPath("c:\\d"),
        ],
        "namespace": [
            argparse.Namespace(lr=0.1, values=[1], path=pathlib.Path("x")),
            types.SimpleNamespace(a={1: 2}),
        ],
        "classes": [int, dict, list, object, np.float32, np.ndarray, torch.Tensor],
        "numpy scalars": [
            np.float64(1),
            np.float16(1),
            np.int64(-1),
            np.bool_(True),
            np.complex64(1j),
            np.str_("a"),
            np.bytes_(b"a"),
            np.datetime64("2020-01-01"),
            np.zeros(1, record)[0],
        ],
        "numpy arrays": [
            np.ones((2, 3)),
            np.asfortranarray(np.ones((2, 3))),
            np.array(3),
            np.array(["a", "bc"]),
            np.array([b"a"]),
            np.zeros(2, record),
            np.array(["2020-01-01"], dtype="M8[D]"),
            np.array([1, "a", None, [2]], dtype=object),
            np.zeros(0, ">i2"),
            np.zeros((2, 3, 4)).transpose(1, 0, 2),
        ],
        "numpy dtypes": [np.dtype("f4"), np.dtype(">i8"), np.dtype("O"), np.dtype("V3"), record],
        "numpy random state": np.random.RandomState(0).get_state(),
    }


# torch says once per process that sparse and nested layouts are new.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_torch_saves_has_no_finding(protocol):
    for name, value in {**tensors(), **plain()}.items():
        assert findings(torch_pickle(value, protocol)) == [], name


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_pickle_writes_of_plain_values_has_no_finding(protocol):
    for name, value in plain().items():
        assert findings(pickle.dumps(value, protocol)) == [], name


def test_the_storages_of_old_versions_are_known():
    program = (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch.cuda\n"
        b"HalfStorage\nX\x01\x00\x00\x000X\x06\x00\x00\x00cuda:0K\x04NtQK\x00K\x04\x85K\x01\x85"
        b"\x89ccollections\nOrderedDict\n)RtR."
    )
    assert findings(program) == []


def _resolve(module: str, name: str) -> object:
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return None


# At protocol 4 torch writes these with a dot: `torch._utils` has imported torch.
MEMORY_FORMATS = ("channels_last", "channels_last_3d", "contiguous_format", "preserve_format")

# Names that only other versions have, or that name the same object twice.
_ELSEWHERE = {
    ("torch", "_UntypedStorage"),
    ("torch.storage", "_UntypedStorage"),
    ("torch.storage", "_TypedStorage"),
    ("torch.tensor", "_rebuild_from_type"),
    ("pathlib._local", "PosixPath"),
    ("pathlib._local", "WindowsPath"),
    ("pathlib._local", "PurePosixPath"),
    ("pathlib._local", "PureWindowsPath"),
    ("torch.nn.modules.linear", "_LinearWithBias"),
    *(("torch._utils", f"torch.{name}") for name in MEMORY_FORMATS),
    ("numpy", "float128"),
    ("numpy", "complex256"),
    # Libraries that the tests do not install.
    ("deepspeed.runtime.fp16.loss_scaler", "LossScaler"),
    ("deepspeed.runtime.fp16.loss_scaler", "DynamicLossScaler"),
    ("deepspeed.runtime.zero.config", "ZeroStageEnum"),
    ("deepspeed.utils.tensor_fragment", "fragment_address"),
}


@pytest.mark.parametrize("entry", allowlist.ENTRIES, ids=lambda e: f"{e.module}.{e.name}")
def test_an_entry_names_what_it_says(entry):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = _resolve(entry.module, entry.name)
    if found is None:
        alias = entry.module.startswith(("pytorch_lightning.", "lightning_fabric."))
        assert alias or (entry.module, entry.name) in _ELSEWHERE
        return
    expected = {
        "dtype": torch.dtype,
        "qscheme": torch.qscheme,
        "storage-class": type,
        "tensor-class": type,
        "plain-class": type,
        "class": type,
        "type": type,
        "np-scalar": type,
        "np-array-class": type,
        "rebuild": types.FunctionType,
    }.get(entry.reference)
    assert expected is None or isinstance(found, expected)
    if entry.reference == "tensor-class":
        # Buffer's metaclass answers for it: torch writes it as a plain tensor's class.
        assert issubclass(found, torch.Tensor) or entry.name == "Buffer"
    if entry.call or entry.instance:
        assert callable(found)


@pytest.mark.parametrize("entry", allowlist.ENTRIES, ids=lambda e: f"{e.module}.{e.name}")
def test_an_entry_is_exact_and_complete(entry):
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*", entry.module)
    name = entry.name.removeprefix("torch.") if entry.module == "torch._utils" else entry.name
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
    assert len(entry.why) > 8
    assert entry.call or entry.instance or entry.reference or entry.kept
    assert (entry.rule is not None) == (entry.call or entry.instance)
    if entry.rule is not None and not entry.reference.startswith("class"):
        assert entry.makes or entry.module == "copyreg"


def test_no_name_stands_twice():
    assert len(allowlist.ALLOWED) == len(allowlist.ENTRIES)


def test_a_prefix_allows_nothing():
    for entry in allowlist.ENTRIES:
        assert allowlist.lookup(entry.module, "") is None
        assert allowlist.lookup(entry.module, f"{entry.name}.__init__") is None
        assert allowlist.lookup(f"{entry.module}.x", entry.name) is None


def test_a_computed_name_is_never_on_the_list():
    name = Global("collections", "OrderedDict", 0, operands=("collections", "OrderedDict"))
    assert allowlist.entry_of(name) is None
    assert allowlist.kind_of(name) == ""


def test_the_names_of_tensors_are_torchs_own():
    names = {*dir(torch.Tensor), *dir(torch.nn.Parameter), *dir(torch.nn.Parameter(torch.ones(1)))}
    assert {name for name in names if not name.startswith("__")} <= TENSOR_NAMES


def test_every_rule_takes_any_arguments_without_an_exception():
    """Rules meet hostile arguments first: whatever they get, the answer is a bool."""
    nested: object = ()
    for _ in range(50_000):
        nested = (nested,)
    call = run(pickle.dumps(collections.OrderedDict, 2)[:-1] + b")R.").value
    odd = [None, True, -1, 1 << 80, 1.5, "x", b"x", bytearray(b"x"), (), [], {}, set(), nested]
    odd += [call, Global("os", "system", 0), ([],), ([], {}), {"a": nested}, [[]], [[[], 1]]]
    shapes = [(), *((a,) for a in odd), *((a, b) for a in odd for b in odd)]
    shapes += [(a, b, c) for a in odd for b in odd[:9] for c in (1, True, None, nested)]
    shapes += [(a,) * n for a in odd for n in range(4, 9)]
    states = [((3, "|", None, a, b, 8, 1, 16),) for a in odd for b in odd]
    states += [((1, (2,), call, False, a),) for a in odd] + [
        ((3, "|", a, None, None, -1, -1, 0),) for a in odd
    ]
    for entry in allowlist.ENTRIES:
        for args in [*shapes, *states]:
            if entry.rule is not None:
                assert entry.rule(args, allowlist.kind_of) in (True, False)
            for rule in entry.effects.values():
                assert rule(call, args) in (True, False)
    odd_targets = [Call("REDUCE", call.func, args, None, 0) for args in shapes[:200]]
    for entry in allowlist.ENTRIES:
        for rule in entry.effects.values():
            for target in odd_targets:
                assert all(rule(target, args) in (True, False) for args in states[:40])


def test_copyregs_makers_make_what_their_class_says():
    value = run(pickle.dumps(argparse.Namespace(a=1), 0)).value
    assert allowlist.entry_for_call(value).name == "Namespace"
    assert copyreg._reconstructor.__name__ == "_reconstructor"


def test_every_named_tuple_of_torch_is_listed():
    kinds = {name for name, item in vars(torch.return_types).items() if isinstance(item, type)}
    of_torch = {
        n for n in kinds if getattr(torch.return_types, n).__module__ == "torch.return_types"
    }
    assert set(NAMES_TEXT.split()) == of_torch


@pytest.mark.parametrize("protocol", range(2, 6))
def test_what_max_and_sort_return_is_safe(protocol):
    values = [torch.ones(2, 3).max(0), torch.ones(2).sort(), torch.ones(3).topk(2)]
    assert findings(torch_pickle(values, protocol)) == []


def test_a_named_tuple_of_torch_takes_tensors_only():
    relu = b"ctorch.return_types\nmax\n(Nctorch.nn.functional\nrelu\nt}\x86R."
    assert {found.rule for found in findings(b"\x80\x02" + relu)} == {
        "pickle/odd-arguments",
        "pickle/misplaced-reference",
    }
