"""One 512-byte header of a tar archive, and the records of a pax header.

Sources: POSIX.1-2017 `pax`, "ustar Interchange Format" and "pax Interchange Format"; the GNU tar
manual, "Basic Tar Format"; and where they leave a choice, what Python's `tarfile` (3.11 to 3.13)
does, because torch reads its oldest files with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tensorkeep.errors import Damaged

BLOCK = 512
LONG_NAME, LONG_LINK, PAX, PAX_SOLARIS, PAX_GLOBAL = b"L", b"K", b"x", b"X", b"g"
EXTENDED = (LONG_NAME, LONG_LINK, PAX, PAX_SOLARIS, PAX_GLOBAL)
SPARSE = b"S"
# Only these are followed by bytes of their own; so is every type that is not in KINDS.
REGULAR = (b"0", b"\0", b"7", SPARSE)
KINDS = {
    b"0": "file", b"\0": "file", b"7": "file", b"1": "hardlink", b"2": "symlink", b"3": "device",
    b"4": "device", b"5": "directory", b"6": "fifo", SPARSE: "sparse",
}  # fmt: skip
# mode, user, group, date, device numbers
_OTHER_NUMBERS = ((100, 108), (108, 116), (116, 124), (136, 148), (329, 337), (337, 345))
_OCTAL = re.compile(rb" *[0-7]*[ \0]*\Z")
_RECORD = re.compile(rb"(\d{1,20}) ([^=]+)=")


@dataclass(slots=True)
class Header:
    """The fields of a header that say where bytes lie and what they are called.

    `plain` is False if the size is written in a way that only some readers take as a number.
    """

    name: str
    size: int
    type: bytes
    link: str
    plain: bool

    @property
    def stored(self) -> int:
        """How many bytes of data follow the header, up to the next one."""
        regular = self.type in REGULAR or self.type not in KINDS
        return -(-self.size // BLOCK) * BLOCK if regular or self.type in EXTENDED else 0


def checksum_holds(block: bytes) -> bool:
    """Whether a block is a header by its checksum, of signed or unsigned bytes."""
    if len(block) < BLOCK:
        return False
    try:
        said, _ = number(block[148:156])
    except ValueError:
        return False
    unsigned = sum(block[:148]) + sum(block[156:BLOCK]) + 8 * 32
    high = sum(byte > 127 for byte in (*block[:148], *block[156:BLOCK]))
    return said in (unsigned, unsigned - 256 * high)


def number(field: bytes) -> tuple[int, bool]:
    """The number in a field, as tarfile reads it, and whether every reader would.

    Octal digits, or base 256 behind a byte 0x80 or 0xff. Raises `ValueError`.
    """
    if field[0] in (0x80, 0xFF):
        value = int.from_bytes(field[1:], "big")
        return (value, True) if field[0] == 0x80 else (value - (1 << 8 * (len(field) - 1)), False)
    text = field.partition(b"\0")[0]
    return int(text.decode("ascii").strip() or "0", 8), _OCTAL.match(field) is not None


def parse(block: bytes, name: str, offset: int) -> Header:
    """The header in `block`, whose checksum holds. Raises `Damaged` for numbers that are none."""
    size, plain = _number_at(block, 124, 136, name, offset)
    if size < 0:
        got = f"a size of {size}"
        raise Damaged(name, expected="a size of at least 0", got=got, where=f"byte {offset}")
    for start, end in _OTHER_NUMBERS:
        _number_at(block, start, end, name, offset)
    kind, path = block[156:157], text(block[:100])
    if kind == b"\0" and path.endswith("/"):
        kind = b"5"
    prefix = text(block[345:500])
    if prefix and kind not in (LONG_NAME, LONG_LINK, SPARSE):
        path = f"{prefix}/{path}"
    return Header(path, size, kind, text(block[157:257]), plain)


def _number_at(block: bytes, start: int, end: int, name: str, offset: int) -> tuple[int, bool]:
    """The number in a field. tarfile refuses a header for any of its numbers, others for few."""
    try:
        return number(block[start:end])
    except ValueError:
        raise Damaged(
            name,
            expected="sizes, dates and owners in octal or base 256",
            got=block[start:end],
            where=f"byte {offset + start}",
        ) from None


def text(field: bytes) -> str:
    """A name up to its first NUL; bytes that are no UTF-8 are kept as surrogates."""
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def records(data: bytes, name: str, offset: int) -> dict[str, str]:
    """The keywords of a pax header; of two alike the last one holds.

    Raises `Damaged` for a record whose length is not that of its text: readers part ways there.
    """
    found: dict[str, str] = {}
    at = 0
    while at < len(data) and data[at]:
        match = _RECORD.match(data, at)
        end = at + int(match[1]) if match else 0
        if match is None or end <= match.end() or data[end - 1 : end] != b"\n":
            raise Damaged(
                name,
                expected="pax records: length, keyword=value, newline",
                got=data[at : at + 40],
                where=f"byte {offset + at}",
            )
        keyword = match[2].decode("utf-8", "surrogateescape")
        found[keyword] = data[match.end() : end - 1].decode("utf-8", "surrogateescape")
        at = end
    return found
