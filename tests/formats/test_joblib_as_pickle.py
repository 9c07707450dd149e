"""A file of joblib's as pickle.load reads it: the bytes of its arrays are opcodes then."""

from __future__ import annotations

import struct

import tensorkeep as tk

STATE = b"K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"  # (3, "|", None, ...)


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def array(data, code="u1"):
    """An array of joblib's without padding, and the bytes that lie behind it."""
    state = STATE if code == "u1" else STATE.replace(b"K\x00t", b"K?t")
    dtype = b"cnumpy\ndtype\n" + text(code) + b"\x89\x88\x87R(" + state + b"b"
    made = b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}(" + text("subclass")
    made += b"cnumpy\nndarray\n" + text("shape") + b"K" + bytes([len(data)]) + b"\x85"
    made += text("order") + text("C") + text("dtype") + dtype + text("allow_mmap") + b"\x88ub"
    return made + data


def verdict(*parts):
    return tk.scan(b"\x80\x02}" + b"".join(parts) + b".").verdict


def test_numbers_are_numbers():
    for data in (b"\x00" * 8, bytes(range(1, 90)), b"0" * 20, b"a" * 9, b"\xff" * 9):
        assert verdict(text("a"), array(data), b"s", text("b"), array(data), b"s") == "safe"


def test_opcodes_in_an_array_are_judged():
    run = b"0cos\nsystem\n" + text("echo tensorkeep") + b"\x85R"
    assert verdict(text("a"), array(run), b"s") == "dangerous"
    assert verdict(text("b"), array(b"0N"), b"s", text("a"), array(run), b"s") == "dangerous"
