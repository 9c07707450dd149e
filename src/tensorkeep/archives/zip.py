"""A zip archive opened by its directory: a few small reads, whatever the size of the file.

Sources: PKWARE's APPNOTE 6.3.10 for the layout; `torch._C.PyTorchFileReader` of torch 2.13,
with miniz 3.0.2 in it, for every choice that a reader has.

What torch does and others do not: the directory's offsets are absolute (nothing is added for
bytes before the archive); the rightmost end record wins, whatever its comment length; names are
found regardless of the case of ASCII letters; checksums are not verified. And what torch writes:
sizes of zero in local headers with a data descriptor behind the data, an "FB" extra field as
padding up to the alignment (64 bytes, or what `storage_alignment` says), 64-bit end records
always. With `set_crc32_options(False)` it writes zero for every checksum, and under
`torch.serialization.skip_data` for the storages: a zero there means "none", not "wrong".
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterator

from tensorkeep.archives._ending import Ending
from tensorkeep.archives._entries import Entries, EntryReader, ZipMember
from tensorkeep.archives._layout import note_collisions, note_edges, note_names, note_roots
from tensorkeep.archives._local import descriptor_length, read_local
from tensorkeep.archives._lookup import torch_find, torch_order
from tensorkeep.archives._nearby import Nearby
from tensorkeep.archives._notes import Notes
from tensorkeep.archives._records import DESCRIPTOR
from tensorkeep.archives._unpacking import pieces, unpack
from tensorkeep.errors import LimitExceeded
from tensorkeep.facts import Anomaly, Limits
from tensorkeep.stores import Blob

__all__ = ["ZipArchive", "ZipMember", "read_directory"]

# Telling which of several equal names torch takes costs a sort in Python: a second or two.
_MOST_SORTED = 200_000


class ZipArchive:
    """The members of a zip file and what is odd about them.

    `members` in the order of the directory, `directory_offset` in bytes, `root` the text before
    the first "/" of the first member's name (torch looks for everything under it), or None.
    `has_checksums` is False if every checksum is zero: torch writes that when told to.
    """

    def __init__(self, blob: Blob, entries: Entries, directory_offset: int, notes: Notes) -> None:
        members, keys = entries.members, entries.keys
        self.blob = blob
        self._headers = Nearby(blob)
        self.members = members
        self.directory_offset = directory_offset
        first = members[0].name if members else ""
        self.root = first.partition("/")[0] if "/" in first else None
        self.has_checksums = any(member.crc32 for member in members)
        self._notes = notes
        self._by_key = dict(zip(keys, members, strict=True))
        alone = len(self._by_key) == len(members)
        self._shared = set() if alone else note_collisions(members, keys, notes)
        self._order: tuple[list[int], list[bytes]] | None = None
        self._data_offsets: dict[int, int] = {}
        self._checked: set[int] = set()
        self._starts: list[int] | None = None

    @property
    def anomalies(self) -> list[Anomaly]:
        """Everything odd met so far: the list grows as headers and members are read."""
        return self._notes.anomalies

    def locate(self, name: str) -> ZipMember | None:
        """The member that torch's own reader takes for the full `name`, or None.

        ASCII letters match in either case. Raises LimitExceeded if the name is there twice in
        an archive of more than 200,000 members.
        """
        key = _key(name)
        if key not in self._shared:
            return self._by_key.get(key)
        order, keys = self._sorted()
        index = torch_find(order, keys, key)
        return None if index is None else self.members[index]

    def holds(self, name: str) -> bool:
        """Whether `locate` would find the full `name`."""
        return _key(name) in self._by_key

    def _sorted(self) -> tuple[list[int], list[bytes]]:
        if self._order is None:
            if len(self.members) > _MOST_SORTED:
                expected = f"at most {_MOST_SORTED} members where names are not unique"
                raise LimitExceeded(
                    f"{self.blob.name}, zip directory", expected=expected, got=len(self.members)
                )
            encoded = [m.name.encode("utf-8", "surrogateescape").lower() for m in self.members]
            self._order = torch_order(encoded), encoded
        return self._order

    def data_offset(self, member: ZipMember) -> int:
        """Offset of the member's (packed) bytes, by its own header; anomalies of that are noted.

        Raises Damaged if no local header is there or the bytes reach beyond the file.
        """
        offset = self._data_offsets.get(member.index)
        if offset is None:
            offset = read_local(self._headers, member, self._notes)
            self._data_offsets[member.index] = offset
        return offset

    def check_local(self, member: ZipMember) -> None:
        """Read the member's own header and descriptor and note what they contradict.

        Notes too what lies between the member's end and the next one. Raises as `data_offset`.
        """
        if member.index in self._checked:
            return
        self._checked.add(member.index)
        end = self.data_offset(member) + member.compressed_size
        room = self._following(member) - end
        if member.flags & DESCRIPTOR:
            length = descriptor_length(self._headers, member, end, room, self._notes)
            if length is None:
                return
            end, room = end + length, room - length
        if room > 0:
            what = f"{room} bytes that no member accounts for"
            self._notes.add("unlisted-bytes", what, member.name, end)
        elif room < 0:
            what = f"the member reaches {-room} bytes into what follows it"
            self._notes.add("overlapping-members", what, member.name, member.header_offset)

    def _following(self, member: ZipMember) -> int:
        """Offset of the next local header, or of the directory."""
        if self._starts is None:
            self._starts = sorted([m.header_offset for m in self.members])
        at = bisect_right(self._starts, member.header_offset)
        starts = self._starts
        return starts[at] if at < len(starts) else self.directory_offset

    def read(self, member: ZipMember, limits: Limits) -> bytes:
        """All bytes of a member, decompressed; a wrong checksum is noted, as torch ignores it.

        Raises Damaged, Unsupported (encryption, methods other than stored and deflated) and
        LimitExceeded (`max_pickle_bytes`, `max_ratio`).
        """
        start = self.data_offset(member)
        data = unpack(self.blob, member, start, limits, self._notes)
        if self.has_checksum(member):
            self.check_checksum(member, checksum(data))
        return data

    def pieces(self, member: ZipMember, limits: Limits) -> Iterator[bytes | memoryview]:
        """The bytes of a member of any size, decompressed, a megabyte or so at a time.

        A piece holds until the next one; the checksum is left to the caller. Raises as `read`,
        without `max_pickle_bytes`.
        """
        yield from pieces(self.blob, member, self.data_offset(member), limits, self._notes)

    def has_checksum(self, member: ZipMember) -> bool:
        """Whether the stored checksum means something (see the top of this module)."""
        if member.crc32:
            return True
        storage = self.root is not None and member.name.startswith(f"{self.root}/data/")
        return self.has_checksums and not storage

    def check_checksum(self, member: ZipMember, found: int) -> None:
        """Note if `found`, the CRC-32 of the member's bytes, is not what the directory says."""
        if self.has_checksum(member) and found != member.crc32:
            what = f"the bytes have checksum {found:08x}, the directory says {member.crc32:08x}"
            self._notes.add("bad-checksum", what, member.name, member.header_offset)


def _key(name: str) -> bytes:
    # torch hands a C string over: what follows a NUL is not looked for.
    if "\0" in name:
        name = name.partition("\0")[0]
    return name.encode("utf-8", "surrogateescape").lower()


def checksum(data: bytes | bytearray | memoryview) -> int:
    """CRC-32 as zip has it."""
    return zlib.crc32(data)


def read_directory(blob: Blob, limits: Limits) -> ZipArchive:
    """Read the directory of the zip archive that `blob` is, in one or two reads.

    Raises Damaged if torch's reader would refuse it, Unsupported for an archive in parts,
    LimitExceeded for more than `limits.max_entries` members.
    """
    notes = Notes()
    ending = Ending(blob, notes)
    place = ending.place(limits)
    data = ending.slice(place.offset, place.size)
    reader = EntryReader(
        blob.name, file_size=blob.size, base=place.offset, disk=place.disk, notes=notes
    )
    entries = reader.read(data, place.entries)
    if entries.used != place.size:
        what = f"{place.size - entries.used} bytes of the directory follow its last entry"
        notes.add("entry-count", what, "", place.offset + entries.used)
    note_names(entries.members, notes)
    note_edges(entries.members, place.offset, entries.orderly, notes)
    archive = ZipArchive(blob, entries, place.offset, notes)
    if archive.root is not None and _is_torch(archive, archive.root):
        note_roots(archive.members, archive.root, notes)
    return archive


def _is_torch(archive: ZipArchive, root: str) -> bool:
    """Whether torch's reader would open the archive: it insists on a version record."""
    return archive.holds(f"{root}/version") or archive.holds(f"{root}/.data/version")
