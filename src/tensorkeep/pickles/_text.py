"""The text arguments of the old opcodes, parsed as CPython 3.11's `_pickle.c` parses them.

It hands them to C functions that stop at a NUL byte (`strtol`, `PyLong_FromString`,
`PyOS_string_to_double`), and so do these.
"""

from __future__ import annotations

import math
import re

from tensorkeep.pickles._state import Fault

MAX_DIGITS = 4300  # sys.int_info.default_max_str_digits: converting more takes quadratic time
_LONG = 1 << 63
_STRTOL = re.compile(rb"[ \t\n\v\f\r]*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_FLOAT = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_SPECIAL = re.compile(rb"[+-]?(inf(inity)?|nan)", re.IGNORECASE)
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[0-7]{1,3}|.?)", re.DOTALL)
_SIMPLE = {
    b"\\": b"\\", b"'": b"'", b'"': b'"', b"a": b"\a", b"b": b"\b", b"f": b"\f",
    b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v", b"\n": b"",
}  # fmt: skip


def shorten(text: bytes) -> str:
    """`text` for a message."""
    return repr(text if len(text) <= 40 else text[:40] + b"...")


def integer(line: bytes, base: int = 0) -> int:
    """`PyLong_FromString`: `int(text, base)`, refusing what takes quadratic time."""
    text = line.partition(b"\0")[0]
    if len(text) > MAX_DIGITS and _decimal_digits(text) > MAX_DIGITS:
        raise Fault(f"at most {MAX_DIGITS} digits", f"{len(text)} characters")
    try:
        return int(text, base)
    except ValueError:
        raise Fault("an integer", shorten(line)) from None


def _decimal_digits(text: bytes) -> int:
    start = text.lstrip()[:3].lstrip(b"+-")[:2].lower()
    return 0 if start in {b"0x", b"0o", b"0b"} else sum(map(text.count, b"0123456789"))


def int_argument(line: bytes) -> int:
    """INT's argument: C's `strtol` with base 0 ("010" is 8), else Python's rules.

    "00" and "01", or anything else two characters long that means 0 or 1, are booleans.
    """
    value = _strtol(line.partition(b"\0")[0])
    if value is None:
        return integer(line)
    return bool(value) if len(line) == 2 and value in (0, 1) else value


def _strtol(text: bytes) -> int | None:
    if not text:  # no digits, and the NUL that ends the text counts as its proper end
        return 0
    match = _STRTOL.fullmatch(text)
    if match is None:
        return None
    digits = match[2].lower()
    if digits.startswith(b"0"):
        value = int(digits, 16 if digits.startswith(b"0x") else 8)
    elif len(digits) < 20:
        value = int(digits)
    else:
        return None
    value = -value if match[1] == b"-" else value
    return value if -_LONG <= value < _LONG else None


def float_argument(line: bytes) -> float:
    """FLOAT's argument: no spaces, no underscores, and no number too large for a double."""
    text = line.partition(b"\0")[0]
    if _SPECIAL.fullmatch(text):
        return float(text)
    if _FLOAT.fullmatch(text) is None:
        raise Fault("a floating point number", shorten(line))
    value = float(text)
    if math.isinf(value):
        raise Fault("a number that a double can hold", shorten(line))
    return value


def quoted(line: bytes) -> bytes:
    """STRING's argument: quoted, with the escapes of a bytes literal.

    Python's own decoder would warn about unknown escapes, and where warnings are errors a file
    could then raise one of its own.
    """
    if len(line) < 2 or line[:1] not in {b"'", b'"'} or line[-1:] != line[:1]:
        raise Fault("a quoted string", shorten(line))
    body = line[1:-1]
    return _ESCAPE.sub(_unescape, body) if b"\\" in body else body


def _unescape(match: re.Match[bytes]) -> bytes:
    escape = match[1]
    if escape in {b"", b"x"}:
        raise Fault("a whole escape sequence", shorten(match[0]))
    if escape[0] == 0x78:  # x
        return bytes.fromhex(escape[1:].decode("ascii"))
    if escape[:1] in b"01234567":
        return bytes([int(escape, 8) & 0xFF])
    return _SIMPLE.get(escape, match[0])
