"""Imports, calls, persistent ids and extension codes: recorded with their positions."""

from __future__ import annotations

import importlib
import pickle

import pytest

from tensorkeep.errors import Damaged, Unsupported
from tensorkeep.pickles import Call, Effect, Extension, Global, Import, Persistent, load, run


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def test_reduce():
    program = load(b"cos\nsystem\n(S'echo hi'\ntR.")
    call = program.value
    assert isinstance(call, Call)
    assert (call.kind, call.args, call.kwargs, call.offset) == ("REDUCE", ("echo hi",), None, 24)
    assert isinstance(call.func, Global)
    assert (call.func.module, call.func.name, call.func.qualified) == ("os", "system", "os.system")
    assert [type(step) for step in program.trace] == [Import, Call]
    assert (program.trace[0].opcode, program.trace[0].offset) == ("GLOBAL", 0)
    assert program.trace[1] is call
    assert (program.start, program.end, program.opcodes) == (0, 26, 6)


def test_what_is_called_and_popped_is_still_recorded():
    program = load(b"cos\nsystem\n(S'x'\ntR0N.")
    assert program.value is None
    assert [type(step) for step in program.trace] == [Import, Call]


def test_a_program_that_breaks_keeps_what_ran_before():
    program = run(b"cos\nsystem\n(S'x'\ntR\xff")
    assert isinstance(program.error, Damaged)
    assert "byte 19" in program.error.where
    assert program.value is None
    assert [type(step) for step in program.trace] == [Import, Call]


def test_newobj_inst_and_obj():
    new = load(b"ca\nB\n)\x81.").value
    assert (new.kind, new.args, new.kwargs) == ("NEWOBJ", (), None)
    extended = load(b"ca\nB\n)}\x92.").value
    assert (extended.kind, extended.args, extended.kwargs) == ("NEWOBJ_EX", (), {})
    program = load(b"(K\x01ia\nB\n.")
    assert (program.value.kind, program.value.args, program.value.offset) == ("INST", (1,), 3)
    assert program.trace[0].opcode == "INST"
    made = load(b"(ca\nB\nK\x01o.").value
    assert (made.kind, made.args, made.func.qualified) == ("OBJ", (1,), "a.B")


@pytest.mark.parametrize(
    "data",
    [
        b"ca\nB\nK\x01R",
        b"ca\nB\n]R",
        b"K\x01)R",
        b")R",
        b"](tR",
        b"ca\nB\n]\x81",
        b"K\x01)\x81",
        b"ca\nB\n)N\x92",
        b"ca\nB\n]}\x92",
        b"(o",
        b"(K\x01o",
        b"o",
        b"ia\nB\n",
        b"(i\nB\n",
        b"(i\xc3\xa9\nB\n",
        b"c\nB\n",
        b"ca\n\n",
        b"ca\nB",
        b"c\xff\nB\n",
        b"P\xc3\xa9\n",
        b"\x82\x00",
        b"\x83\x00\x00",
        b"\x84\xff\xff\xff\xff",
        b"K\x01X\x01\0\0\0a\x93",
        b"X\x01\0\0\0a\x93",
        b"C\x01aX\x01\0\0\0a\x93",
    ],
)
def test_refused(data, oracle):
    with pytest.raises(Damaged):
        load(data + b".")
    assert not oracle.same(data + b".")


def test_a_node_may_be_a_tuple_of_a_subclass():
    call = load(b"ca\nB\n2)R\x94.".replace(b"\x94", b"R")).value
    assert isinstance(call.args, Call)


def test_a_global_is_one_object_for_each_name():
    program = load(b"ca\nB\nca\nB\nca\nC\n\x87.")
    first, second, third = program.value
    assert first is second is not third
    assert [step.offset for step in program.trace] == [0, 5, 10]
    assert first.offset == 0


def test_stack_global_and_its_operands_from_the_memo():
    program = load(b"\x80\x04" + short("os") + b"\x94" + short("system") + b"\x940h\x00h\x01\x93.")
    assert program.value.qualified == "os.system"
    assert program.trace[0].opcode == "STACK_GLOBAL"


def test_a_computed_name_is_no_name():
    program = load(b"cbuiltins\nstr\n(S'os'\ntRX\x06\0\0\0system\x93.")
    assert program.value.computed
    assert program.value.module == "<computed>"
    assert program.value.operands[0].func.qualified == "builtins.str"
    assert [a.kind for a in program.anomalies] == ["computed-name"]
    assert "builtins.str('os')" in repr(program.value)


def test_persistent_ids():
    program = load(b"Pabc\n(K\x01K\x02tQ\x86.")
    text, binary = program.value
    assert isinstance(text, Persistent)
    assert (text.pid, text.offset, binary.pid, binary.offset) == ("abc", 0, (1, 2), 11)
    assert program.persistents == [text, binary]


@pytest.mark.parametrize(
    ("data", "code"), [(b"\x82\x05", 5), (b"\x83\x05\x01", 261), (b"\x84\x05\0\0\0", 5)]
)
def test_extension(data, code):
    program = load(data + data + b"\x86.")
    assert isinstance(program.value[0], Extension)
    assert program.value[0] is program.value[1]
    assert program.value[0].code == code
    assert [type(step) for step in program.trace] == [Import, Import]


def test_buffers_from_outside():
    with pytest.raises(Unsupported, match="NEXT_BUFFER"):
        load(b"\x97.")


NAMES = [
    ("__builtin__", "xrange"), ("__builtin__", "set"), ("exceptions", "ValueError"),
    ("copy_reg", "_reconstructor"), ("itertools", "izip"), ("UserDict", "UserDict"),
    ("collections", "UserDict"), ("Queue", "Queue"), ("__builtin__", "reduce"),
    ("collections", "OrderedDict"), ("datetime", "datetime.fromtimestamp"), ("builtins", "range"),
    ("datetime", "nothing"), ("fractions", "Fraction"), ("_abcoll", "Mapping"),
    ("exceptions", "WindowsError"), ("datetime", "datetime.<locals>.x"), ("cPickle", "dumps"),
]  # fmt: skip


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(("module", "name"), NAMES)
def test_names_resolve_as_cpython_resolves_them(module, name, protocol):
    """CPython imports them here: all are of the standard library, and looking does nothing."""
    data = b"\x80" + bytes([protocol]) + f"c{module}\n{name}\n.".encode()
    node = load(data).value
    assert node.written == (module, name)
    assert node.dotted == (protocol >= 4 and "." in name)
    try:
        expected = pickle.loads(data)
    except (AttributeError, ImportError):
        with pytest.raises((AttributeError, ImportError)):
            resolve(node)
    else:
        assert resolve(node) == expected


def resolve(node: Global):
    found = importlib.import_module(node.module)
    for part in node.name.split(".") if node.dotted else [node.name]:
        found = getattr(found, part)
    return found


def test_the_protocol_in_force_decides_on_the_mapping():
    program = load(b"\x80\x03c__builtin__\neval\n\x80\x02c__builtin__\neval\n\x86.")
    assert [node.qualified for node in program.value] == ["__builtin__.eval", "builtins.eval"]
    assert [a.kind for a in program.anomalies] == ["proto-twice"]


def test_effects_are_kept_on_the_node_and_in_the_trace():
    program = load(
        b"ca\nB\n)R}Nb(K\x01eK\x02a(K\x03\x90K\x04K\x05s(K\x06K\x07u.".replace(b"}Nb", b"}b")
    )
    effects = program.value.effects
    assert [effect.kind for effect in effects] == [
        "BUILD", "APPENDS", "APPEND", "ADDITEMS", "SETITEM", "SETITEMS"
    ]  # fmt: skip
    assert [effect.args for effect in effects] == [({},), (1,), (2,), (3,), (4, 5), (6, 7)]
    assert effects == [step for step in program.trace if isinstance(step, Effect)]
    assert all(effect.target is program.value for effect in effects)
    assert [effect.offset for effect in effects] == sorted(effect.offset for effect in effects)
