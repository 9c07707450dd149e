"""A zip file planned before a byte of it is written, so that members can be written in any order.

Members are stored, never compressed, and aligned as torch aligns them: by an "FB" extra field in
the local header. Sizes and checksums stand in the local header, so a header is written after its
data. No data descriptor follows. torch computes where storages lie, instead of looking, only if
the archive has a `.format_version` record and the user asks for it; its computation assumes
descriptors, so whoever plans a torch archive here leaves that record out.

Layout: PKWARE's APPNOTE 6.3.10; padding and version fields as torch 2.13 writes and reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import pack

from tensorkeep.archives._records import (
    CENTRAL_MARK,
    END,
    END64,
    END64_MARK,
    END_MARK,
    FULL16,
    FULL32,
    LOCAL,
    LOCAL_MARK,
    LOCATOR,
    LOCATOR_MARK,
    ZIP64_FIELD,
)
from tensorkeep.errors import BadArgument

_UTF8 = 0x800
# 1 January 1980, the first day that zip knows: the same input gives the same bytes.
_DATE = 0x21
_VERSION, _VERSION_ZIP64 = 20, 45
_MOST_PADDED = 1 << 15
_PADDING = b"FB"


@dataclass(frozen=True, slots=True)
class ZipSlot:
    """Room for one member: its header at `header_offset`, `size` bytes at `data_offset`."""

    name: str
    header_offset: int
    data_offset: int
    size: int

    def header(self, crc: int) -> bytes:
        """The local header, padding included: it ends where the data begins."""
        raw = self.name.encode("utf-8")
        wide = _wide(self.size, self.size) if self.size >= FULL32 else b""
        fixed = self.header_offset + LOCAL.size + len(raw) + len(wide) + 4
        padding = self.data_offset - fixed
        extra = wide + _PADDING + pack("<H", padding) + bytes(padding)
        short = min(self.size, FULL32)
        version = _VERSION_ZIP64 if wide else _VERSION
        return (
            LOCAL_MARK
            + pack("<HHHHH", version, _UTF8, 0, 0, _DATE)
            + pack("<LLLHH", crc, short, short, len(raw), len(extra))
            + raw
            + extra
        )

    def entry(self, crc: int) -> bytes:
        """The member's entry in the directory."""
        raw = self.name.encode("utf-8")
        numbers = [self.size, self.size] if self.size >= FULL32 else []
        if self.header_offset >= FULL32:
            numbers.append(self.header_offset)
        extra = _wide(*numbers) if numbers else b""
        short = min(self.size, FULL32)
        needed = _VERSION_ZIP64 if extra else _VERSION
        return (
            CENTRAL_MARK
            + pack("<HHHHHH", _VERSION_ZIP64, needed, _UTF8, 0, 0, _DATE)
            + pack("<LLLHHH", crc, short, short, len(raw), len(extra), 0)
            + pack("<HHLL", 0, 0, 0, min(self.header_offset, FULL32))
            + raw
            + extra
        )


class ZipPlan:
    """Where everything in a zip file will lie. All members go under the folder `root`.

    `directory_offset` and `total` (the length of the file) are in bytes and hold for the members
    added so far. Raises BadArgument for names that a zip file cannot hold or holds already.
    """

    def __init__(self, root: str) -> None:
        if not root or "/" in root or "\\" in root or root in (".", ".."):
            raise BadArgument("zip root", expected="the name of one folder", got=repr(root))
        self.root = root
        self.slots: list[ZipSlot] = []
        self.directory_offset = 0
        self._directory_size = 0
        self._keys: set[bytes] = set()

    def add(self, name: str, size: int, align: int = 64) -> ZipSlot:
        """Room for `size` bytes under `root`/`name`, beginning at a multiple of `align`."""
        if not 1 <= align <= _MOST_PADDED or size < 0:
            expected = f"a size of 0 or more and an alignment from 1 to {_MOST_PADDED}"
            raise BadArgument(f"zip member {name}", expected=expected, got=f"{size} and {align}")
        full = f"{self.root}/{name}"
        raw = self._claim(full)
        start = self.directory_offset
        fixed = start + LOCAL.size + len(raw) + (20 if size >= FULL32 else 0) + 4
        slot = ZipSlot(full, start, fixed + -fixed % align, size)
        self.slots.append(slot)
        self.directory_offset = slot.data_offset + size
        self._directory_size += len(slot.entry(0))
        return slot

    def _claim(self, full: str) -> bytes:
        try:
            raw = full.encode("utf-8")
        except UnicodeEncodeError:
            raise BadArgument("zip member", expected="a name in Unicode", got=full) from None
        if len(raw) > FULL16 or b"\0" in raw or b"\\" in raw:
            expected = f"a name of at most {FULL16} bytes without NUL and backslash"
            raise BadArgument("zip member", expected=expected, got=full[:200])
        # torch's lookup ignores case: of two such names it would find one.
        key = raw.lower()
        if key in self._keys:
            raise BadArgument(f"zip member {full}", got="a name that is in the archive already")
        self._keys.add(key)
        return raw

    @property
    def total(self) -> int:
        """Length of the whole file."""
        wide = END64.size + LOCATOR.size if self._is_wide() else 0
        return self.directory_offset + self._directory_size + wide + END.size

    def _is_wide(self) -> bool:
        longest = max(self.directory_offset, self._directory_size)
        return len(self.slots) >= FULL16 or longest >= FULL32

    def directory(self, crcs: Sequence[int]) -> bytes:
        """The directory and its end records; `crcs` in the order in which members were added."""
        if len(crcs) != len(self.slots):
            expected = f"{len(self.slots)} checksums"
            raise BadArgument("zip directory", expected=expected, got=len(crcs))
        entries = [slot.entry(crc) for slot, crc in zip(self.slots, crcs, strict=True)]
        return b"".join([*entries, *self._end()])

    def _end(self) -> list[bytes]:
        count, size, offset = len(self.slots), self._directory_size, self.directory_offset
        short = min(count, FULL16)
        end = END.pack(END_MARK, 0, 0, short, short, min(size, FULL32), min(offset, FULL32), 0)
        if not self._is_wide():
            return [end]
        head = END64_MARK + pack("<QHH", END64.size - 12, _VERSION_ZIP64, _VERSION_ZIP64)
        record = head + pack("<LLQQQQ", 0, 0, count, count, size, offset)
        return [record, LOCATOR.pack(LOCATOR_MARK, 0, offset + size, 1), end]


def _wide(*numbers: int) -> bytes:
    """A zip64 extra field."""
    return pack(f"<HH{len(numbers)}Q", ZIP64_FIELD, 8 * len(numbers), *numbers)
