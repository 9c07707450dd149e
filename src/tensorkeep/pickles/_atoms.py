"""Opcodes that push an atom: numbers, text, bytes, constants."""

from __future__ import annotations

from struct import Struct

from tensorkeep.pickles._state import Fault, Handler, Machine, truncated
from tensorkeep.pickles._text import float_argument, int_argument, integer, quoted

_UINT16 = Struct("<H").unpack_from
_INT32 = Struct("<i").unpack_from
_UINT32 = Struct("<I").unpack_from
_UINT64 = Struct("<Q").unpack_from
_DOUBLE = Struct(">d").unpack_from


_LEAST = 12  # bytes that a pickle needs to call anything
_LEAST_TEXT = 16  # the same in base 64
# How base 64 begins that encodes a pickle of protocol 2 on, or one that begins with c or a mark,
# and how hexadecimal begins that does.
_ENCODED = ("gA", "Y", "K", "8002", "8003", "8004", "8005", "63", "28")


def none(m: Machine, pos: int) -> int:
    m.stack.append(None)
    return pos


def true(m: Machine, pos: int) -> int:
    m.stack.append(True)
    return pos


def false(m: Machine, pos: int) -> int:
    m.stack.append(False)
    return pos


def binint1(m: Machine, pos: int) -> int:
    m.stack.append(m.data[pos])
    return pos + 1


def binint2(m: Machine, pos: int) -> int:
    m.stack.append(_UINT16(m.data, pos)[0])
    return pos + 2


def binint(m: Machine, pos: int) -> int:
    m.stack.append(_INT32(m.data, pos)[0])
    return pos + 4


def binfloat(m: Machine, pos: int) -> int:
    m.stack.append(_DOUBLE(m.data, pos)[0])
    return pos + 8


def long1(m: Machine, pos: int) -> int:
    return _long(m, pos + 1, m.data[pos])


def long4(m: Machine, pos: int) -> int:
    return _long(m, pos + 4, _INT32(m.data, pos)[0])


def _long(m: Machine, pos: int, length: int) -> int:
    if length < 0:
        raise Fault("a length of at least 0", str(length))
    end = _end(m, pos, length)
    m.stack.append(int.from_bytes(m.data[pos:end], "little", signed=True))
    return end


def _end(m: Machine, pos: int, length: int) -> int:
    """Where `length` bytes from `pos` end; `Fault` before anything of that size is allocated."""
    end = pos + length
    if end > m.size:
        raise truncated(f"{length:,} bytes more")
    return end


def _line(m: Machine, pos: int) -> tuple[bytes, int]:
    """The line at `pos`, which may not be empty, and where the next begins."""
    end = m.line(pos)
    if end == pos:
        raise Fault("text", "an empty line")
    return m.data[pos:end], end + 1


def int_(m: Machine, pos: int) -> int:
    line, end = _line(m, pos)
    m.stack.append(int_argument(line))
    return end


def long(m: Machine, pos: int) -> int:
    line, end = _line(m, pos)
    m.stack.append(integer(line.removesuffix(b"L")))
    return end


def float_(m: Machine, pos: int) -> int:
    line, end = _line(m, pos)
    m.stack.append(float_argument(line))
    return end


def string(m: Machine, pos: int) -> int:
    end = m.line(pos)
    _push_string(m, quoted(m.data[pos:end]))
    return end + 1


def short_binstring(m: Machine, pos: int) -> int:
    end = _end(m, pos + 1, m.data[pos])
    _push_string(m, m.data[pos + 1 : end])
    return end


def binstring(m: Machine, pos: int) -> int:
    end = _end(m, pos + 4, _UINT32(m.data, pos)[0])
    _push_string(m, m.data[pos + 4 : end])
    return end


def _push_string(m: Machine, raw: bytes) -> None:
    if m.encoding == "bytes":
        m.stack.append(raw)
        return
    try:
        m.stack.append(raw.decode(m.encoding))
    except UnicodeError as error:
        raise Fault(f"text in {m.encoding}", str(error)) from None


def unicode(m: Machine, pos: int) -> int:
    end = m.line(pos)
    try:
        text = m.data[pos:end].decode("raw-unicode-escape")
    except UnicodeDecodeError as error:
        raise Fault("text with whole escapes", error.reason) from None
    m.stack.append(text)
    if text.startswith(_ENCODED) and len(text) >= _LEAST_TEXT:
        m.constants.append((pos, text))
    return end + 1


def short_binunicode(m: Machine, pos: int) -> int:
    end = _end(m, pos + 1, m.data[pos])
    return _push_text(m, pos + 1, end)


def binunicode(m: Machine, pos: int) -> int:
    start = pos + 4
    end: int = start + _UINT32(m.data, pos)[0]
    if end > m.size:
        raise truncated(f"{end - start:,} bytes more")
    try:
        text = str(m.data[start:end], "utf-8")
    except UnicodeDecodeError:
        return _push_text(m, start, end)
    m.stack.append(text)
    if text.startswith(_ENCODED) and len(text) >= _LEAST_TEXT:
        m.constants.append((start, text))
    return end


def binunicode8(m: Machine, pos: int) -> int:
    end = _end(m, pos + 8, _UINT64(m.data, pos)[0])
    return _push_text(m, pos + 8, end)


def _push_text(m: Machine, pos: int, end: int) -> int:
    try:
        text = m.data[pos:end].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise Fault("text in UTF-8", error.reason) from None
    m.stack.append(text)
    if text.startswith(_ENCODED) and len(text) >= _LEAST_TEXT:
        m.constants.append((pos, text))
    return end


def short_binbytes(m: Machine, pos: int) -> int:
    end = _end(m, pos + 1, m.data[pos])
    return _push_bytes(m, m.data[pos + 1 : end], end)


def binbytes(m: Machine, pos: int) -> int:
    end = _end(m, pos + 4, _UINT32(m.data, pos)[0])
    return _push_bytes(m, m.data[pos + 4 : end], end)


def binbytes8(m: Machine, pos: int) -> int:
    end = _end(m, pos + 8, _UINT64(m.data, pos)[0])
    return _push_bytes(m, m.data[pos + 8 : end], end)


def _push_bytes(m: Machine, raw: bytes, end: int) -> int:
    m.stack.append(raw)
    if len(raw) >= _LEAST:
        m.constants.append((end - len(raw), raw))
    return end


def bytearray8(m: Machine, pos: int) -> int:
    end = _end(m, pos + 8, _UINT64(m.data, pos)[0])
    raw = m.data[pos + 8 : end]
    m.stack.append(bytearray(raw))
    if len(raw) >= _LEAST:
        m.constants.append((pos + 8, raw))
    return end


ATOMS: dict[bytes, tuple[str, Handler]] = {
    b"N": ("NONE", none),
    b"\x88": ("NEWTRUE", true),
    b"\x89": ("NEWFALSE", false),
    b"K": ("BININT1", binint1),
    b"M": ("BININT2", binint2),
    b"J": ("BININT", binint),
    b"G": ("BINFLOAT", binfloat),
    b"\x8a": ("LONG1", long1),
    b"\x8b": ("LONG4", long4),
    b"I": ("INT", int_),
    b"L": ("LONG", long),
    b"F": ("FLOAT", float_),
    b"S": ("STRING", string),
    b"U": ("SHORT_BINSTRING", short_binstring),
    b"T": ("BINSTRING", binstring),
    b"V": ("UNICODE", unicode),
    b"\x8c": ("SHORT_BINUNICODE", short_binunicode),
    b"X": ("BINUNICODE", binunicode),
    b"\x8d": ("BINUNICODE8", binunicode8),
    b"C": ("SHORT_BINBYTES", short_binbytes),
    b"B": ("BINBYTES", binbytes),
    b"\x8e": ("BINBYTES8", binbytes8),
    b"\x96": ("BYTEARRAY8", bytearray8),
}
