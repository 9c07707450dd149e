"""Numbers, text and bytes with counted lengths."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from tensorkeep.errors import Damaged
from tensorkeep.pickles import load


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"N", None),
        (b"\x88", True),
        (b"\x89", False),
        (b"K\xff", 255),
        (b"M\xff\xff", 65535),
        (b"J\xff\xff\xff\xff", -1),
        (b"G\x40\x09\x21\xfb\x54\x44\x2d\x18", 3.141592653589793),
        (b"\x8a\x00", 0),
        (b"\x8a\x02\x00\x80", -32768),
        (b"\x8b\x01\0\0\0\xff", -1),
        (b"\x8b\x00\0\0\0", 0),
        (b"C\x01a", b"a"),
        (b"B\x01\0\0\0a", b"a"),
        (b"\x8e\x01" + bytes(7) + b"a", b"a"),
        (b"\x96\x01" + bytes(7) + b"a", bytearray(b"a")),
        (b"\x8c\x02\xc3\xa9", "é"),
        (b"X\x02\0\0\0\xc3\xa9", "é"),
        (b"X\x03\0\0\0\xed\xa0\x80", "\ud800"),
        (b"\x8d\x02" + bytes(7) + b"\xc3\xa9", "é"),
    ],
)
def test_atom(data, expected):
    value = load(data + b".").value
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize("code", list(b"KMJGCBXUThj\x80\x82\x83\x84\x8a\x8b\x8c\x8d\x8e\x95\x96"))
def test_a_missing_argument_is_the_end_of_the_data(code):
    for data in (bytes([code]), bytes([0x4E, code])):
        with pytest.raises(Damaged, match="end of the data"):
            load(data)


@pytest.mark.parametrize("code", [b"\x8d", b"\x8e", b"\x96"])
@pytest.mark.parametrize("length", [1 << 34, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_length_beyond_the_data_allocates_nothing(code, length):
    tracemalloc.start()
    with pytest.raises(Damaged, match="end of the data"):
        load(code + struct.pack("<Q", length) + b"abc.")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_a_negative_length_of_long4():
    with pytest.raises(Damaged, match="at least 0"):
        load(b"\x8b\xff\xff\xff\xff" + bytes(100) + b".")


def test_text_that_is_not_utf8():
    for data in (b"\x8c\x01\xff", b"X\x01\0\0\0\xff", b"\x8d\x01" + bytes(7) + b"\xff"):
        with pytest.raises(Damaged, match="UTF-8"):
            load(data + b".")
