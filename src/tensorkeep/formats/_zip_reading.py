"""What all kinds of zip archives share: members found and read, all others looked at, checksums.

A format reads the members that it knows. Every other member is looked at too when the archive is
audited: whatever lies in it that a loader of another kind could run is judged with the rest.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from tensorkeep.archives.zip import ZipArchive, ZipMember
from tensorkeep.errors import Amplified, Damaged, NotACheckpoint, TensorkeepError
from tensorkeep.facts import Anomaly, Limits
from tensorkeep.formats import _hidden, _nested
from tensorkeep.formats._members import is_compiled, named_model
from tensorkeep.formats._zip_storages import Storages
from tensorkeep.formats.contents import Code, Contents, Lens, Parts, Storage
from tensorkeep.pickles import Call, Import, Program, run
from tensorkeep.stores import Blob
from tensorkeep.stores.memory import MemoryBlob
from tensorkeep.stores.slices import SliceBlob

_CHUNK = 1 << 20
_SLACK = 4096  # bytes of tables before the first byte comes out of deflated data
_SMALL = 64
_SPARE = 64 << 20  # bytes that any archive may unpack to, however small it is
_SMALL_RECORDS = ("byteorder", "version", ".format_version", ".storage_alignment")
# Pickles that a format does not read as its own: who opens the archive otherwise may run them.
_HIDDEN = "a pickle that the loader of this kind of archive does not read"


def is_zip(head: bytes) -> bool:
    """Whether a file that begins so is a zip archive."""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


class ZipReading:
    """One archive while a format reads it: what was understood of it, and what is left over."""

    def __init__(self, archive: ZipArchive, limits: Limits, parts: Parts) -> None:
        self.archive = archive
        self.limits = limits
        self.parts = parts
        self.programs: list[tuple[str, Program]] = []
        self.nested: list[tuple[str, Contents]] = []
        self.files: dict[bytes, Contents] = {}  # what pickles have torch load, by its bytes
        self.unreadable: list[tuple[str, TensorkeepError]] = []
        self.code: list[Code] = []
        self.storages: dict[str, Storage] = {}
        self.facts = {"root": archive.root or ""}
        self._known: set[int] = set()
        self._expected: set[int] = set()
        self._stored: dict[int, str] = {}
        self._slices: set[int] = set()
        self._audited = False
        self._budget = self._room = _SPARE + limits.max_ratio * archive.blob.size

    def torch_records(self) -> None:
        """Read the small records that torch's zip writer leaves beside the rest into `facts`.

        Raises `Damaged` for a byte order that is none.
        """
        for name in _SMALL_RECORDS:
            text = self.text(name)
            if text is not None:
                self.facts[name] = text
        order = self.facts.get("byteorder", "little")
        if order not in ("little", "big"):
            name = self.archive.blob.name
            raise Damaged(name, expected='"little" or "big" in byteorder', got=repr(order))

    # Members

    def find(self, name: str) -> ZipMember | None:
        """The member `root/name`, as torch finds it."""
        root = self.archive.root
        return self.archive.locate(f"{root}/{name}") if root is not None else None

    def inner(self, member: ZipMember) -> str:
        """The member's name below the root; "" for one that lies elsewhere."""
        root, _, name = member.name.partition("/")
        return name if root == self.archive.root else ""

    def text(self, name: str) -> str | None:
        """A record of a few bytes; None if there is none, or it is longer."""
        member = self.find(name)
        if member is None or member.size > _SMALL:
            return None
        return self.unpack(member).decode("ascii", "replace").strip()

    def unpack(self, member: ZipMember) -> bytes:
        """The bytes of a member. Raises `Amplified` when all that was unpacked is too much.

        A directory may name the same packed bytes a hundred thousand times.
        """
        self._charge(member)
        # Archives in archives are each small enough: what they unpack to is counted together.
        self.parts.spend(member.size, f"{self.archive.blob.name}, {member.name}")
        return self.archive.read(member, self.limits)

    @property
    def exhausted(self) -> bool:
        """Whether more was to be unpacked than is allowed."""
        return self._budget < 0

    def _charge(self, member: ZipMember) -> None:
        if member.method == 0:
            return
        if 0 <= self._budget < member.size:
            what = f"its members unpack to more than {self._room} bytes"
            self.note("compressed-bomb", what, member.name, member.header_offset)
            self._budget = -1
        if self._budget < 0:
            raise Amplified(
                f"{self.archive.blob.name}, {member.name}",
                expected=f"members that unpack to at most {self._room} bytes altogether",
                got="more",
            )
        self._budget -= member.size

    def data(self, member: ZipMember) -> bytes:
        """The bytes of a member that the format reads as its own."""
        self._known.add(member.index)
        return self.unpack(member)

    def program(self, member: ZipMember, *, bare: bool = False) -> Program:
        """The pickle in a member, which a loader would run; kept with the others.

        `bare`: as TorchScript's unpickler reads it.
        """
        data = self.data(member)
        program = run(data, limits=self.limits, where=member.name, bare=bare)
        if program.error is None and program.end < len(data):
            what = f"{len(data) - program.end} bytes follow the pickle's end"
            self.note("bytes-after-pickle", what, member.name, program.end)
        self.programs.append((member.name, program))
        self._behind(member, data, program)
        nested, unreadable = _nested.collect(
            [(member.name, program)], self.parts, self.archive.anomalies, self.files
        )
        self.nested += nested
        self.unreadable += unreadable
        return program

    def _behind(self, member: ZipMember, data: bytes, program: Program) -> None:
        """A second pickle behind STOP: torch stops there, whoever loads on does not."""
        end, second = program.end, None
        if program.error is not None or end == len(data):
            return
        if is_program(data[end : end + _CHUNK], self.limits):
            second = run(data, end, limits=self.limits, where=member.name)
            self.programs.append((member.name, second))
        found = _hidden.behind(MemoryBlob(data), end, self.limits, member.name, second)
        self.programs += found.programs
        self.unreadable += found.unreadable
        self.archive.anomalies.extend(found.anomalies)

    def expect(self, member: ZipMember) -> None:
        """A pickle that belongs where it is and that only the audit reads."""
        self._expected.add(member.index)

    @property
    def swapped(self) -> bool:
        """Whether the bytes of the storages are big-endian."""
        return self.facts.get("byteorder") == "big"

    def register(self, program: Program, table: Storages | None = None) -> Storages:
        """The storages that `program` names, found as `table` finds them (torch.save's unless)."""
        table = table or Storages(self.archive, swapped=self.swapped)
        table.register(program.persistents)
        self.storages.update(
            (label, found) for label, found in table.by_key.items() if found.device != "hollow"
        )
        for label, member in table.members.items():
            self._stored.setdefault(member.index, label)
        return table

    def storage(self, label: str, member: ZipMember, storage: Storage) -> None:
        """Keep a storage that no pickle names."""
        self.storages[label] = storage
        self._stored.setdefault(member.index, label)

    def blob(self, member: ZipMember) -> Blob:
        """The member as a file of its own: a place in the archive, or unpacked into memory."""
        name = f"{self.archive.blob.name}, {member.name}"
        self._known.add(member.index)
        if member.method != 0:
            return MemoryBlob(self.unpack(member), name)
        self._slices.add(member.index)
        return SliceBlob(self.archive.blob, self.archive.data_offset(member), member.size, name)

    def peek(self, member: ZipMember, length: int) -> bytes:
        """Its first bytes, at most `length`; of a packed member perhaps fewer than there are."""
        start, size = self.archive.data_offset(member), member.compressed_size
        if member.method == 0:
            return self.archive.blob.read(start, min(size, length))
        if member.method != 8:
            return b""
        packed = self.archive.blob.read(start, min(size, length + _SLACK))
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, length)
        except zlib.error:
            return b""

    def nest(self, member: ZipMember) -> Contents | None:
        """The file that the member is, kept with the others; None if it cannot be read."""
        try:
            contents = self.parts.examine(self.blob(member))
        except TensorkeepError as error:
            # An archive of other things that lies beside the models is none of them.
            if named_model(member.name) or not isinstance(error, NotACheckpoint):
                self.unreadable.append((member.name, error))
            return None
        self.nested.append((member.name, contents))
        return contents

    def note(self, kind: str, what: str, where: str = "", offset: int | None = None) -> None:
        """Something odd about the archive."""
        self.archive.anomalies.append(Anomaly(kind, what, where, offset))

    # What is handed up

    def contents(self, format_: str, root: object, lens: Lens) -> Contents:
        """The record, with everything that is the same for all kinds of archive."""
        return Contents(
            format=format_,
            container="zip",
            root=root,
            lens=lens,
            storages=self.storages,
            facts=self.facts,
            programs=self.programs,
            nested=self.nested,
            unreadable=self.unreadable,
            anomalies=self.archive.anomalies,
            audit=self.audit,
            verify=self.verify,
            digests=self.checksums,
            code=lambda: self.code,
        )

    @property
    def checksums(self) -> bool:
        """Whether torch wrote checksums; `set_crc32_options(False)` leaves them zero."""
        archive = self.archive
        return any(archive.has_checksum(member) for member in archive.members if member.size)

    def audit(self, deep: bool) -> Iterator[Anomaly]:
        """Headers and checksums of every member that is no storage; with `deep`, of storages too.

        A large file inside the archive is mostly storages: it is compared as they are.

        Pickles and files met in members that the format did not read join `programs` and
        `nested`. Yields all that is odd about the archive so far, what was known before included.
        """
        for member in self.archive.members:
            if member.index not in self._stored:
                self.archive.check_local(member)
        self.look_at_all()
        for member in self.archive.members:
            if member.index in self._slices and (deep or member.size <= _CHUNK):
                self._checksum(member)
        if deep:
            for member in self.archive.members:
                if member.index in self._stored:
                    self._look_into_storage(member)
        yield from list(self.archive.anomalies)

    def look_at_all(self) -> None:
        """Look at every member that the format has not read: is it a pickle, is it a file?"""
        first, self._audited = not self._audited, True
        for member in self.archive.members if first else ():
            if member.index not in self._known and member.index not in self._stored:
                try:
                    self._look(member)
                except TensorkeepError as error:
                    # One member that is broken must not hide what lies in the others.
                    self.unreadable.append((member.name, error))
                    if self.exhausted:
                        return

    def _look(self, member: ZipMember) -> None:
        if member.index in self._expected:
            self.program(member)
            return
        head = self._head(member)
        if is_program(head, self.limits):
            self.note("nested-pickle", _HIDDEN, member.name, member.header_offset)
            self.program(member)
        elif is_compiled(member.name, head):
            self.code.append(Code(member.name, "native", ""))
        elif member.size and self.parts.recognises(MemoryBlob(head, member.name)):
            self.nest(member)
        self._known.add(member.index)

    def _head(self, member: ZipMember) -> bytes:
        """The member's first megabyte, after its checksum was compared; all of it if packed.

        All of it, too, when the first megabyte goes on like a pickle: nothing says how long a
        program may be before it does something.
        """
        if member.method != 0 or member.size <= _CHUNK:
            return self.unpack(member)
        if not self.inner(member).startswith("data/"):
            # A storage that no tensor names is one all the same: its bytes are no loader's program.
            self._checksum(member)
        start = self.archive.data_offset(member)
        head = self.archive.blob.read(start, _CHUNK)
        return self.unpack(member) if goes_on(head, self.limits) else head

    def _look_into_storage(self, member: ZipMember) -> None:
        try:
            self.archive.check_local(member)
            self._checksum(member)
            self._hidden_pickle(member)
        except TensorkeepError as error:
            self.unreadable.append((member.name, error))

    def _crc(self, member: ZipMember) -> tuple[str, str]:
        self._charge(member)
        return crc_of(self.archive, member, self.limits)

    def _checksum(self, member: ZipMember) -> None:
        expected, got = self._crc(member)
        if expected != got:
            label = self._stored.get(member.index)
            about = f"storage {label!r}" if label is not None else "the member"
            what = f"{about} has checksum {got}, its directory says {expected}"
            self.note("bad-checksum", what, member.name, member.header_offset)

    def _hidden_pickle(self, member: ZipMember) -> None:
        """A storage that begins with a whole pickle which imports something."""
        head = self._first(member)
        if len(head) >= 4 and head[0] == 0x80 and is_program(head, self.limits):
            what = "a storage that begins with a pickle"
            self.note("pickle-in-storage", what, member.name, self.archive.data_offset(member))
            self.programs.append((member.name, run(head, limits=self.limits, where=member.name)))

    def _first(self, member: ZipMember) -> bytes:
        """The first megabyte of a member, unpacked."""
        head = bytearray()
        for piece in self.archive.pieces(member, self.limits):
            head += piece
            if len(head) >= _CHUNK:
                break
        return bytes(head[:_CHUNK])

    def verify(self) -> Iterator[tuple[str, str, str, str]]:
        """Member, storage, checksum promised, checksum found."""
        self._budget = self._room
        for member in self.archive.members:
            try:
                expected, got = self._crc(member)
            except Damaged as error:
                expected, got = error.expected, error.got or str(error)
            yield member.name, self._stored.get(member.index, ""), expected, got


def goes_on(head: bytes, limits: Limits) -> bool:
    """Whether the first megabyte of a file may be that of a pickle: nothing else is so long one."""
    program = run(head, limits=limits)
    return program.error is not None and program.end > len(head) // 2


def is_program(head: bytes, limits: Limits) -> bool:
    """Whether these bytes are a pickle that imports something.

    Any text with a "c" in front begins like one: without a protocol it must go on like one too.
    """
    program = run(head, limits=limits)
    if not any(isinstance(event, Import) for event in program.trace):
        return False
    called = any(isinstance(event, Call) for event in program.trace)
    return head[0] == 0x80 or program.error is None or called


def crc_of(archive: ZipArchive, member: ZipMember, limits: Limits) -> tuple[str, str]:
    """The checksum that the directory gives for a member, and the one its bytes have.

    Two empty texts where it carries none: torch can be told to write none.
    """
    if not archive.has_checksum(member):
        return "", ""
    crc = 0
    for piece in archive.pieces(member, limits):
        crc = zlib.crc32(piece, crc)
    return f"crc32:{member.crc32:08x}", f"crc32:{crc:08x}"
