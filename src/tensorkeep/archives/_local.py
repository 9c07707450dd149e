"""A member's own header and data descriptor, and where they contradict the directory."""

from __future__ import annotations

from tensorkeep.archives._entries import ZipMember
from tensorkeep.archives._nearby import Nearby
from tensorkeep.archives._notes import Notes
from tensorkeep.archives._records import (
    DESCRIPTOR,
    DESCRIPTOR_MARK,
    FULL32,
    LOCAL,
    LOCAL_MARK,
    ZIP64_FIELD,
    fields,
    words,
)
from tensorkeep.errors import Damaged

# Bits 1 and 2 say how hard a compressor tried; writers fill them in one of the two headers.
_EFFORT = 0x6


def read_local(blob: Nearby, member: ZipMember, notes: Notes) -> int:
    """Offset of the member's bytes, by the lengths in its own header as torch computes it.

    Raises Damaged if there is no local header or the member reaches beyond the file.
    """
    raw = member.name.encode("utf-8", "surrogateescape")
    start = member.header_offset
    head = blob.read(start, min(LOCAL.size + len(raw), blob.size - start))
    mark, flags, method, crc, packed, size, nlen, xlen = LOCAL.unpack_from(head)
    if mark != LOCAL_MARK:
        raise _damaged(blob, member, "a local header (PK 3 4)", repr(mark))
    data: int = start + LOCAL.size + nlen + xlen
    if data + member.compressed_size > blob.size:
        end = data + member.compressed_size
        raise _damaged(blob, member, f"a member inside {blob.size} bytes", f"one up to {end}")
    if nlen != len(raw) or head[LOCAL.size :] != raw:
        what = "the member's own header has another name than the directory"
        notes.add("local-name-differs", what, member.name, start)
    if (flags ^ member.flags) & ~_EFFORT:
        what = f"flags {flags:#x} in the member's own header, {member.flags:#x} in the directory"
        notes.add("local-flags-differ", what, member.name, start)
    if method != member.method:
        what = f"method {method} in the member's own header, {member.method} in the directory"
        notes.add("local-method-differs", what, member.name, start)
    if FULL32 in (packed, size) and xlen:
        extra = blob.read(data - xlen, xlen)
        packed, size = _widen(extra, packed, size)
    _compare(member, bool(flags & DESCRIPTOR), (crc, packed, size), notes)
    return data


def _widen(extra: bytes, packed: int, size: int) -> tuple[int, int]:
    """Compressed size and size with the zip64 field applied where 32 bits are full."""
    for kind, content, whole in fields(extra):
        if kind == ZIP64_FIELD and whole:
            given = words(content)
            if size == FULL32 and given:
                size = given.pop(0)
            if packed == FULL32 and given:
                packed = given.pop(0)
            break
    return packed, size


def _compare(member: ZipMember, described: bool, local: tuple[int, int, int], notes: Notes) -> None:
    """`described`: the numbers follow the data, so zeros may stand in the header (torch's do)."""
    crc, packed, size = local
    blank = (0, FULL32) if described else ()
    for here, there in ((packed, member.compressed_size), (size, member.size)):
        if here != there and here not in blank:
            what = f"{here} bytes by the member's own header, {there} by the directory"
            notes.add("local-size-differs", what, member.name, member.header_offset)
            break
    if crc != member.crc32 and not (described and crc == 0):
        what = f"checksum {crc:08x} in the member's own header, {member.crc32:08x} in the directory"
        notes.add("local-checksum-differs", what, member.name, member.header_offset)


def descriptor_length(
    blob: Nearby, member: ZipMember, end: int, room: int, notes: Notes
) -> int | None:
    """Bytes of the data descriptor at `end`: 12 to 24; None if none there fits the directory.

    Of several that fit (a member of zero bytes has a short one inside a long one) the one that
    fills `room`, the bytes up to what follows.
    """
    tail = blob.read(end, min(24, blob.size - end))
    crc, packed, size = member.crc32, member.compressed_size, member.size
    fitting = []
    for mark in (DESCRIPTOR_MARK, b""):
        for width in (4, 8):
            if max(packed, size) >> 8 * width:
                continue
            numbers = packed.to_bytes(width, "little") + size.to_bytes(width, "little")
            whole = mark + crc.to_bytes(4, "little") + numbers
            if tail.startswith(whole):
                fitting.append(len(whole))
    if fitting:
        return room if room in fitting else fitting[0]
    what = "the data descriptor is missing or contradicts the directory"
    notes.add("descriptor-differs", what, member.name, end)
    return None


def _damaged(blob: Nearby, member: ZipMember, expected: str, got: str) -> Damaged:
    where = f"{member.name}, offset {member.header_offset}"
    return Damaged(blob.name, expected=expected, got=got, where=where)
