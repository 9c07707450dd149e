"""Hostile neighbours of the plain values that are allowed: the same names with other arguments."""

from __future__ import annotations

import collections
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorkeep.pickles import run
from tensorkeep.scanning.rules import judge_program
from tensorkeep.scanning.verdicts import verdict

P4 = b"\x80\x04"
SYSTEM = b"cos\nsystem\n"
LIST = b"](K\x01K\x02e"


def g(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def u(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def judged(program: bytes) -> tuple[str, set[str]]:
    found = judge_program(run(P4 + program + b"."), "data.pkl")
    return verdict(found), {each.rule for each in found}


def new(module: str, name: str, state: bytes = b"") -> bytes:
    """An instance by NEWOBJ, with this state."""
    return g(module, name) + b")\x81" + (state + b"b" if state else b"")


def attribute(name: str, value: bytes) -> bytes:
    return b"}" + u(name) + value + b"s"


ITER = g("builtins", "iter")
OWN = g("shop.models", "Net") + b")R"


def called(name: str, *args: bytes, module: str = "builtins") -> bytes:
    return g(module, name) + b"(" + b"".join(args) + b"tR"


WALKED = called("iter", LIST)


@pytest.mark.parametrize(
    "program",
    [
        called("iter", SYSTEM, b"K\x00"),
        called("iter", called("partial", SYSTEM, module="functools"), b"N"),
        called("iter", LIST, b"K\x00"),
        called("iter"),
        called("iter", SYSTEM),
        called("map", SYSTEM, WALKED),
        called("filter", SYSTEM, WALKED),
    ],
)
def test_an_iterator_that_calls_is_dangerous(program):
    assert judged(program)[0] == "dangerous"


@pytest.mark.parametrize(
    ("program", "rule"),
    [
        (called("iter", OWN), "pickle/odd-arguments"),
        (called("iter", WALKED), "pickle/odd-arguments"),
        (WALKED + b"}b", "pickle/odd-effect"),
        (WALKED + OWN + b"b", "pickle/odd-effect"),
        (WALKED + b"K\x01a", "pickle/odd-effect"),
        (called("reversed", OWN), "pickle/odd-arguments"),
        (called("reversed", called("range", b"K\x01")), "pickle/amplification"),
        (called("enumerate", LIST, b"K\x00"), "pickle/odd-arguments"),
        (called("enumerate", called("enumerate", WALKED, b"K\x00"), b"K\x00"),
         "pickle/odd-arguments"),
        (called("zip", WALKED, OWN), "pickle/odd-arguments"),
        (called("zip", called("zip", WALKED)), "pickle/odd-arguments"),
        (called("zip", *[WALKED] * 17), "pickle/odd-arguments"),
        (called("zip", WALKED) + b"K\x01b", "pickle/odd-effect"),
        (b"]" + ITER + b"a", "pickle/dangerous-import"),
        # Chains of these overflow the stack when they are taken apart, or hashed.
        (called("slice", called("slice", b"NNN"), b"NN"), "pickle/odd-arguments"),
        (called("slice", called("slice", b"NNN") + b"\x85", b"NN"), "pickle/odd-arguments"),
        (called("slice", OWN, b"NN"), "pickle/odd-arguments"),
        (called("slice", SYSTEM, b"NN"), "pickle/odd-arguments"),
        (called("slice", (b"(" + b"K\x01" * 40 + b"t"), b"NN"), "pickle/odd-arguments"),
        (called("tuple", b"((NtK\x01" + OWN + b"t"), "pickle/odd-arguments"),
        (called("tuple", b"(" * 40 + b"t" * 40), "pickle/odd-arguments"),
        # An attribute that hides a method, or a container that brings methods of its own.
        (new("collections", "UserDict", attribute("keys", b"K\x01")), "pickle/shadowing-key"),
        (new("collections", "UserDict", attribute("data", OWN)), "pickle/odd-effect"),
        (new("collections", "UserDict", attribute("__class__", b"N")), "pickle/shadowing-key"),
        (new("collections", "UserDict", b"N" + attribute("data", b"}") + b"\x86"),
         "pickle/slot-state"),
        (new("collections", "UserDict") + b"K\x01K\x02s", "pickle/odd-effect"),
        (new("collections", "UserList", attribute("data", OWN)), "pickle/odd-effect"),
        (new("collections", "UserList") + b"K\x01a", "pickle/odd-effect"),
        (new("collections", "UserString", attribute("data", b"K\x01")), "pickle/odd-effect"),
        (new("collections", "ChainMap", attribute("maps", b"]" + OWN + b"a")),
         "pickle/odd-effect"),
        (new("string", "Template", attribute("pattern", u("(a+)+"))), "pickle/odd-effect"),
        (called("UserDict", LIST, module="collections"), "pickle/odd-arguments"),
        (new("builtins", "object", b"}"), "pickle/odd-effect"),
        (called("object", b"K\x01"), "pickle/odd-arguments"),
        (g("builtins", "object") + b"K\x01\x85\x81", "pickle/odd-arguments"),
        (g("builtins", "object") + attribute("x", b"K\x01") + b"b", "pickle/changes-global"),
    ],
)  # fmt: skip
def test_a_neighbour_of_a_plain_value_is_not_safe(program, rule):
    word, rules = judged(program)
    assert word != "safe"
    assert rule in rules


ERROR = called("ValueError", u("x"))


@pytest.mark.parametrize(
    ("program", "rule"),
    [
        (ERROR + attribute("__cause__", ERROR) + b"b", "pickle/shadowing-key"),
        (ERROR + attribute("__class__", g("builtins", "KeyError")) + b"b", "pickle/shadowing-key"),
        (ERROR + attribute("with_traceback", b"N") + b"b", "pickle/odd-effect"),
        (ERROR + attribute("name", OWN) + b"b", "pickle/odd-effect"),
        (ERROR + b"N" + attribute("name", u("x")) + b"\x86b", "pickle/slot-state"),
        (called("ValueError", OWN), "pickle/odd-arguments"),
        (called("ValueError", ERROR), "pickle/odd-arguments"),
        (called("ValueError", LIST), "pickle/odd-arguments"),
        (called("SyntaxError", u("x")), "pickle/unknown-call"),
        (called("SystemExit", b"K\x01"), "pickle/unknown-call"),
        (called("ExceptionGroup", u("x"), b"]" + ERROR + b"a"), "pickle/unknown-call"),
        (g("builtins", "ValueError") + attribute("x", b"K\x01") + b"b", "pickle/changes-global"),
        (g("decimal", "DecimalTuple") + b"(K\x00" + OWN + b"K\x00t\x81", "pickle/odd-arguments"),
        (g("decimal", "DecimalTuple") + b"(K\x00t\x81", "pickle/odd-arguments"),
        (called("DecimalTuple", b"K\x00)K\x00", module="decimal"), "pickle/odd-arguments"),
        (called("_reconstructor", g("decimal", "DecimalTuple"), g("builtins", "tuple"),
                b"K\x00K\x01\x86", module="copyreg"), "pickle/odd-arguments"),
        (called("_reconstructor", g("collections", "UserDict"), g("builtins", "tuple"), b")",
                module="copyreg"), "pickle/odd-arguments"),
        (called("_reconstructor", g("builtins", "object"), g("builtins", "object"), b"K\x01",
                module="copyreg"), "pickle/odd-arguments"),
        (called("struct_time", b"(" + b"K\x01" * 9 + b"t", attribute("n_fields", b"K\x01"),
                module="time"), "pickle/odd-arguments"),
        (called("struct_time", LIST, b"}", module="time"), "pickle/odd-arguments"),
        (called("struct_time", b"(" + b"K\x01" * 9 + b"t", OWN, module="time"),
         "pickle/odd-arguments"),
    ],
)  # fmt: skip
def test_a_neighbour_of_a_record_is_not_safe(program, rule):
    word, rules = judged(program)
    assert word != "safe"
    assert rule in rules


def context(precision=b"K\x05", rounding="ROUND_UP", traps=b"]") -> bytes:
    parts = precision + u(rounding) + b"J\xff\xff\xff\xffK\x01K\x01K\x00]" + traps
    return called("Context", parts, module="decimal")


def test_the_settings_of_decimals_are_bounded():
    signal = b"]" + g("decimal", "Overflow") + b"a"
    assert judged(context(traps=signal)) == ("safe", set())
    for odd in (
        context(precision=b"\x8a\x08" + (10**17).to_bytes(8, "little")),
        context(precision=b"K\x00"),
        context(precision=u("x")),
        context(rounding="up"),
        context(traps=b"]" + g("os", "system") + b"a"),
        context(traps=b"]" + OWN + b"a"),
        context() + attribute("prec", b"K\x01") + b"b",
    ):
        assert judged(odd)[0] != "safe"
    assert judged(called("setcontext", context(), module="decimal"))[0] == "dangerous"


# numpy

EMPTY = b"(K\x00\x85C\x01btR"
RECORD = called("dtype", g("numpy", "record"), b"\x89\x88", module="numpy")
FLOAT = called("dtype", u("f8"), b"\x89\x88", module="numpy")


def built(size: int, offset: int = 0, flags: int = 16, field: bytes = FLOAT) -> bytes:
    """The state of a struct of one field."""
    fields = attribute("a", field + b"K" + bytes([offset]) + b"\x86")
    numbers = b"K" + bytes([size]) + b"K\x01K" + bytes([flags])
    return b"(K\x03" + u("|") + b"N" + u("a") + b"\x85" + fields + numbers + b"tb"


def array(dtype: bytes, data: bytes = b"C\x08" + bytes(8), kind: str = "recarray") -> bytes:
    made = g("numpy._core.multiarray", "_reconstruct") + b"(" + g("numpy", kind) + EMPTY[1:]
    return made + b"(K\x01K\x01\x85" + dtype + b"\x89" + data + b"tb"


def test_an_array_of_records_is_safe_by_hand_as_well():
    assert judged(array(RECORD + built(8))) == ("safe", set())
    assert judged(array(FLOAT, kind="matrix")) == ("safe", set())


@pytest.mark.parametrize(
    "program",
    [
        RECORD + built(8, offset=1),
        RECORD + built(0),
        RECORD + built(8, flags=63),
        RECORD + built(8, field=called("dtype", u("O"), b"\x89\x88", module="numpy")),
        RECORD + built(8, field=RECORD),
        RECORD + b"(K\x03" + u("|") + b"NNNK\x08K\x01K\x10tb",
        array(RECORD, b"C\x00"),
        # A record that grows reaches beyond the arrays that have it already.
        RECORD + built(8) + built(80),
        array(RECORD + b"\x94", b"C\x00") + b"0h\x00" + built(80),
        array(RECORD + built(8) + b"\x94") + b"0h\x00" + built(80),
        called("scalar", RECORD + b"\x94", b"C\x00", module="numpy._core.multiarray")
        + b"0h\x00" + built(80),
        called("_frombuffer", b"C\x00", RECORD + b"\x94", b"K\x09\x85", u("C"),
               module="numpy._core.numeric") + b"0h\x00" + built(80),
        called("dtype", u("V80"), b"\x89\x88", module="numpy")
        + built(80, field=RECORD + b"\x94") + b"0h\x00" + built(200),
        called("dtype", g("numpy", "float64"), b"\x89\x88", module="numpy"),
        called("dtype", g("numpy", "record"), b"\x89\x89", module="numpy"),
        # What the class is made of is the file's own, or no class of arrays.
        g("numpy._core.multiarray", "_reconstruct") + b"(" + g("shop", "Array") + EMPTY[1:],
        g("numpy._core.multiarray", "_reconstruct") + b"(" + g("numpy", "record") + EMPTY[1:],
        g("numpy._core.multiarray", "_reconstruct") + b"(" + g("numpy", "memmap") + EMPTY[1:],
        g("numpy", "matrix") + b"(K\x01tR",
        g("numpy", "matrix") + attribute("A", b"K\x01") + b"b",
        array(FLOAT, kind="matrix") + attribute("_getitem", b"\x88") + b"b",
    ],
)  # fmt: skip
def test_a_neighbour_of_an_array_of_records_is_not_safe(program):
    assert judged(program)[0] != "safe"


def moment(code: bytes, unit: bytes = b"") -> bytes:
    minus = b"J\xff\xff\xff\xff"
    named = called("dtype", u(code.decode()), b"\x89\x88", module="numpy")
    return named + b"(K\x04" + u("<") + b"NNN" + minus + minus + b"K\x00" + unit + b"tb"


def test_numpy_divides_by_the_alignment():
    named = called("dtype", u("V8"), b"\x89\x88", module="numpy")
    parts = b"(K\x03" + u("|") + b"NNNK\x08"
    assert judged(named + parts + b"K\x01K\x00tb") == ("safe", set())
    for odd in (b"K\x00", b"K\x03", b"K\x80", b"J\xfe\xff\xff\xff"):
        assert judged(named + parts + odd + b"K\x00tb")[0] != "safe"


def test_the_address_of_an_object_has_no_byte_order():
    named = called("dtype", u("O"), b"\x89\x88", module="numpy")
    minus = b"J\xff\xff\xff\xff"
    for order, safe in (("|", True), (">", False), ("<", False), ("=", False)):
        program = named + b"(K\x03" + u(order) + b"NNN" + minus + minus + b"K\x3ftb"
        assert (judged(program)[0] == "safe") is safe


@pytest.mark.parametrize("flags", [0, 8, 1, 17, 0x80, 0x88, 0x30, 0x50, 63])
def test_a_struct_has_numpy_keep_pythons_lock(flags):
    """An error in one that does not ends the process, as numpy has let go of the interpreter."""
    struct = called("dtype", u("V8"), b"\x89\x88", module="numpy")
    for made in (struct, RECORD):
        assert judged(array(made + built(8, flags=16), kind="ndarray")) == ("safe", set())
        assert judged(array(made + built(8, flags=flags), kind="ndarray"))[0] != "safe"


DAY = b"N(C\x01DK\x01K\x01K\x01t\x86"


@pytest.mark.parametrize("code", [b"M8", b"m8", b"<M8"])
def test_a_point_in_time_has_a_unit(code):
    """Without one numpy ends the process; a number of none divides by it."""
    assert judged(moment(code, DAY)) == ("safe", set())
    assert judged(moment(code))[0] != "safe"
    assert judged(moment(code, b"N"))[0] != "safe"
    assert judged(moment(code, b"N(C\x01DK\x00K\x01K\x01t\x86"))[0] != "safe"
    assert judged(moment(b"f8")) == ("safe", set())


def texts(*args: bytes) -> bytes:
    return called("_convert_to_stringdtype_kwargs", *args, module="numpy._core._internal")


TEXTS = texts(b"K\x01")
MASKED = called("MaskedConstant", module="numpy.ma.core")


def test_texts_of_any_length_are_safe_by_hand_as_well():
    assert judged(array(TEXTS, b"]" + u("a") + b"a", "ndarray")) == ("safe", set())
    assert judged(array(texts(b"K\x01N"), b"]Na", "ndarray")) == ("safe", set())


@pytest.mark.parametrize(
    "program",
    [
        texts(b"K\x02"),
        texts(b"K\x01", OWN),
        texts(b"K\x01", LIST),
        texts(u("x")),
        TEXTS + b"(K\x03" + u("|") + b"NNNK\x10K\x08K\x00tb",
        # numpy reads as many texts as the shape says, and makes text of whatever they are.
        array(TEXTS, b"]", "ndarray"),
        array(TEXTS, b"](" + u("a") + u("b") + b"e", "ndarray"),
        array(TEXTS, b"]" + OWN + b"a", "ndarray"),
        array(TEXTS, b"]" + LIST + b"a", "ndarray"),
        array(TEXTS, b"]Na", "ndarray"),
        # Bytes of the file would be taken for addresses.
        array(TEXTS, b"C\x10" + bytes(16), "ndarray"),
        called("scalar", TEXTS, b"C\x10" + bytes(16), module="numpy._core.multiarray"),
        called("_frombuffer", b"C\x10" + bytes(16), TEXTS, b"K\x01\x85", u("C"),
               module="numpy._core.numeric"),
        called("dtype", u("V16"), b"\x89\x88", module="numpy") + built(16, field=TEXTS),
        # The constant is everybody's.
        MASKED + attribute("fill_value", b"K\x01") + b"b",
        MASKED + b"K\x00K\x01s",
        called("MaskedConstant", b"K\x01", module="numpy.ma.core"),
        g("numpy.ma.core", "_mareconstruct") + b"(" + g("numpy.ma.core", "MaskedConstant")
        + g("numpy", "ndarray") + b"K\x00\x85" + u("b") + b"tR",
        g("numpy", "dtype") + attribute("x", b"K\x01") + b"b",
    ],
)  # fmt: skip
def test_a_neighbour_of_texts_and_masks_is_not_safe(program):
    assert judged(program)[0] != "safe"


@pytest.mark.parametrize(
    "state",
    [
        attribute("coef", OWN),
        attribute("coef", LIST),
        attribute("symbol", OWN),
        attribute("_val", b"N"),
        attribute("roots", b"N"),
        attribute("domain", b"N") + u("__call__") + b"Ns",
    ],
)
def test_a_polynomial_holds_its_coefficients_and_nothing_else(state):
    program = new("numpy.polynomial.polynomial", "Polynomial", state)
    assert judged(program)[0] != "safe"


@given(st.lists(st.integers() | st.text() | st.none()), st.integers(-9, 9))
def test_an_iterator_is_safe_at_every_place(values, place):
    walked = iter(values)
    walked.__setstate__(place)
    for protocol in range(6):
        assert judge_program(run(pickle.dumps(walked, protocol)), "x") == []


def test_what_changes_after_an_iterator_was_made_is_said():
    program = b"]\x94" + ITER + b"h\x00\x85R0h\x00" + OWN + b"a"
    assert "pickle/odd-structure" in judged(program)[1]


def test_a_long_chain_of_records_is_judged_in_time_that_its_bytes_allow():
    inner = np.dtype([("a", "f8")])
    for _ in range(30):
        inner = np.dtype((np.record, [("a", inner)]))
    assert judge_program(run(pickle.dumps(inner)), "x") == []
    many = collections.OrderedDict((str(n), np.zeros(1, inner)) for n in range(50))
    assert judge_program(run(pickle.dumps(many)), "x") == []


@pytest.mark.parametrize("code", ["O8", "f8", "S8", "U2", "V8"])
@pytest.mark.parametrize("parts", [b"N)}", b"N\x8c\x01a\x85}\x8c\x01aDTYPEK\x00\x86s"])
def test_only_raw_bytes_have_fields(code, parts):
    # `dtype("O8")` with fields of none would say that it holds no objects: bytes become addresses.
    none = b"J\xff\xff\xff\xff"
    i4 = g("numpy", "dtype") + u("i4") + b"\x89\x88\x87R"
    i4 += b"(K\x03\x8c\x01<NNN" + none * 2 + b"K\0tb"
    size = none if code in ("O8", "f8") else b"K\x08"
    state = b"(K\x03\x8c\x01|" + parts.replace(b"DTYPE", i4) + size + b"K\x01K\x10tb"
    word, rules = judged(g("numpy", "dtype") + u(code) + b"\x89\x88\x87R" + state)
    assert rules == (set() if code == "V8" else {"pickle/odd-effect"})
    assert word == ("safe" if code == "V8" else "suspicious")
