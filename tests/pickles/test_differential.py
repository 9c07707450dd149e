"""Random programs, through the machine and through CPython's unpickler: same value or both refuse.

Programs are grown with a rough idea of the stack, so that most get far, and now and then with
none at all. Indexes and lengths are kept small: CPython would allocate them.
"""

from __future__ import annotations

import pickle
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

PROGRAMS_PER_EXAMPLE = 60
NAMES = [b"collections\nOrderedDict\n", b"fractions\nFraction\n", b"datetime\ndate\n"]
# CPython allocates what these ask for, a memo of two thousand million entries for one.
NOT_A_LENGTH = sorted(set(range(256)) - {0x72, 0x8D, 0x8E, 0x96})
NUMBER_CHARS = "0123456789+-_xXoObBeE.LnaifNIF \t\v\0"
TEXT_PIECES = [
    "a",
    "é",
    "\\",
    "\\n",
    "\\x41",
    "\\x4",
    "\\101",
    "\\8",
    "\\u00e9",
    "\\u12",
    "'",
    '"',
    "\\\\",
    "\0",
    "\\U0001F600",
    "\\ud800",
    "\\q",
]
NUMBERS = [
    "0",
    "00",
    "01",
    "1",
    "-1",
    "010",
    "08",
    "0x1f",
    "-0X1F",
    "0b11",
    "0o17",
    "0_1",
    "1_000",
    " 12",
    "12 ",
    "12L",
    "L",
    "9223372036854775807",
    "9223372036854775808",
    "1\0x",
    "\0",
    "-9223372036854775809",
    "0777777777777777777777777",
    "0xffffffffffffffffff",
    "1e5",
    "nan",
    "inf",
    "-Infinity",
    "1e999",
    "1.",
    ".5",
    ".",
    "1e",
    "+7",
    "--7",
    "1.5\0",
    "1_0.5",
    "0 ",
    "1e-999",
    "0x",
    "_1",
    "1_",
    "+",
    "- 1",
    "4" * 30,
    "00000000000000000000000000000001",
]

INDEXES = [b"0", b"1", b"00", b" 1", b"1 ", b"0_1", b"1\0x", b"-1", b"", b"x", b"1L", b"0x1", b"+2"]


def number(rng) -> bytes:
    if rng.random() < 0.7:
        return rng.choice(NUMBERS).encode()
    return "".join(rng.choice(NUMBER_CHARS) for _ in range(rng.randrange(6))).encode()


def text(rng) -> bytes:
    return "".join(rng.choice(TEXT_PIECES) for _ in range(rng.randrange(5))).encode()


def quoted(rng) -> bytes:
    quote = rng.choice([b"'", b'"'])
    return rng.choice([quote, quote, quote, b""]) + text(rng) + rng.choice([quote] * 5 + [b"'"])


def sized(rng, code: str, body: bytes) -> bytes:
    length = len(body) + (rng.choice([-1, 1, 5]) if rng.random() < 0.02 else 0)
    return struct.pack(code, max(length, 0)) + body


def atom(rng) -> bytes:
    if rng.random() < 0.7:
        return rng.choice(
            [b"N", b"\x88", b")", b"K\x02", b"X\x01\x00\x00\x00k", b"I7\n", b"U\x01a"]
        )
    return rng.choice([
        lambda: b"N", lambda: b"\x88", lambda: b"\x89", lambda: b")",
        lambda: b"K" + rng.randbytes(1), lambda: b"M" + rng.randbytes(2),
        lambda: b"J" + rng.randbytes(4), lambda: b"G" + rng.randbytes(8),
        lambda: b"\x8a" + sized(rng, "<B", rng.randbytes(rng.randrange(12))),
        lambda: b"\x8b" + sized(rng, "<i", rng.randbytes(rng.randrange(12))),
        lambda: b"I" + number(rng) + b"\n",
        lambda: b"L" + number(rng) + rng.choice([b"L\n", b"\n"]),
        lambda: b"F" + number(rng) + b"\n",
        lambda: b"S" + quoted(rng) + b"\n", lambda: b"V" + text(rng) + b"\n",
        lambda: b"U" + sized(rng, "<B", text(rng)), lambda: b"T" + sized(rng, "<I", text(rng)),
        lambda: b"X" + sized(rng, "<I", text(rng)),
        lambda: b"\x8c" + sized(rng, "<B", rng.choice([text(rng), b"\xed\xa0\x80", b"\xff"])),
        lambda: b"\x8d" + sized(rng, "<Q", text(rng)),
        lambda: b"C" + sized(rng, "<B", text(rng)), lambda: b"B" + sized(rng, "<I", text(rng)),
        lambda: b"\x8e" + sized(rng, "<Q", text(rng)), lambda: b"\x96" + sized(rng, "<Q", b"abc"),
        lambda: b"X\x01\x00\x00\x00k", lambda: b"X\x01\x00\x00\x00v", lambda: b"K\x01",
    ])()  # fmt: skip


def index(rng) -> int:
    return rng.choice(
        [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 4, 5, 9, 200] if rng.random() < 0.3 else [0, 1, 2]
    )


def memo(rng) -> bytes:
    n = index(rng)
    return rng.choice([
        b"q" + bytes([n]), b"r" + struct.pack("<I", n), b"p" + str(n).encode() + b"\n", b"\x94",
        b"\x94", b"h" + bytes([n]), b"j" + struct.pack("<I", n), b"g" + str(n).encode() + b"\n",
        b"h\x00", b"h\x00", rng.choice([b"g", b"p"]) + rng.choice(INDEXES) + b"\n",
    ])  # fmt: skip


def steer(rng, _stack) -> bytes:
    return rng.choice([
        b"\x80" + bytes([rng.choice([0, 1, 2, 3, 4, 5, 5, 5, 6, 255])]),
        b"\x95" + struct.pack("<Q", rng.choice([0, 1, 2, 4, 7, 12, 30, 99_999, 1 << 63])),
        b"\x95" + struct.pack("<Q", rng.choice([0, 1, 2])), b"\x80\x05", b"\x80\x02", b"\x80\x04",
        b"\x82\x01", b"\x83\x00\x00", b"\x84\xff\xff\xff\xff", b"\x97", b"\x98", b"\x80\x03",
        bytes([rng.choice(NOT_A_LENGTH)]),
    ])  # fmt: skip


def program(rng) -> bytes:
    """Opcodes chosen by what lies on a rough model of the stack: letters, with "(" for a mark."""
    out, stack = [b"]\x940)\x940X\x01\x00\x00\x00k\x940" if rng.random() < 0.9 else b""], ""
    for _ in range(rng.randrange(1, 30)):
        code, stack = step(rng, stack)
        out.append(code)
    if rng.random() < 0.9:  # close what is open, so that STOP finds a value
        out += [b"t"] * stack.count("(")
    return b"".join(out) + rng.choice([b".", b".", b".", b".junk", b""])


def step(rng, stack: str) -> tuple[bytes, str]:
    roll = rng.random()
    if roll < 0.03:
        return steer(rng, stack), stack
    if roll < 0.05:
        return bytes([rng.choice(b"().012abdelostuR\x81\x85\x86\x87\x90\x91\x92\x93Q")]), stack
    fitting = [option for option in OPTIONS if option[0](stack)]
    _, make, effect = rng.choice(fitting)
    return make(rng), effect(stack)


def above(stack: str) -> str:
    return stack.rpartition("(")[2]


def under(stack: str) -> str:
    return stack.rpartition("(")[0]


def ends(letters: str, plus: int = 0):
    """The object that is `plus` items below the top, above the mark, is one of `letters`."""
    return lambda s: len(above(s)) > plus and above(s)[-1 - plus] in letters


def ready(letters: str, even: bool = False):
    """What lies right below the topmost mark is one of `letters`."""

    def check(s: str) -> bool:
        fits = "(" in s and under(s)[-1:] in tuple(letters)
        return fits and (not even or len(above(s)) % 2 == 0)

    return check


def const(code: bytes):
    return lambda _rng: code


OPTIONS = [
    (lambda s: True, atom, lambda s: s + "x"),
    (lambda s: True, atom, lambda s: s + "x"),
    (lambda s: True, const(b"]"), lambda s: s + "l"),
    (lambda s: True, const(b"}"), lambda s: s + "d"),
    (lambda s: True, const(b"\x8f"), lambda s: s + "s"),
    (lambda s: True, const(b"("), lambda s: s + "("),
    (lambda s: True, lambda r: b"c" + r.choice(NAMES), lambda s: s + "g"),
    (lambda s: True, const(b"X\x01\x00\x00\x00mX\x01\x00\x00\x00n\x93"), lambda s: s + "g"),
    (lambda s: True, const(b"Psome-id\n"), lambda s: s + "g"),
    (lambda s: above(s), memo, lambda s: s),
    (lambda s: above(s), memo, lambda s: s),
    (lambda s: above(s), const(b"2"), lambda s: s + s[-1]),
    (lambda s: s, const(b"0"), lambda s: s[:-1]),
    (lambda s: above(s), const(b"Q"), lambda s: s[:-1] + "g"),
    (lambda s: above(s), const(b"\x85"), lambda s: s[:-1] + "t"),
    (lambda s: len(above(s)) > 1, const(b"\x86"), lambda s: s[:-2] + "t"),
    (lambda s: len(above(s)) > 2, const(b"\x87"), lambda s: s[:-3] + "t"),
    (lambda s: "(" in s, const(b"t"), lambda s: under(s) + "t"),
    (lambda s: "(" in s, const(b"l"), lambda s: under(s) + "l"),
    (lambda s: "(" in s, const(b"1"), lambda s: under(s)),
    (lambda s: "(" in s, const(b"\x91"), lambda s: under(s) + "x"),
    (lambda s: "(" in s and len(above(s)) % 2 == 0, const(b"d"), lambda s: under(s) + "d"),
    (lambda s: "(" in s, lambda r: b"i" + r.choice(NAMES), lambda s: under(s) + "g"),
    (lambda s: "(" in s and above(s)[:1] == "g", const(b"o"), lambda s: under(s) + "g"),
    (lambda s: True, const(b"C\x01a\x98"), lambda s: s + "x"),
    (lambda s: True, const(b"\x96\x03" + bytes(7) + b"abc"), lambda s: s + "y"),
    (lambda s: True, const(b"]\x94K\x05aK\x00K\x06s"), lambda s: s + "l"),
    (ends("y"), const(b"\x98"), lambda s: s[:-1] + "x"),
    (ends("y"), const(b"K\x01a"), lambda s: s),
    (ends("y"), const(b"K\x01K\x07s"), lambda s: s),
    (ends("lg", 1), const(b"a"), lambda s: s[:-1]),
    (ends("ldg", 2), const(b"s"), lambda s: s[:-2]),
    (ready("lg"), const(b"e"), under),
    (ready("lg"), const(b"e"), under),
    (ready("dlg", even=True), const(b"u"), under),
    (ready("dlg", even=True), const(b"u"), under),
    (ready("sg"), const(b"\x90"), under),
    (ends("g", 1), const(b"b"), lambda s: s[:-1]),
    (ends("x", 1), lambda r: r.choice([b"N", b"N", b")", b"N}\x86", b"}"]) + b"b", lambda s: s),
    (lambda s: above(s)[-2:] == "gt", const(b"R"), lambda s: s[:-2] + "g"),
    (lambda s: above(s)[-2:] == "gt", const(b"R"), lambda s: s[:-2] + "g"),
    (lambda s: above(s)[-2:] == "gt", const(b"\x81"), lambda s: s[:-2] + "g"),
    (lambda s: above(s)[-3:] == "gtd", const(b"\x92"), lambda s: s[:-3] + "g"),
]


@given(st.integers(0, 2**64))
def test_machine_agrees_with_cpython(oracle, seed):
    rng = random.Random(seed)
    for _ in range(PROGRAMS_PER_EXAMPLE):
        oracle.same(program(rng), encoding=rng.choice(["utf-8", "ASCII", "bytes", "latin1"]))


def test_the_generator_reaches_both_ends(oracle):
    # Guards the property above: programs that all fail, or never do, would show nothing.
    rng = random.Random(1)
    accepted = [oracle.same(program(rng)) for _ in range(1000)]
    assert 300 < sum(accepted) < 900


def test_the_generator_uses_every_opcode():
    from tensorkeep.pickles.opcodes import HANDLERS, NAMES

    rng = random.Random(2)
    used = set()
    for _ in range(1500):
        used.update(program(rng))
    assert len(HANDLERS) == 256
    assert set(NAMES) <= used


@given(st.integers(0, 2**64))
def test_readings_that_differ_between_memory_and_file_are_anomalies(oracle, seed):
    rng = random.Random(seed)
    for _ in range(PROGRAMS_PER_EXAMPLE):
        data = framed(rng)
        memory = oracle.real(data)
        file = oracle.real(data, from_memory=False)
        if (memory.value, bool(memory.error)) != (file.value, bool(file.error)):
            program = oracle.ours(data).program
            noted = any(a.kind == "frame-crosses-value" for a in program.anomalies)
            assert noted or program.error, data
        elif not memory.error and memory.end != file.end:
            program = oracle.ours(data).program
            assert any(a.kind.startswith("frame-crosses") for a in program.anomalies), data


def framed(rng) -> bytes:
    out = [b"\x80\x04"]
    for _ in range(rng.randrange(1, 6)):
        body = b"".join(atom(rng) for _ in range(rng.randrange(4))) + b"\x86" * rng.randrange(2)
        length = len(body) + rng.choice([0, 0, -1, 1, 3, -3])
        out += [b"\x95" + struct.pack("<Q", max(length, 0)), body]
    return b"".join(out) + rng.choice([b".", b"\x85.", b"0000."]) + b"N" * rng.randrange(6)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.integers(-(2**70), 2**70) | st.builds(bytearray, st.binary()),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple)
    | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers(), st.text()), inner)
    | st.sets(st.integers() | st.text()) | st.frozensets(st.integers() | st.binary()),
    max_leaves=30,
)  # fmt: skip


@given(plain, st.integers(0, 5))
def test_what_pickle_writes_is_read_back(oracle, value, protocol):
    data = pickle.dumps(value, protocol)
    if oracle.same(data):
        program = oracle.ours(data).program
        assert program.end == len(data)
        assert program.protocol == (protocol if protocol >= 2 else 0)
        assert program.anomalies == []


@given(st.lists(st.integers(0, 5)), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9))))
def test_shared_and_cyclic_containers(oracle, kinds, links):
    made = [[] if kind % 2 else {} for kind in [0, *kinds]]
    for source, target in links:
        container, item = made[source % len(made)], made[target % len(made)]
        if isinstance(container, list):
            container.extend([item, (item,)])
        else:
            container[len(container)] = item
    for protocol in range(6):
        assert oracle.same(pickle.dumps(made, protocol))


class Thing:
    def __init__(self, **state):
        self.__dict__.update(state)


class Slotted(list):
    __slots__ = ("a",)


@pytest.mark.parametrize("protocol", range(6))
def test_objects_with_state_and_subclasses(oracle, protocol, monkeypatch):
    for cls in (Thing, Slotted):  # the file is imported under a name of pytest's making
        monkeypatch.setattr(cls, "__module__", "things")
    import sys
    import types

    module = types.ModuleType("things")
    module.Thing, module.Slotted = Thing, Slotted
    monkeypatch.setitem(sys.modules, "things", module)
    thing = Thing(x=1, y=[2])
    thing.itself = thing
    values = [thing, Thing()]
    if protocol >= 2:
        slotted = Slotted([1, 2, thing])
        slotted.a = 5
        values.append(slotted)
    assert oracle.same(pickle.dumps(values, protocol))
