"""The central directory's bytes into members, checked one by one as torch's reader checks them."""

from __future__ import annotations

from dataclasses import dataclass

from tensorkeep.archives._notes import Notes
from tensorkeep.archives._records import (
    CENTRAL,
    CENTRAL_MARK,
    DEFLATED,
    ENCRYPTED,
    FULL16,
    FULL32,
    LOCAL,
    LONGEST_GAP,
    MASKED,
    PATCHED,
    STORED,
    STRONG,
    UNICODE_PATH_FIELD,
    UNREADABLE,
    ZIP64_FIELD,
    fields,
    words,
)
from tensorkeep.errors import Damaged, Unsupported

_DOS_FOLDER = 0x10
_LINK = 0xA000_0000  # the upper half is Unix's mode where a Unix program wrote it
_ODD_KINDS = 0x2000_0010
_ODD_FLAGS = UNREADABLE | MASKED
_REFUSED_FLAGS = (
    (ENCRYPTED, "encrypted-member", "the member is encrypted; torch does not read it"),
    (STRONG, "strong-encryption", "the member asks for strong encryption; torch does not read it"),
    (PATCHED, "patched-member", "the member is a patch of another file; torch does not read it"),
)


@dataclass(slots=True, eq=False)
class ZipMember:
    """One entry of the directory.

    `size` and `compressed_size` in bytes, `header_offset` that of the local header, `index` the
    place in the directory. `name` is the stored name read as UTF-8, whatever its flags say:
    torch compares bytes; what is not UTF-8 is kept as lone surrogates (`surrogateescape`).
    """

    name: str
    header_offset: int
    size: int
    compressed_size: int
    crc32: int
    method: int
    flags: int
    index: int


@dataclass(slots=True)
class Entries:
    """What the directory lists. `keys` are the names in bytes, ASCII letters lowered.

    `orderly` says that members lie in the order of the directory with honest gaps between them;
    `used` is how many bytes of the directory the entries fill.
    """

    members: list[ZipMember]
    keys: list[bytes]
    orderly: bool
    used: int


class EntryReader:
    """Reads the entries of the directory at offset `base` of `file_name`.

    `disk` is this file's number by the end record, `file_size` in bytes.
    """

    def __init__(
        self, file_name: str, *, file_size: int, base: int, disk: int, notes: Notes
    ) -> None:
        self._name = file_name
        self._file_size = file_size
        self._base = base
        self._disk = disk
        self._notes = notes

    def read(self, data: bytes, count: int) -> Entries:
        """`count` entries; Damaged where torch's reader refuses, Unsupported for several disks.

        One loop without calls for what torch writes: it runs once per tensor.
        """
        members: list[ZipMember] = []
        keys: list[bytes] = []
        unpack, header, end, file_size = (
            CENTRAL.unpack_from,
            CENTRAL.size,
            len(data),
            self._file_size,
        )
        at, edge, orderly = 0, 0, True
        for index in range(count):
            if at + header > end:
                raise self._bad("a directory entry", "the end of the directory", at)
            mark, flags, method, crc, packed, size, nlen, xlen, clen, disk, kind, start = unpack(
                data, at
            )
            name_end = at + header + nlen
            following = name_end + xlen + clen
            if following > end or mark != CENTRAL_MARK:
                raise self._bad("a whole directory entry (PK 1 2)", repr(mark), at)
            raw = data[at + header : name_end]
            try:
                name = raw.decode()
            except UnicodeDecodeError:
                name = raw.decode("utf-8", "surrogateescape")
            if packed == size:
                packed = size  # one number object instead of two: a fifth of the memory
            member = ZipMember(name, start, size, packed, crc, method, flags, index)
            if xlen:
                self._widen(member, raw, data[name_end : name_end + xlen], at)
                start, packed, size = member.header_offset, member.compressed_size, member.size
            odd = method or flags & _ODD_FLAGS or kind & _ODD_KINDS
            if odd or packed != size or disk != self._disk:
                self._check_odd(member, disk, kind, at)
            if start + LOCAL.size + packed > file_size:
                raise self._bad(
                    f"a member inside {file_size} bytes", f"offset {start}, {packed} bytes", at
                )
            if start < edge or start - edge > LONGEST_GAP:
                orderly = False
            members.append(member)
            keys.append(raw.lower())
            at, edge = following, start + LOCAL.size + nlen + packed
        return Entries(members, keys, orderly, at)

    def _widen(self, member: ZipMember, raw: bytes, extra: bytes, at: int) -> None:
        """Apply the zip64 field where 32 bits are full; note extra fields that readers dispute."""
        wide: bytes | None = None
        for kind, content, whole in fields(extra):
            if not whole:
                self._note("extra-field", "an extra field is cut short", member, at)
            elif kind == ZIP64_FIELD and wide is None:
                wide = content
            elif kind == ZIP64_FIELD:
                self._note("zip64-contradiction", "two zip64 fields for one member", member, at)
            elif kind == UNICODE_PATH_FIELD and content[5:] != raw:
                what = "an extra field gives the member another name, which some readers take"
                self._note("unicode-path", what, member, at)
        if wide is not None:
            self._apply(member, words(wide), at)

    def _apply(self, member: ZipMember, given: list[int], at: int) -> None:
        numbers = [member.size, member.compressed_size, member.header_offset]
        full = [place for place, number in enumerate(numbers) if number == FULL32]
        if len(given) < len(full):
            raise self._bad(f"{len(full)} numbers in the zip64 field", len(given), at)
        for place, number in zip(full, given, strict=False):
            numbers[place] = number
        if len(given) > len(full) and given[:3] != numbers[: len(given)]:
            what = "the zip64 field gives numbers for fields that are not full, and other ones"
            self._note("zip64-contradiction", what, member, at)
        member.size, member.compressed_size, member.header_offset = numbers

    def _check_odd(self, member: ZipMember, disk: int, kind: int, at: int) -> None:
        size, packed, flags = member.size, member.compressed_size, member.flags
        if disk == FULL16 or disk not in (self._disk, 1):
            raise self._refused("one file", f"a member on disk {disk}", at)
        if flags & MASKED:
            raise self._refused("readable headers", "headers masked by encryption", at)
        wrong = (member.method == STORED and size != packed) or size > packed == 0
        # Encryption puts 12 bytes before the data; torch refuses such an archive, zipfile lists it.
        if wrong and not flags & ENCRYPTED:
            raise self._bad(f"{size} bytes by method {member.method}", f"{packed} bytes", at)
        for bit, anomaly, what in _REFUSED_FLAGS:
            if flags & bit:
                self._note(anomaly, what, member, at)
        if member.method not in (STORED, DEFLATED):
            what = f"compression method {member.method}, which torch does not read"
            self._note("unsupported-method", what, member, at)
        if kind & 0xF000_0000 == _LINK:
            what = "a symbolic link: whoever unpacks the archive follows it to another file"
            self._note("link-outside", what, member, at)
        if size and kind & _DOS_FOLDER and not member.name.endswith("/"):
            what = f"marked as a folder, with {size} bytes: torch leaves them unread"
            self._note("directory-with-data", what, member, at)

    def _note(self, kind: str, what: str, member: ZipMember, at: int) -> None:
        self._notes.add(kind, what, member.name, self._base + at)

    def _bad(self, expected: str, got: object, at: int) -> Damaged:
        where = f"offset {self._base + at}"
        return Damaged(f"{self._name}, zip directory", expected=expected, got=got, where=where)

    def _refused(self, expected: str, got: str, at: int) -> Unsupported:
        where = f"offset {self._base + at}"
        return Unsupported(f"{self._name}, zip directory", expected=expected, got=got, where=where)
