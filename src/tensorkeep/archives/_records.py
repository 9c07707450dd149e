"""The fixed parts of a zip file (APPNOTE 6.3.10, sections 4.3.7 to 4.3.16), and extra fields."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

# signature, flags, method, crc, compressed, size, lengths of name and extra
LOCAL = Struct("<4s2xHH4xLLLHH")
# signature, flags, method, crc, compressed, size, lengths of name, extra and comment, disk,
# external attributes, offset of the local header
CENTRAL = Struct("<4s4xHH4xLLLHHHH2xLL")
# signature, disk, disk of the directory, entries here, entries, size, offset, comment length
END = Struct("<4sHHHHLLH")
# signature, size of this record, disk, disk of the directory, entries here, entries, size, offset
END64 = Struct("<4sQ4xLLQQQQ")
# signature, disk of END64, offset of END64, number of disks
LOCATOR = Struct("<4sLQL")

LOCAL_MARK = b"PK\x03\x04"
CENTRAL_MARK = b"PK\x01\x02"
END_MARK = b"PK\x05\x06"
END64_MARK = b"PK\x06\x06"
LOCATOR_MARK = b"PK\x06\x07"
DESCRIPTOR_MARK = b"PK\x07\x08"

FULL16 = 0xFFFF
FULL32 = 0xFFFFFFFF

ENCRYPTED = 0x1
DESCRIPTOR = 0x8
PATCHED = 0x20
STRONG = 0x40
MASKED = 0x2000
UNREADABLE = ENCRYPTED | PATCHED | STRONG

STORED = 0
DEFLATED = 8

ZIP64_FIELD = 0x0001
UNICODE_PATH_FIELD = 0x7075

# How far back torch's reader looks for the end record: a block of 4,096 bytes, then blocks that
# overlap by 3 until 65,557 bytes are behind it. It looks at whole blocks, hence a bit further.
# In files shorter than this it gives up up to 4,092 bytes before the beginning (an unsigned
# difference runs over); zipfile does not, and neither does this reader.
TAIL = 4096 + 16 * 4093

# A local extra field of 65,535 bytes and a data descriptor of 24: no honest gap is longer.
LONGEST_GAP = 65_535 + 24


def fields(extra: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """(identifier, content, whole) of each extra field; `whole` is False if it is cut short.

    A rest of under four bytes is padding (zipalign writes it) and is left out.
    """
    at = 0
    while at + 4 <= len(extra):
        length = int.from_bytes(extra[at + 2 : at + 4], "little")
        content = extra[at + 4 : at + 4 + length]
        yield int.from_bytes(extra[at : at + 2], "little"), content, len(content) == length
        at += 4 + length


def words(content: bytes) -> list[int]:
    """The whole 64-bit numbers in a zip64 field."""
    end = len(content) - len(content) % 8
    return [int.from_bytes(content[at : at + 8], "little") for at in range(0, end, 8)]
