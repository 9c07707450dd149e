"""Hostile programs, named by technique: none is safe, and what would run code is dangerous.

Every program is raw opcodes or the pickle of an object with `__reduce__`; none is ever unpickled,
and the commands in them only print.
"""

from __future__ import annotations

import pickle
import re
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorkeep.errors import Amplified, Damaged, LimitExceeded, NotFound, Unsupported
from tensorkeep.facts import Anomaly, Finding
from tensorkeep.pickles import run
from tensorkeep.scanning import _anomalies
from tensorkeep.scanning.rules import (
    RULES,
    judge_anomalies,
    judge_error,
    judge_persistent,
    judge_program,
)
from tensorkeep.scanning.verdicts import verdict
from tensorkeep.scanning.words import EXAMPLES

P2, P4 = b"\x80\x02", b"\x80\x04"
OD = b"ccollections\nOrderedDict\n)R"
ARG = b"X\x07\x00\x00\x00echo hi\x85"


def g(module: str, name: str) -> bytes:
    """GLOBAL."""
    return f"c{module}\n{name}\n".encode()


def u(text: str) -> bytes:
    """BINUNICODE."""
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def sg(module: str, name: str) -> bytes:
    """STACK_GLOBAL."""
    return u(module) + u(name) + b"\x93"


def i(number: int) -> bytes:
    """BININT."""
    return b"J" + struct.pack("<i", number)


def findings(data: bytes) -> list[Finding]:
    return judge_program(run(data), "archive/data.pkl")


def rules(data: bytes) -> set[str]:
    return {found.rule for found in findings(data)}


class Reduce:
    """Pickles as a call of `func`, which is only ever named."""

    def __init__(self, func, *args, state=None):
        self.parts = (func, args) if state is None else (func, args, state)

    def __reduce__(self):
        return self.parts


STORAGE = u("storage") + g("torch", "FloatStorage") + u("0") + u("cpu") + b"K\x04"
STORAGE = b"(" + STORAGE + b"tQ"
VIEW = STORAGE + b"K\x00K\x04\x85K\x01\x85"
TENSOR = g("torch._utils", "_rebuild_tensor_v2") + b"(" + VIEW + b"\x89" + OD + b"tR"
NAMESPACE = g("argparse", "Namespace") + b")\x81"
RELU = g("torch.nn.functional", "relu")
DEFAULTS = u("__defaults__") + b"\x88\x85"

# What runs code or reaches outside the file, by technique.
DANGEROUS = {
    # A: names
    "os.system": P2 + g("os", "system") + ARG + b"R.",
    "posix.system by STACK_GLOBAL": P4 + sg("posix", "system") + ARG + b"R.",
    "builtins.exec": P2 + g("builtins", "exec") + ARG + b"R.",
    "__builtin__.eval, mapped": P2 + g("__builtin__", "eval") + ARG + b"R.",
    "__builtin__.eval, unmapped": b"\x80\x03" + g("__builtin__", "eval") + ARG + b"R.",
    "marshal to a function": P2
    + g("types", "FunctionType")
    + g("marshal", "loads")
    + b"C\x01N\x85R}\x86R)R.",
    "partial of a partial": P2
    + g("functools", "partial")
    + g("os", "system")
    + u("echo hi")
    + b"\x86R)R.",
    "map and a list": P2
    + g("builtins", "list")
    + g("builtins", "map")
    + g("os", "system")
    + b"]"
    + u("echo hi")
    + b"a\x86R\x85R.",
    "attrgetter": P2
    + g("operator", "attrgetter")
    + u("system")
    + b"\x85R"
    + g("os", "path")
    + b"\x85R.",
    "resolve_name": P2 + g("pkgutil", "resolve_name") + u("os:system") + b"\x85R" + ARG + b"R.",
    "torch.load inside": P2 + g("torch", "load") + ARG + b"R.",
    "collect_env": P2 + g("torch.utils.collect_env", "run") + ARG + b"R.",
    "import alone": P2 + g("os", "system") + b".",
    "import by EXT is not the only one": P2 + b"\x82\x01" + g("os", "system") + b"\x86.",
    # B: tricks with names
    "os through an innocent module": P4 + sg("torch.nn.parallel.distributed", "os.getpid") + b")R.",
    "a module's import": P4 + sg("torch.serialization", "os") + b".",
    "globals of a function": P4 + sg("torch", "save.__globals__") + b".",
    "the class of a class": P4 + sg("collections", "OrderedDict.__class__.__mro__") + b".",
    "getattr of os": P2 + g("builtins", "getattr") + g("os", "path") + u("os") + b"\x86R.",
    "getattr of a call": P2
    + g("builtins", "getattr")
    + g("builtins", "getattr")
    + g("pkg", "mod")
    + u("x")
    + b"\x86R"
    + u("system")
    + b"\x86R.",
    # C: opcodes
    "INST": P2 + b"(" + u("echo hi") + b"ios\nsystem\n.",
    "OBJ then POP": P2 + b"(" + g("os", "system") + u("echo hi") + b"o0N.",
    "REDUCE then POP": P2 + g("os", "system") + ARG + b"R0N.",
    "NEWOBJ": P2 + g("subprocess", "Popen") + ARG + b"\x81.",
    "NEWOBJ_EX": P4 + sg("subprocess", "Popen") + ARG + b"}\x92.",
    "protocol 0 text": b"cos\nsystem\n(S'echo hi'\ntR.",
    "operands from the memo": P4
    + u("os")
    + b"\x940"
    + u("system")
    + b"\x940h\x00h\x01\x93"
    + ARG
    + b"R.",
    "memo overwritten": P4
    + u("json")
    + b"q\x000"
    + u("os")
    + b"q\x00"
    + u("system")
    + b"\x93"
    + ARG
    + b"R.",
    "operands computed": P4 + g("pkg", "f") + b")R" + u("system") + b"\x93" + ARG + b"R.",
    "a DUP of the name": P4 + u("os") + b"2\x93" + ARG + b"R.",
    "in a mark that POP_MARK drops": P2 + b"(" + g("os", "system") + ARG + b"R1N.",
    "BUILD with slots on a function": P2 + RELU + b"N}" + DEFAULTS + b"s\x86b.",
    "BUILD on a function": P2 + RELU + b"}" + DEFAULTS + b"sb.",
    "BUILD on an allowlisted class": P2
    + g("collections", "OrderedDict")
    + b"}"
    + u("get")
    + g("builtins", "int")
    + b"sb.",
    "APPEND to sys.path": P2 + g("sys", "path") + u("x") + b"a.",
    "APPEND to another global": P2 + g("pkg", "registry") + u("x") + b"a.",
    "SETITEM on os.environ": P2 + g("os", "environ") + u("a") + u("b") + b"s.",
    "SETITEMS on a global": P2 + g("pkg", "registry") + b"(" + u("a") + u("b") + b"u.",
    "ADDITEMS on a global": P4 + sg("pkg", "registry") + b"(K\x01\x90.",
    "BUILD on NoneType": P2 + g("builtins", "type") + b"N\x85R}" + u("x") + b"K\x01sb.",
    "BUILD on a layout": P2
    + g("torch.serialization", "_get_layout")
    + u("torch.strided")
    + b"\x85R}"
    + u("x")
    + b"K\x01sb.",
    # D: boundaries
    "before a broken opcode": P2 + g("os", "system") + ARG + b"R\xff",
    "no STOP": P2 + g("os", "system") + ARG + b"R",
    "after a million opcodes": P2 + b"N0" * 100_000 + g("os", "system") + ARG + b"R.",
    # G and I
    "SETITEM on a storage": P2 + STORAGE + b"K\x00K\x01s.",
    "BUILD on a storage": P2 + STORAGE + b"}" + u("x") + b"K\x01sb.",
    "a huge bytearray": P2 + g("builtins", "bytearray") + i(2_000_000_000) + b"\x85R.",
    "a list of a range": P2
    + g("builtins", "list")
    + g("builtins", "range")
    + i(2_000_000_000)
    + b"\x85R\x85R.",
    "a storage made by a call": P2 + g("torch", "FloatStorage") + i(2_000_000_000) + b"\x85R.",
    "an array of any size": P2
    + g("numpy._core.multiarray", "_reconstruct")
    + g("numpy", "ndarray")
    + i(2_000_000_000)
    + b"\x85C\x01b\x87R.",
}

FRESH_DTYPE = g("numpy", "dtype") + u("V8") + b"\x89\x88\x87R"


def dtype_state(names: bytes = b"N", fields: bytes = b"N", flags: int = 0) -> bytes:
    return b"(K\x03" + u("|") + b"N" + names + fields + i(8) + i(1) + i(flags) + b"tb"


OBJECT = g("numpy", "dtype") + u("O8") + b"\x89\x88\x87R"

# What no honest writer makes: never safe.
NOT_SAFE = {
    "an unknown class": P2 + g("pkg.models", "Net") + b")\x81}b.",
    "a name of torch that is not listed": P2
    + g("torch.nn.modules.lazy", "LazyModuleMixin")
    + b")\x81.",
    "an unknown import alone": P2 + g("pkg", "thing") + b".",
    "a dotted name": P4 + sg("pkg", "Outer.Inner") + b")\x81.",
    "a dotted name of an allowlisted module": P4 + sg("collections", "OrderedDict.fromkeys") + b".",
    "getattr as protocol 2 writes it": P2
    + g("__builtin__", "getattr")
    + g("pkg", "Net")
    + u("Inner")
    + b"\x86R.",
    "EXT1": P2 + b"\x82\x01.",
    "EXT1 called": P2 + b"\x82\x01)R.",
    "a call of a result": P2 + OD + b")R.",
    "a call of a storage": P2 + STORAGE + b")R.",
    "slot state on a fresh object": P2 + NAMESPACE + b"N}" + u("x") + b"K\x01s\x86b.",
    "slot state on an OrderedDict": P2 + OD + b"N}" + u("x") + b"K\x01s\x86b.",
    "injected extend, then APPENDS": P2
    + NAMESPACE
    + b"}"
    + u("extend")
    + g("builtins", "int")
    + b"sb(K\x01e.",
    "injected add, then ADDITEMS": P4
    + sg("argparse", "Namespace")
    + b")\x81}"
    + u("add")
    + sg("builtins", "int")
    + b"sb(K\x01\x90.",
    "injected __setstate__": P2 + OD + b"}" + u("__setstate__") + g("builtins", "int") + b"sb}b.",
    "a dunder on a Namespace": P2
    + NAMESPACE
    + b"}"
    + u("__class__")
    + g("builtins", "int")
    + b"sb.",
    "a key that is no text": P2 + NAMESPACE + b"}K\x01K\x02sb.",
    "a method of OrderedDict hidden": P2 + OD + b"}" + u("items") + g("builtins", "dict") + b"sb.",
    "state of an OrderedDict other than _metadata": P2 + OD + b"}" + u("x") + b"K\x01sb.",
    "APPEND on an OrderedDict": P2 + OD + b"K\x01a.",
    "APPEND on a Namespace": P2 + NAMESPACE + b"K\x01a.",
    "ADDITEMS on an OrderedDict": P4 + sg("collections", "OrderedDict") + b")R(K\x01\x90.",
    "SETITEM on a tensor": P2 + TENSOR + b"K\x00K\x01s.",
    "BUILD on a tensor": P2 + TENSOR + b"}" + u("x") + b"K\x01sb.",
    "a deep tuple as a key": P2 + OD + b")" + b"\x85" * 20_000 + b"K\x01s.",
    "REDUCE of a class that is only mentioned": P2 + g("torch", "Tensor") + b")R.",
    "NEWOBJ of a class that is only called": P2 + g("collections", "OrderedDict") + b")\x81.",
    "NEWOBJ_EX with keywords": P4
    + sg("argparse", "Namespace")
    + b")}"
    + u("func")
    + b"K\x01s\x92.",
    "_codecs.encode of another codec": P2
    + g("_codecs", "encode")
    + u("x")
    + u("rot13")
    + b"\x86R.",
    "_reconstructor with a base": P2
    + g("copy_reg", "_reconstructor")
    + g("collections", "OrderedDict")
    + g("builtins", "dict")
    + b"}\x87R.",
    "_reconstructor of an unlisted class": P2
    + g("copy_reg", "_reconstructor")
    + g("pkg", "Net")
    + g("builtins", "object")
    + b"N\x87R.",
    "a default factory that is unknown": P2
    + g("collections", "defaultdict")
    + g("pkg", "f")
    + b"\x85R.",
    "a default factory that is a function": P2
    + g("collections", "defaultdict")
    + g("torch._utils", "_rebuild_tensor")
    + b"\x85R.",
    "type of a value": P2 + g("builtins", "type") + OD + b"\x85R.",
    "type with three arguments": P2 + g("builtins", "type") + u("x") + b")}\x87R.",
    "a fraction with an exponent": P2 + g("fractions", "Fraction") + u("1e999999999") + b"\x85R.",
    "a layout by a computed name": P2 + g("torch.serialization", "_get_layout") + OD + b"\x85R.",
    "hooks on a tensor": P2
    + g("torch._utils", "_rebuild_tensor_v2")
    + b"("
    + VIEW
    + b"\x89"
    + OD
    + b"K\x00"
    + g("torch._utils", "_rebuild_tensor")
    + b"stR.",
    "hooks added after the call": P2
    + OD
    + b"q\x010"
    + g("torch._utils", "_rebuild_tensor_v2")
    + b"("
    + VIEW
    + b"\x89h\x01tR0h\x01K\x00"
    + g("torch._utils", "_rebuild_tensor")
    + b"s.",
    "a tensor over no storage": P2
    + g("torch._utils", "_rebuild_tensor_v2")
    + b"("
    + OD
    + b"K\x00K\x04\x85K\x01\x85\x89"
    + OD
    + b"tR.",
    "a negative offset": P2
    + g("torch._utils", "_rebuild_tensor_v2")
    + b"("
    + STORAGE
    + i(-8)
    + b"K\x04\x85K\x01\x85\x89"
    + OD
    + b"tR.",
    "from_type that calls another function": P2
    + g("torch._tensor", "_rebuild_from_type_v2")
    + b"("
    + g("builtins", "bytearray")
    + g("torch", "Tensor")
    + i(2_000_000)
    + b"\x85NtR.",
    "from_type that calls itself": P2
    + g("torch._tensor", "_rebuild_from_type_v2")
    + b"(c"
    + b"torch._tensor\n_rebuild_from_type_v2\n"
    + g("torch", "Tensor")
    + b")NtR.",
    "from_type with an unknown class": P2
    + g("torch._tensor", "_rebuild_from_type_v2")
    + b"("
    + g("torch._utils", "_rebuild_tensor")
    + g("pkg", "Sub")
    + b"("
    + VIEW
    + b"tNtR.",
    "from_type with state that hides a method": P2
    + g("torch._tensor", "_rebuild_from_type_v2")
    + b"("
    + g("torch._utils", "_rebuild_tensor")
    + g("torch", "Tensor")
    + b"("
    + VIEW
    + b"t}"
    + u("backward")
    + b"NstR.",
    "a parameter whose state sets data": P2
    + g("torch._utils", "_rebuild_parameter_with_state")
    + b"("
    + TENSOR
    + b"\x88"
    + OD
    + b"}"
    + u("data")
    + TENSOR
    + b"stR.",
    "a parameter with hooks as slots": P2
    + g("torch._utils", "_rebuild_parameter_with_state")
    + b"("
    + TENSOR
    + b"\x88"
    + OD
    + b"N}"
    + u("_backward_hooks")
    + OD
    + b"s\x86tR.",
    "a persistent id of another shape": P2 + u("x") + b"Q.",
    "a persistent id of an unknown type": P2
    + b"("
    + u("storage")
    + g("pkg", "Storage")
    + u("0")
    + u("cpu")
    + b"K\x04tQ.",
    "a persistent id with a type that is a call": P2
    + b"("
    + u("storage")
    + OD
    + u("0")
    + u("cpu")
    + b"K\x04tQ.",
    "a dtype that hides objects": P2
    + FRESH_DTYPE
    + dtype_state(u("a") + b"\x85", b"}" + u("a") + OBJECT + b"K\x00\x86s", 16)
    + b".",
    "a dtype with a field past its end": P2
    + FRESH_DTYPE
    + dtype_state(
        u("a") + b"\x85",
        b"}" + u("a") + g("numpy", "dtype") + u("f8") + b"\x89\x88\x87RK\x04\x86s",
        16,
    )
    + b".",
    "a dtype with odd flags": P2 + FRESH_DTYPE + dtype_state(flags=1) + b".",
    "a dtype with another size than its own": P2
    + g("numpy", "dtype")
    + u("V9")
    + b"\x89\x88\x87R"
    + dtype_state()
    + b".",
    "an object dtype without its flags": P2
    + OBJECT
    + dtype_state().replace(i(8) + i(1), i(-1) + i(-1))
    + b".",
    "a deep tuple made by a call": P2
    + g("builtins", "tuple")
    + b"])"
    + b"\x85" * 20_000
    + b"a\x85R.",
    "a UUID of another kind": P2 + g("uuid", "UUID") + b")\x81}" + u("is_safe") + b")\x85sb.",
    "numpy's shared dtype changed": P2
    + g("numpy", "dtype")
    + u("f4")
    + b"\x85R"
    + dtype_state()
    + b".",
    "an object array out of bytes": P2
    + g("numpy._core.multiarray", "_reconstruct")
    + g("numpy", "ndarray")
    + b"K\x00\x85"
    + u("b")
    + b"\x87R(K\x01K\x01\x85"
    + OBJECT
    + b"\x89"
    + u("12345678")
    + b"tb.",
    "an object scalar": P2 + g("numpy._core.multiarray", "scalar") + OBJECT + u("x") + b"\x86R.",
    "a function kept for others to call": P2 + b"}" + u("f") + g("_codecs", "encode") + b"s.",
    "a function kept in a namespace": P2
    + NAMESPACE
    + b"}"
    + u("callback")
    + b"]"
    + g("torch._tensor", "_rebuild_from_type_v2")
    + b"asb.",
    "cut short": P2 + b"}" + u("a"),
    "frame across a value": P4 + b"\x95\x01\x00\x00\x00\x00\x00\x00\x00K\x01.",
}


@pytest.mark.parametrize("name", DANGEROUS)
def test_what_would_run_is_dangerous(name):
    assert verdict(findings(DANGEROUS[name])) == "dangerous"


@pytest.mark.parametrize("name", NOT_SAFE)
def test_what_no_writer_makes_is_not_safe(name):
    assert verdict(findings(NOT_SAFE[name])) in ("suspicious", "unknown", "dangerous")


@pytest.mark.parametrize("protocol", range(6))
def test_objects_with_reduce_are_seen_in_every_protocol(protocol):
    for func in (exec, eval, compile, setattr, __import__, getattr, open):
        data = pickle.dumps({"a": [Reduce(func, "echo hi")]}, protocol)
        assert verdict(findings(data)) != "safe"
    data = pickle.dumps(Reduce(exec, "print('hi')"), protocol)
    found = findings(data)
    assert [f.rule for f in found] == ["pickle/dangerous-call"]
    assert found[0].what == "would call builtins.exec(\"print('hi')\")"
    assert re.fullmatch(r"archive/data\.pkl, byte \d+", found[0].where)
    assert found[0].why == "builtins.exec would run Python code"
    assert found[0].remedy


def test_a_finding_says_where_and_what():
    data = P2 + g("os", "system") + ARG + b"R."
    (found,) = findings(data)
    assert found.what == "would call os.system('echo hi')"
    assert found.where == f"archive/data.pkl, byte {data.rindex(b'R.')}"
    assert judge_program(run(data), "")[0].where == f"byte {data.rindex(b'R.')}"


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("an unknown class", "pickle/unknown-class"),
        ("an unknown import alone", "pickle/unknown-import"),
        ("a dotted name", "pickle/dotted-name"),
        ("getattr as protocol 2 writes it", "pickle/attribute-lookup"),
        ("EXT1", "pickle/extension"),
        ("a call of a result", "pickle/call-of-value"),
        ("slot state on a fresh object", "pickle/slot-state"),
        ("injected extend, then APPENDS", "pickle/shadowing-key"),
        ("injected __setstate__", "pickle/shadowing-key"),
        ("APPEND on an OrderedDict", "pickle/odd-effect"),
        ("hooks on a tensor", "pickle/odd-arguments"),
        ("hooks added after the call", "pickle/odd-arguments"),
        ("a function kept in a namespace", "pickle/misplaced-reference"),
        ("a persistent id of another shape", "pickle/persistent-id"),
        ("frame across a value", "pickle/odd-structure"),
        ("cut short", "read/damaged"),
    ],
)
def test_each_rule_is_named(name, rule):
    assert rule in rules(NOT_SAFE[name])


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("import alone", "pickle/dangerous-import"),
        ("BUILD with slots on a function", "pickle/changes-global"),
        ("SETITEM on a storage", "pickle/writes-storage"),
        ("a huge bytearray", "pickle/amplification"),
    ],
)
def test_each_dangerous_rule_is_named(name, rule):
    assert rule in rules(DANGEROUS[name])


def test_a_flood_of_suspicion_hides_no_danger():
    flood = b"".join(g("pkg", f"f{n}") + b")R0" for n in range(5_000))
    found = findings(P2 + flood + g("os", "system") + ARG + b"R.")
    assert verdict(found) == "dangerous"
    assert len(found) < 100
    assert any("more times" in f.what for f in found)


def test_repeats_are_counted():
    found = findings(P2 + (g("pkg", "f") + b")R0") * 1000 + b"N.")
    assert len(found) == EXAMPLES + 1
    assert found[-1].what == f"the same {1000 - EXAMPLES} more times: pkg.f"


def test_twenty_thousand_tensors_are_judged_quickly():
    program = run(P2 + b"(" + (u("k") + TENSOR) * 20_000 + b"d.")
    start = time.process_time()
    assert judge_program(program, "data.pkl") == []
    assert time.process_time() - start < 2


def test_one_long_list_named_again_and_again_costs_no_more():
    long = b"](" + b"K\x01" * 100_000 + b"e\x85q\x000"
    data = P2 + long + g("builtins", "set") + b"q\x010" + b"h\x01h\x00R0" * 20_000 + b"N."
    program = run(data)
    start = time.process_time()
    assert "pickle/amplification" in {f.rule for f in judge_program(program, "x")}
    assert time.process_time() - start < 5


DOUBLED = b"N" + b"2\x86" * 50


@pytest.mark.parametrize(
    "opcodes",
    [
        g("builtins", "set") + b"](" + DOUBLED + b"e\x85R0",
        g("builtins", "hash") + DOUBLED + b"\x85R0",
        OD + DOUBLED + b"Ns0",
        OD[:-2] + b"](](" + DOUBLED + b"Nee\x85R0",
    ],
)
def test_what_hashes_without_end_is_amplification(opcodes):
    found = findings(P2 + opcodes + b"N.")
    assert verdict(found) == "dangerous"
    assert "pickle/amplification" in {one.rule for one in found}


def test_a_list_of_what_is_doubled_harms_nobody_who_does_not_write_it_out():
    assert findings(P2 + b"](" + DOUBLED + b"e0N.") == []


@given(
    st.sampled_from([*DANGEROUS.values(), *NOT_SAFE.values()]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6),
)
def test_broken_programs_are_judged_without_an_exception(data, changes):
    broken = bytearray(data[:4000])
    for place, byte in changes:
        broken[place % len(broken)] = byte
    program = run(bytes(broken))
    found = judge_program(program, "x")
    assert all(f.rule in RULES for f in found)
    assert program.error is None or verdict(found) in ("unknown", "dangerous")


STORAGE_CLASS = run(P2 + g("torch", "FloatStorage") + b".").value
UNKNOWN_CLASS = run(P2 + g("pkg", "Storage") + b".").value


@pytest.mark.parametrize(
    ("pid", "good"),
    [
        (("storage", STORAGE_CLASS, "0", "cpu", 4), True),
        (("storage", STORAGE_CLASS, "0", "cuda:0", 4, None), True),
        (("storage", STORAGE_CLASS, "0", "cpu", 4, ("1", 0, 2)), True),
        ((b"storage", STORAGE_CLASS, "0", b"cpu", 4), True),
        ("('storage', <class 'torch.QInt8Storage'>, '0', 'cpu', 4)", True),
        ("('storage', <class 'os.system'>, '0', 'cpu', 4)", False),
        (("storage", UNKNOWN_CLASS, "0", "cpu", 4), False),
        (("storage", "FloatStorage", "0", "cpu", 4), False),
        (("storage", STORAGE_CLASS, 0, "cpu", 4), False),
        (("storage", STORAGE_CLASS, "0", None, 4), False),
        (("storage", STORAGE_CLASS, "0", "cpu", -1), False),
        (("storage", STORAGE_CLASS, "0", "cpu", True), False),
        (("storage", STORAGE_CLASS, "0", "cpu", 4, ("1", -1, 2)), False),
        (("storage", STORAGE_CLASS, "0", "cpu", 4, []), False),
        (("module", STORAGE_CLASS, "a.py", "source", 4), False),
        (("storage", STORAGE_CLASS, "0", "cpu"), False),
        ((), False),
        (None, False),
        (7, False),
    ],
)
def test_persistent_ids(pid, good):
    assert judge_persistent(pid) is good


def test_another_container_brings_its_own_persistent_ids():
    program = run(P2 + u("x") + b"Q.")
    assert judge_program(program, "x", persistent=lambda pid: pid == "x") == []


@pytest.mark.parametrize("kind", [*_anomalies.RULE_OF, "something-new"])
def test_every_anomaly_is_a_finding(kind):
    (found,) = judge_anomalies([Anomaly(kind, "two of them", "data/0", 12)], "model.pth")
    assert found.severity in ("suspicious", "dangerous")
    assert found.what == f"{kind}: two of them"
    assert found.where == "model.pth, data/0, byte 12"
    assert found.why
    assert found.remedy


@pytest.mark.parametrize(
    "kind", ["storage-out-of-bounds", "negative-stride", "numel-larger-than-record"]
)
def test_what_corrupts_memory_is_dangerous(kind):
    assert verdict(judge_anomalies([Anomaly(kind, "x")], "model.pth")) == "dangerous"


def test_anomalies_are_counted():
    found = judge_anomalies([Anomaly("duplicate-member", "x")] * 50, "model.pth")
    assert len(found) == EXAMPLES + 1
    assert judge_anomalies([], "model.pth") == []


@pytest.mark.parametrize(
    ("error", "rule"),
    [
        (Damaged("x"), "read/damaged"),
        (LimitExceeded("x"), "read/limit"),
        (Unsupported("x"), "read/unsupported"),
        (NotFound("x"), "read/failed"),
    ],
)
def test_an_error_makes_a_file_unknown(error, rule):
    found = judge_error(error, "model.pth")
    assert (found.rule, found.severity, found.where) == (rule, "unknown", "model.pth")


def test_an_amplification_makes_it_dangerous():
    found = judge_error(Amplified("x"), "model.pth")
    assert (found.rule, found.severity) == ("container/amplification", "dangerous")


def test_the_table_of_rules_is_whole():
    for name, text in RULES.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*/[a-z]+(-[a-z]+)*", name)
        assert text.rule == name
        assert text.title
        assert text.why
        assert text.remedy
    assert {_anomalies.rule_for("?"), *_anomalies.RULE_OF.values()} <= RULES.keys()


def test_the_order_of_findings_does_not_hang_on_that_of_a_set():
    # Found by the fuzzer: the names in a set were reported in the order of their addresses.
    names = b"".join(
        f"ctorch.nn.functional\n{name}\n".encode() for name in ("relu", "gelu", "silu")
    )
    classes = b"ccollections\nOrderedDict\nctorch._utils\n_rebuild_parameter\n"
    data = b"\x80\x02\x8f(" + names + classes + b"\x90."
    said = {tuple(f.what for f in judge_program(run(data), "data.pkl")) for _ in range(20)}
    assert len(said) == 1
