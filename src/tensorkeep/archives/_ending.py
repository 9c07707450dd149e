"""Finding the central directory from the end of the file, as torch's reader finds it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tensorkeep.archives._notes import Notes
from tensorkeep.archives._records import (
    CENTRAL,
    CENTRAL_MARK,
    END,
    END64,
    END64_MARK,
    END_MARK,
    FULL16,
    FULL32,
    LOCATOR,
    LOCATOR_MARK,
    TAIL,
)
from tensorkeep.errors import Damaged, LimitExceeded, Unsupported
from tensorkeep.facts import Limits
from tensorkeep.stores import Blob

# A comment is text. Control characters are not, and neither is what imports a name in protocol 0.
_NO_TEXT = re.compile(rb"[\0-\x08\x0b\x0c\x0e-\x1f]|[ci][\w.]+\n[\w.]+\n", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the directory lies: bytes `offset` to `offset + size`, `entries` of them on `disk`."""

    offset: int
    size: int
    entries: int
    entries_here: int
    disk: int
    directory_disk: int


class Ending:
    """The last bytes of a blob, read once; what lies before them is read when asked for."""

    def __init__(self, blob: Blob, notes: Notes) -> None:
        self._blob = blob
        self._notes = notes
        self._start = max(blob.size - TAIL, 0)
        self._tail = blob.read(self._start, blob.size - self._start)

    def slice(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` of the file, from the tail if they lie in it."""
        if offset >= self._start:
            at = offset - self._start
            return self._tail[at : at + length]
        return self._blob.read(offset, length)

    def place(self, limits: Limits) -> Place:
        """The directory's place, checked against the file. Damaged, Unsupported, LimitExceeded."""
        end = self._find()
        place32 = self._read_end(end)
        place64 = self._read_zip64(end, place32)
        place = place64 or place32
        self._check(place, limits)
        # The arithmetic of Python's zipfile: whatever lies between the directory's end and
        # its end records is taken for bytes that were put before the archive.
        shift = end - (END64.size + LOCATOR.size if place64 else 0) - place.offset - place.size
        if shift:
            self._note_shift(place, shift)
        return place

    def _find(self) -> int:
        """Offset of the rightmost end record that fits into the file."""
        tail = self._tail
        at = tail.rfind(END_MARK, 0, max(len(tail) - END.size + len(END_MARK), 0))
        if at < 0:
            raise Damaged(
                self._blob.name,
                expected="the end record of a zip directory in the last bytes of the file",
                got=f"none in the last {len(tail)} of {self._blob.size} bytes",
                where=f"offset {self._start}",
            )
        self._note_rivals(at)
        return self._start + at

    def _note_rivals(self, chosen: int) -> None:
        tail, notes = self._tail, self._notes
        rest = len(tail) - chosen - END.size
        comment = END.unpack_from(tail, chosen)[-1]
        if comment < rest:
            offset = self._start + chosen + END.size + comment
            notes.add("trailing-bytes", f"{rest - comment} bytes follow the archive", "", offset)
        elif comment > rest:
            what = f"the archive comment should be {comment} bytes long and {rest} are left"
            notes.add("comment-length", what, "", self._start + chosen)
        begins = chosen + END.size
        if _NO_TEXT.search(tail, begins, begins + comment):
            what = f"an archive comment of {comment} bytes that is no text"
            notes.add("comment-bytes", what, "", self._start + begins)
        at = tail.find(END_MARK)
        while 0 <= at < chosen:
            if END.unpack_from(tail, at)[-1] == len(tail) - at - END.size:
                what = "a second end record reaches to the end of the file; readers may choose it"
                notes.add("several-directories", what, "", self._start + at)
            at = tail.find(END_MARK, at + 1)

    def _read_end(self, end: int) -> Place:
        fields = END.unpack(self.slice(end, END.size))
        _, disk, directory_disk, here, entries, size, offset, _ = fields
        return Place(offset, size, entries, here, disk, directory_disk)

    def _read_zip64(self, end: int, place: Place) -> Place | None:
        """The 64-bit end record if its locator stands right before the 32-bit one."""
        if end < LOCATOR.size + END64.size:
            return None
        mark, _, offset, disks = LOCATOR.unpack(self.slice(end - LOCATOR.size, LOCATOR.size))
        if mark != LOCATOR_MARK:
            return None
        if offset > self._blob.size - END64.size:
            raise self._bad("the 64-bit end record inside the file", f"offset {offset}", end)
        record = END64.unpack(self.slice(offset, END64.size))
        if record[0] != END64_MARK:
            what = "a locator names a 64-bit end record where there is none"
            self._notes.add("zip64-contradiction", what, "", offset)
            return None
        if record[1] < END64.size - 12:
            raise self._bad("a 64-bit end record of 44 bytes or more", record[1], offset)
        if disks != 1:
            raise self._spanned(offset)
        _, _, disk, directory_disk, here, entries, size, start = record
        wide = Place(start, size, entries, here, disk, directory_disk)
        self._note_contradictions(end, offset, place, wide)
        return wide

    def _note_contradictions(self, end: int, offset: int, narrow: Place, wide: Place) -> None:
        if offset != end - LOCATOR.size - END64.size:
            what = "the 64-bit end record is not right before its locator, where zipfile looks"
            self._notes.add("zip64-contradiction", what, "", offset)
        for field, full in (
            ("entries", FULL16),
            ("entries_here", FULL16),
            ("size", FULL32),
            ("offset", FULL32),
        ):
            short, long = getattr(narrow, field), getattr(wide, field)
            if short not in (long, full):
                what = f"directory {field}: {short} in the end record, {long} in the 64-bit one"
                self._notes.add("zip64-contradiction", what, "", end)

    def _check(self, place: Place, limits: Limits) -> None:
        if place.entries != place.entries_here:
            raise self._bad(f"{place.entries} entries on this disk", place.entries_here)
        if (place.disk, place.directory_disk) not in ((0, 0), (1, 1)):
            raise self._spanned(None)
        if place.entries > limits.max_entries:
            raise self._too_much(f"at most {limits.max_entries} members", place.entries)
        if place.size < place.entries * CENTRAL.size:
            expected = f"{place.entries} entries of at least {CENTRAL.size} bytes"
            raise self._bad(expected, f"a directory of {place.size} bytes")
        if place.offset + place.size > self._blob.size:
            got = f"bytes {place.offset} to {place.offset + place.size} of {self._blob.size}"
            raise self._bad("a directory inside the file", got)
        # Names and extra fields can make an entry 196 KB long; an honest one has under 256.
        if place.size > 256 * limits.max_entries:
            raise self._too_much(f"at most {256 * limits.max_entries} bytes", place.size)

    def _note_shift(self, place: Place, shift: int) -> None:
        if shift > 0 and place.entries and self._starts_at(place.offset + shift, place):
            raise Damaged(
                self._blob.name,
                expected=f"the zip directory at offset {place.offset}",
                got=f"it {shift} bytes later: something was put before the archive",
                where=f"offset {place.offset}",
                remedy=f"Cut the first {shift} bytes off, or get the file again.",
            )
        what = (
            f"the directory should end {abs(shift)} bytes {'later' if shift > 0 else 'earlier'}; "
            "Python's zipfile would move every offset by as much, torch's reader moves none"
        )
        self._notes.add("directory-shift", what, "", place.offset)

    def _starts_at(self, offset: int, place: Place) -> bool:
        """Whether the directory begins here and not where the end record says."""
        here = self.slice(offset, len(CENTRAL_MARK)) == CENTRAL_MARK
        return here and self.slice(place.offset, len(CENTRAL_MARK)) != CENTRAL_MARK

    def _bad(self, expected: str, got: object, offset: int | None = None) -> Damaged:
        where = "" if offset is None else f"offset {offset}"
        return Damaged(f"{self._blob.name}, zip directory", expected=expected, got=got, where=where)

    def _too_much(self, expected: str, got: int) -> LimitExceeded:
        return LimitExceeded(f"{self._blob.name}, zip directory", expected=expected, got=got)

    def _spanned(self, offset: int | None) -> Unsupported:
        where = "" if offset is None else f"offset {offset}"
        return Unsupported(
            f"{self._blob.name}, zip directory",
            expected="one file",
            got="one part of an archive that spans several",
            where=where,
            remedy="Join the parts into one archive first (zip -s 0).",
        )
