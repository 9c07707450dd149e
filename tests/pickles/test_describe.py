"""Values of a program as one bounded line."""

from __future__ import annotations

import time

import pytest

from tensorkeep.pickles import Effect, Import, describe, load, run


def text(data: bytes, limit: int = 200) -> str:
    return describe(load(data).value, limit)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"cos\nsystem\n(S'echo hi'\ntR.", "os.system('echo hi')"),
        (b"ca\nB\n)R.", "a.B()"),
        (b"ca\nB\n(ca\nC\n)RK\x01tR.", "a.B(a.C(), 1)"),
        (b"ca\nB\n)\x81.", "a.B.__new__()"),
        (b"ca\nB\nN\x85}X\x01\0\0\0kK\x02s\x92.", "a.B.__new__(None, **{'k': 2})"),
        (b"ca\nB\nca\nC\n)RR.", "a.B(*a.C())"),
        (b"cbuiltins\ngetattr\n(ca\nB\nS'x'\ntR)R.", "builtins.getattr(a.B, 'x')()"),
        (b"Pid\n.", "persistent('id')"),
        (b"\x82\x05.", "extension(5)"),
        (b"(K\x01ia\nB\n.", "a.B(1)"),
        (b"](NI01\nG" + bytes(8) + b"C\x01ae.", "[None, True, 0.0, b'a']"),
        (b"K\x01\x85.", "(1,)"),
        (b").", "()"),
        (b"].", "[]"),
        (b"}.", "{}"),
        (b"\x8f.", "set()"),
        (b"(\x91.", "frozenset()"),
        (b"(K\x01\x91.", "frozenset({1})"),
        (b"\x8f(K\x02N\x8c\x01bK\x01\x8c\x01a\x90.", "{None, 1, 2, 'a', 'b'}"),
        (b"\x8f(ca\nB\nN\x8c\x01a\x86N\x8c\x01b\x86\x90.", "{a.B, (None, 'a'), (None, 'b')}"),
        (b"\x8f(K\x01\x90.", "{1}"),
        (b"}K\x01K\x02s.", "{1: 2}"),
        (b"\x96\x01" + bytes(7) + b"a.", "bytearray(b'a')"),
        (b"\x96\x01" + bytes(7) + b"a\x98.", "<memoryview>"),
        (b"]q\x00h\x00a.", "[...]"),
        (b"]2\x86.", "([], [])"),
        (b"\x8b\x28\0\0\0" + b"\x01" * 40 + b".", "<int of 313 bits>"),
        (b"ca\n\x1b[31mB\n.", "a.\\x1b[31mB"),
        (b"X\x05\0\0\0\xe2\x80\xae\x1b\n.", "'\\u202e\\x1b\\n'"),
    ],
)
def test_describe(data, expected):
    assert text(data) == expected
    assert repr(load(data).value)


def test_effects_and_imports():
    program = load(b"ca\nB\n}b(K\x01K\x02e(K\x03\x90K\x04K\x05sK\x06a(K\x01K\x02K\x03K\x04u.")
    assert [describe(step) for step in program.trace if isinstance(step, Effect)] == [
        "a.B.__setstate__({})",
        "a.B.extend(1, 2)",
        "a.B.add(3)",
        "a.B[4] = 5",
        "a.B.append(6)",
        "a.B[1] = 2; [3] = 4",
    ]
    assert [repr(step) for step in program.trace if isinstance(step, Import)] == ["import a.B"]


@pytest.mark.parametrize("limit", [3, 10, 50, 1000])
def test_the_limit_holds(limit):
    for data in (b"](" + b"K\x01" * 1000 + b"e.", b"X\xff\0\0\0" + b"a" * 255 + b"."):
        line = text(data, limit)
        assert len(line) <= limit
        assert line.endswith("...") or len(line) < limit


HOSTILE = {
    "tuples": b"N" + b"\x85" * 200_000 + b".",
    "lists": b"]" * 200_000 + b"a" * 199_999 + b".",
    "calls": b"ca\nB\n" + b")R" * 200_000 + b".",
    "arguments": b"(ca\nB\n" * 200_000 + b"o" * 200_000 + b".",
    "persistent": b"N" + b"Q" * 200_000 + b".",
    "graph": b"N" + b"2\x86" * 200 + b".",
    "calls graph": b"ca\nB\n" + b"2\x85R" * 200 + b".",
    "wide": b"](" + b"N" * 1_000_000 + b"e.",
    "states": b"ca\nB\n" * 100_000 + b"b" * 99_999 + b".",
    "keywords": b"ca\nB\n" + b")}\x92" * 200_000 + b".",
    "text": b"X" + (10_000_000).to_bytes(4, "little") + b"\x1b" * 10_000_000 + b".",
    "name": b"ca\n" + b"\x1b" * 10_000_000 + b"\n.",
    "digits": b"\x8b" + (10_000_000).to_bytes(4, "little") + b"\x01" * 10_000_000 + b".",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_values_in_bounded_time(name):
    program = load(HOSTILE[name])
    started = time.process_time()
    for step in [program.value, *program.trace[:10], *program.trace[-10:]]:
        assert len(describe(step)) <= 200
        assert isinstance(step, tuple | list | str | int) or len(repr(step)) <= 200
    assert time.process_time() - started < 2


def test_large_sets_are_counted():
    assert describe({*range(1234), "a"}) == "{<1,235 items>}"


def test_sets_read_the_same_in_every_process():
    # Found by the fuzzer: their order follows addresses and the hash seed of the process.
    names = b"".join(f"c{module}\nB\n".encode() for module in "abcdefgh")
    lines = {describe(run(b"\x8f(" + names + b"\x90.").value) for _ in range(20)}
    assert lines == {"{a.B, b.B, c.B, d.B, e.B, f.B, g.B, h.B}"}
