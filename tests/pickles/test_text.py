"""The text arguments against what the C functions behind them give, one value at a time."""

from __future__ import annotations

import math
import pickle

import pytest

from tensorkeep.errors import Damaged
from tensorkeep.pickles import load


def value(data: bytes):
    return load(data).value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"010", 8),
        (b"00", False),
        (b"01", True),
        (b" 1", True),
        (b"+0", False),
        (b"1", 1),
        (b"001", 1),
        (b"0x1f", 31),
        (b"-0X1F", -31),
        (b"0b101", 5),
        (b"0o17", 15),
        (b"1_000", 1000),
        (b"7\0anything", 7),
        (b"\0", 0),
        (b"\0x", False),
        (b"9223372036854775808", 1 << 63),
        (b"0xfffffffffffffffff", (1 << 68) - 1),
        (b"0" * 30 + b"7", 7),
    ],
)
def test_int(text, expected):
    data = b"I" + text + b"\n."
    assert value(data) == expected
    assert type(value(data)) is type(expected)
    assert pickle.loads(data) == expected


@pytest.mark.parametrize(
    "text",
    [b"", b" ", b"08", b"1L", b"0x", b"_1", b"1__0", b"--1", b"1.0", b"0777777777777777777777777"],
)
def test_int_refused(text):
    with pytest.raises(Damaged, match="byte 0, opcode INT"):
        load(b"I" + text + b"\n.")
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        pickle.loads(b"I" + text + b"\n.")


@pytest.mark.parametrize(
    ("text", "expected"), [(b"12L", 12), (b"12", 12), (b"-0x10L", -16), (b"4\0L", 4), (b"00L", 0)]
)
def test_long(text, expected):
    assert value(b"L" + text + b"\n.") == expected == pickle.loads(b"L" + text + b"\n.")


@pytest.mark.parametrize("text", [b"L", b"010L", b"1LL", b"", b"9" * 4301 + b"L", b"0" * 4301])
def test_long_refused(text):
    with pytest.raises(Damaged):
        load(b"L" + text + b"\n.")
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        pickle.loads(b"L" + text + b"\n.")


def test_digits_up_to_the_limit_and_hexadecimal_beyond_it():
    assert value(b"L" + b"9" * 4300 + b"L\n.") == 10**4300 - 1
    assert value(b"I0x" + b"f" * 10_000 + b"\n.") == (1 << 40_000) - 1


@pytest.mark.parametrize(
    "text", [b"1", b"1.", b".5", b"-1e3", b"1E+02", b"INF", b"-infinity", b"1e-999"]
)
def test_float(text):
    assert value(b"F" + text + b"\n.") == pickle.loads(b"F" + text + b"\n.") == float(text)


def test_float_nan_and_nul():
    assert math.isnan(value(b"FnaN\n."))
    assert value(b"F1.5\0rest\n.") == 1.5


@pytest.mark.parametrize(
    "text", [b" 1", b"1 ", b"1_0", b".", b"1e", b"0x1p3", b"1e999", b"infinit", b"", b"1e400"]
)
def test_float_refused(text):
    with pytest.raises(Damaged):
        load(b"F" + text + b"\n.")
    with pytest.raises((ValueError, OverflowError, pickle.UnpicklingError)):
        pickle.loads(b"F" + text + b"\n.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rb"'a\n\x41\101\\'", "a\nAA\\"),
        (rb'"it\'s"', "it's"),
        (rb"''", ""),
        (rb"'a'b'", "a'b"),
        (rb"'\7\07\x007'", "\7\7\x007"),
    ],
)
def test_string(text, expected):
    assert value(b"S" + text + b"\n.") == expected == pickle.loads(b"S" + text + b"\n.")


def test_string_with_an_unknown_escape_keeps_it_and_does_not_warn():
    assert value(b"S'\\q\\8'\n.") == "\\q\\8"  # warnings are errors in these tests


@pytest.mark.parametrize(
    "text", [rb"abc", rb"'", rb"'abc", rb"'a\'", rb"'\x4'", rb"'a' ", rb"'\xff'"]
)
def test_string_refused(text):
    with pytest.raises(Damaged):
        load(b"S" + text + b"\n.")


def test_eight_bit_strings_follow_the_encoding():
    for data in (b"U\x02\xc3\xa9.", b"T\x02\0\0\0\xc3\xa9.", b"S'\\xc3\\xa9'\n."):
        assert load(data).value == "é"
        assert load(data, encoding="latin1").value == "Ã©"
        assert load(data, encoding="bytes").value == b"\xc3\xa9"
        with pytest.raises(Damaged):
            load(data, encoding="ascii")


def test_unicode():
    assert value(rb"V\u00e9\ud800\U0001F600 \n" + b"\n.") == "é\ud800\U0001f600 \\n"
    for bad in (rb"V\u12", rb"V\U00110000"):
        with pytest.raises(Damaged):
            load(bad + b"\n.")


@pytest.mark.parametrize("index", [b"0", b"00", b" 0", b"0 ", b"0_0", b"0\0x", b"+0", b"-0"])
def test_memo_indexes_in_decimal(index):
    data = b"Np" + index + b"\n0g" + index + b"\n."
    assert value(data) is None
    assert pickle.loads(data) is None


@pytest.mark.parametrize("index", [b"", b"-1", b"0x0", b"1L", b"x", b"9223372036854775808"])
def test_memo_indexes_refused(index):
    for data in (b"Np" + index + b"\n.", b"Np0\ng" + index + b"\n."):
        with pytest.raises(Damaged):
            load(data)
        with pytest.raises((ValueError, OverflowError, pickle.UnpicklingError)):
            pickle.loads(data)
