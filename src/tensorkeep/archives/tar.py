"""A plain tar archive: its members as byte ranges, read as Python's tarfile reads them.

`read_directory(blob, limits)` walks the headers and reads no member: a read of a few kilobytes
for each. ustar, GNU long names and links, pax headers (path, linkpath, size) and sizes in
base 256 are understood; compressed archives are not opened here. The layout's sources are named
in `_tar_headers`. Where tarfile, GNU tar and others take the same bytes differently, there is an
`Anomaly`; besides those of names (`_tar_names`) their kinds are:

bad-header-checksum  tarfile takes it for the end of the archive, others go on behind it
trailing-bytes       something other than zeros behind the end
no-end-blocks        the file ends without the two blocks of zeros that end an archive
several-names        long-name and pax headers give one member different names
pax-size-differs     the pax header's size is not the header's, which would have held it
pax-global           a header for all members names or sizes them
odd-number           a size that only some readers take as a number
link-with-data       a member that has no data announces some
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tensorkeep.archives import _tar_headers as headers
from tensorkeep.archives._notes import Notes
from tensorkeep.archives._tar_headers import BLOCK, Header
from tensorkeep.archives._tar_members import TarMember
from tensorkeep.archives._tar_names import note_member, note_names
from tensorkeep.errors import Damaged, LimitExceeded
from tensorkeep.facts import Anomaly, Limits, MiB
from tensorkeep.stores import Blob
from tensorkeep.stores.slices import SliceBlob

__all__ = ["TarArchive", "TarMember", "is_tar", "read_directory"]

_WINDOW = 16 * BLOCK
_LONGEST = MiB  # of a long name or a pax header
_CHAIN = 16  # headers in front of one member
_FITS = 8 << 30  # sizes below fit into eleven octal digits
_TAIL = MiB
_EMPTY = bytes(BLOCK)


class TarArchive:
    """The members of a tar archive in the order of the file, and what is odd about them."""

    def __init__(self, blob: Blob, members: list[TarMember], notes: Notes) -> None:
        self.blob = blob
        self.members = members
        self._notes = notes
        self._last = {member.name: member for member in members}

    @property
    def anomalies(self) -> list[Anomaly]:
        """Everything odd; callers may add what they find in the members."""
        return self._notes.anomalies

    def locate(self, name: str) -> TarMember | None:
        """The member that tarfile takes for `name`: the last one of that name; None if none."""
        return self._last.get(name.rstrip("/"))

    def open(self, member: TarMember) -> SliceBlob:
        """The member's bytes as a blob, which reads from this archive's. Links have none."""
        return SliceBlob(self.blob, member.offset, member.size, member.name)


def is_tar(head: bytes) -> bool:
    """Whether the first 512 bytes of a file are a tar header, by their checksum."""
    return head[:1] != b"\0" and headers.checksum_holds(head[:BLOCK])


def read_directory(blob: Blob, limits: Limits) -> TarArchive:
    """Walk the headers of the tar archive in `blob`; the members' bytes are not read.

    Raises `Damaged` for what no reader takes as an archive (no header at the beginning, a header
    or a member cut short, sizes and pax records that are none), `LimitExceeded` for more than
    `limits.max_entries` members, a header over a megabyte or 16 of them before one member.
    """
    walk = _Walk(blob, limits, Notes())
    members = walk.members()
    note_names(members, walk.notes)
    return TarArchive(blob, members, walk.notes)


@dataclass(slots=True)
class _Next:
    """What the headers in front of a member say about it. The first one to speak holds."""

    start: int
    count: int = 0
    names: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    pax: dict[str, str] = field(default_factory=dict)


class _Walk:
    def __init__(self, blob: Blob, limits: Limits, notes: Notes) -> None:
        self.blob = blob
        self.limits = limits
        self.notes = notes
        self._window = b""
        self._start = 0
        self._global: dict[str, str] = {}

    def members(self) -> list[TarMember]:
        """All members, up to the end of the archive."""
        found: list[TarMember] = []
        at = 0
        ahead = _Next(0)
        while (header := self._header(at)) is not None:
            at += BLOCK
            if header.type in headers.EXTENDED:
                at = self._extended(header, at, ahead)
                continue
            if len(found) >= self.limits.max_entries:
                expected = f"at most {self.limits.max_entries} members"
                raise LimitExceeded(self.blob.name, expected=expected, got="more")
            member, at = self._member(header, at, ahead)
            found.append(member)
            note_member(member, self.notes)
            ahead = _Next(at)
        if ahead.count:
            raise self._damaged("a member after a long name or pax header", "none", ahead.start)
        return found

    def _header(self, at: int) -> Header | None:
        """The header at byte `at`; None where the archive ends."""
        if at >= self.blob.size:
            what = "the file ends without the blocks of zeros that end an archive"
            self.notes.add("no-end-blocks", what, "", self.blob.size)
            return None
        block = self._block(at)
        if block == _EMPTY:
            self._tail(at)
            return None
        if not headers.checksum_holds(block):
            if at == 0:
                raise self._damaged("a tar header", "a block whose checksum is another", 0)
            what = "a block that is no header by its checksum: the archive ends here for some"
            self.notes.add("bad-header-checksum", what, "", at)
            return None
        header = headers.parse(block, self.blob.name, at)
        if not header.plain:
            what = f"the size is written {block[124:136]!r}"
            self.notes.add("odd-number", what, header.name, at)
        return header

    def _block(self, at: int) -> bytes:
        if not self._start <= at <= self._start + len(self._window) - BLOCK:
            length = min(_WINDOW, self.blob.size - at)
            if length < BLOCK:
                raise self._damaged(f"a header of {BLOCK} bytes", f"{length}", at)
            self._start, self._window = at, self.blob.read(at, length)
        return self._window[at - self._start :][:BLOCK]

    def _extended(self, header: Header, at: int, ahead: _Next) -> int:
        """Take in a header that speaks of the next one; where that lies."""
        ahead.count += 1
        if header.size > _LONGEST or ahead.count > _CHAIN:
            expected = f"at most {_CHAIN} headers before a member, of {_LONGEST} bytes each"
            got = f"{header.size} bytes in header {ahead.count}"
            raise LimitExceeded(self.blob.name, expected=expected, got=got, where=f"byte {at}")
        end = self._end(at, header.size, header.stored)
        data = self.blob.read(at, header.size)
        if header.type == headers.LONG_NAME:
            ahead.names.append(headers.text(data))
        elif header.type == headers.LONG_LINK:
            ahead.links.append(headers.text(data))
        elif header.type == headers.PAX_GLOBAL:
            self._pax_global(headers.records(data, self.blob.name, at), at)
        else:
            self._pax(headers.records(data, self.blob.name, at), ahead)
        return end

    def _pax_global(self, found: dict[str, str], at: int) -> None:
        self._global |= found
        if found.keys() & {"path", "linkpath", "size"}:
            what = "a header for all members that names or sizes them"
            self.notes.add("pax-global", what, "", at - BLOCK)

    def _pax(self, found: dict[str, str], ahead: _Next) -> None:
        ahead.names += [found[key] for key in ("GNU.sparse.name", "path") if key in found]
        ahead.links += [found["linkpath"]] if "linkpath" in found else []
        ahead.pax = found | ahead.pax

    def _member(self, header: Header, at: int, ahead: _Next) -> tuple[TarMember, int]:
        pax = self._global | ahead.pax
        kind = headers.KINDS.get(header.type, "other")
        if any(key.startswith("GNU.sparse.") for key in pax):
            kind = "sparse"
        name = (ahead.names or [pax.get("path", header.name)])[0]
        link = (ahead.links or [pax.get("linkpath", header.link)])[0]
        if len(set(ahead.names)) > 1 or len(set(ahead.links)) > 1:
            what = f"the headers name it {sorted(set(ahead.names + ahead.links))[:3]!r}"
            self.notes.add("several-names", what, name, ahead.start)
        size = self._size(header, pax, name, at)
        header.size = size
        if size and not header.stored:
            what = f"a {kind} that announces {size} bytes: not every reader skips them"
            self.notes.add("link-with-data", what, name, at - BLOCK)
        length = size if header.stored else 0
        end = self._end(at, length, header.stored)
        return TarMember(name.rstrip("/"), at, length, kind, link, ahead.start), end

    def _size(self, header: Header, pax: dict[str, str], name: str, at: int) -> int:
        said = pax.get("size")
        if said is None:
            return header.size
        if not (said.isascii() and said.isdigit() and len(said) < 20):
            raise self._damaged("a size in decimal digits", repr(said[:40]), at - BLOCK)
        size = int(said)
        if size != header.size and size < _FITS:
            what = f"{size} bytes by the pax header, {header.size} by its own"
            self.notes.add("pax-size-differs", what, name, at - BLOCK)
        return size

    def _end(self, at: int, size: int, stored: int) -> int:
        """Where the next header lies. Raises `Damaged` if the bytes reach beyond the file."""
        if at + size > self.blob.size:
            raise self._damaged(f"{size} bytes of a member", f"{self.blob.size - at}", at)
        return at + stored

    def _tail(self, at: int) -> None:
        """Behind the end there are zeros, up to a multiple of 10,240 bytes or so."""
        tail = self.blob.read(at, min(_TAIL, self.blob.size - at))
        rest = tail.lstrip(b"\0")
        if len(tail) < 2 * BLOCK:
            what = "one block of zeros or less: an archive ends with two"
            self.notes.add("no-end-blocks", what, "", at)
        if rest or at + _TAIL < self.blob.size:
            what = f"{self.blob.size - at} bytes behind the end, and not all are zeros"
            if not rest:
                what = f"{self.blob.size - at} bytes behind the end of the archive"
            self.notes.add("trailing-bytes", what, "", at + len(tail) - len(rest))

    def _damaged(self, expected: str, got: str, at: int) -> Damaged:
        return Damaged(self.blob.name, expected=expected, got=got, where=f"byte {at}")
