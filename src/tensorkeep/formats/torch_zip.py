"""What `torch.save` has written since torch 1.6: a zip with a pickle and one member per storage.

Source: `torch/serialization.py` (`_save`, `_load`) and `caffe2/serialize` of torch 2.13.
Members lie under one root folder of any name: `data.pkl`, `data/KEY` for each storage,
`byteorder`, `version`, and since torch 2.6 `.format_version` and `.storage_alignment`.
"""

from __future__ import annotations

from collections.abc import Iterator

from tensorkeep.archives.zip import ZipArchive, ZipMember, read_directory
from tensorkeep.dtypes import DType
from tensorkeep.errors import Damaged, Unsupported
from tensorkeep.facts import Anomaly, Limits
from tensorkeep.formats._tensors import Interpreter, storage_dtype
from tensorkeep.formats.contents import Contents, Parts, Storage
from tensorkeep.pickles import Call, Import, Persistent, Program, run
from tensorkeep.stores import Blob

NAME = "torch_zip"
SUFFIXES: tuple[str, ...] = (".pth", ".pt", ".bin", ".ckpt")
_HUGE = 1 << 62
_SMALL_RECORDS = ("byteorder", "version", ".format_version", ".storage_alignment")
_CHUNK = 1 << 20


def identify(blob: Blob, head: bytes) -> bool:
    """Whether this is a zip archive at all; which kind is seen when it is read."""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def read(blob: Blob, limits: Limits, parts: Parts) -> Contents:
    """The checkpoint in `blob`, without its tensor bytes.

    Raises `Damaged`, `LimitExceeded`, and `Unsupported` for zips that torch writes in other
    ways (TorchScript, packages, exported programs).
    """
    archive = read_directory(blob, limits)
    _refuse_other_zips(archive, blob)
    facts = _facts(archive, limits)
    member = _record(archive, "data.pkl")
    if member is None:
        raise Unsupported(
            blob.name, expected="a data.pkl, as torch.save writes", got="a zip without one"
        )
    where = member.name
    data = archive.read(member, limits)
    program = run(data, limits=limits, where=where)
    if program.error is None and program.end < len(data):
        what = f"{len(data) - program.end} bytes follow the pickle's end"
        archive.anomalies.append(Anomaly("bytes-after-pickle", what, where, program.end))
    return _contents(archive, program, facts, limits, where)


def _contents(
    archive: ZipArchive, program: Program, facts: dict[str, str], limits: Limits, where: str
) -> Contents:
    table = _Storages(archive, swapped=facts.get("byteorder") == "big")
    table.register(program.persistents)
    return Contents(
        format=NAME,
        container="zip",
        root=program.value,
        lens=Interpreter(program, table.of, archive.anomalies),
        storages=table.by_key,
        facts=facts,
        programs=[(where, program)],
        anomalies=archive.anomalies,
        audit=lambda deep: _audit(archive, table, limits, deep),
        verify=lambda: _verify(archive, table),
        digests=table.checksums,
        error=program.error,
    )


def _refuse_other_zips(archive: ZipArchive, blob: Blob) -> None:
    names = {member.name.partition("/")[2] for member in archive.members}
    others = {
        "constants.pkl": "a TorchScript archive",
        ".data/extern_modules": "a torch.package archive",
        "archive_format": "an exported program (.pt2)",
    }
    for name, kind in others.items():
        if name in names:
            raise Unsupported(
                blob.name,
                expected="weights as torch.save writes them",
                got=kind,
                remedy="This version does not read it yet; nothing in it was run.",
            )


def _record(archive: ZipArchive, name: str) -> ZipMember | None:
    return archive.locate(f"{archive.root}/{name}") if archive.root is not None else None


def _facts(archive: ZipArchive, limits: Limits) -> dict[str, str]:
    facts = {"root": archive.root or ""}
    for name in _SMALL_RECORDS:
        member = _record(archive, name)
        if member is not None and member.size <= 64:
            facts[name] = archive.read(member, limits).decode("ascii", "replace").strip()
    order = facts.get("byteorder", "little")
    if order not in ("little", "big"):
        raise Damaged(archive.blob.name, expected='"little" or "big" in byteorder', got=repr(order))
    return facts


class _Storages:
    """The storages that a program names, each found as torch finds it: `root/data/KEY`."""

    def __init__(self, archive: ZipArchive, *, swapped: bool) -> None:
        self.archive = archive
        self.swapped = swapped
        self.by_key: dict[str, Storage] = {}
        self.members: dict[str, ZipMember] = {}
        self._dtypes: dict[str, DType | None] = {}
        self._keys: dict[int, str] = {}

    @property
    def checksums(self) -> bool:
        """Whether torch wrote checksums; `set_crc32_options(False)` leaves them zero."""
        archive = self.archive
        return any(archive.has_checksum(member) for member in archive.members if member.size)

    def of(self, persistent: Persistent) -> tuple[Storage, DType | None] | None:
        key = self._keys.get(id(persistent))
        return None if key is None else (self.by_key[key], self._dtypes[key])

    def register(self, persistents: list[Persistent]) -> None:
        """In the order in which they are loaded: torch keeps the first of each key."""
        for persistent in persistents:
            self._register(persistent)

    def _register(self, persistent: Persistent) -> None:
        pid = persistent.pid
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
            self._odd("persistent-id", "a persistent id that is no storage of torch's", persistent)
            return
        _, target, key, location, numel = pid
        known, dtype = storage_dtype(target)
        if not isinstance(location, str | bytes):
            self._odd("persistent-id", "a storage whose device is no text", persistent)
            return
        if not known or type(key) is not str or type(numel) is not int or not 0 <= numel < _HUGE:
            self._odd("persistent-id", "a storage whose description is not torch's", persistent)
            return
        if not key.isascii() or "/" in key or "\\" in key:
            self._odd("storage-key-traversal", f"storage key {key!r}", persistent)
            return
        if key in self.by_key:
            self._again(persistent, key, dtype, numel)
        else:
            self._new(persistent, key, dtype, numel, str(location))
        self._keys[id(persistent)] = key

    def _again(self, persistent: Persistent, key: str, dtype: DType | None, numel: int) -> None:
        length = numel * (dtype.itemsize if dtype else 1)
        if dtype is not self._dtypes[key] or length != self.by_key[key].nbytes:
            self._odd("storage-described-twice", f"storage {key!r} with two types", persistent)

    def _new(
        self, persistent: Persistent, key: str, dtype: DType | None, numel: int, location: str
    ) -> None:
        archive = self.archive
        nbytes = numel * (dtype.itemsize if dtype else 1)
        member = archive.locate(f"{archive.root}/data/{key}")
        self._dtypes[key] = dtype
        if location == "meta":
            nbytes = 0
        elif member is None:
            self._odd("storage-missing", f"storage {key!r} is not in the archive", persistent)
            nbytes = 0
        elif member.size < nbytes:
            what = f"storage {key!r} of {nbytes} bytes in a member of {member.size}"
            self._odd("numel-larger-than-record", what, persistent)
            nbytes = member.size
        if member is not None:
            self.members[key] = member
        self.by_key[key] = Storage(
            key,
            nbytes,
            archive.blob,
            locate=lambda: self._offset(key),
            swapped=(dtype.itemsize if dtype else 1) if self.swapped else 0,
            device=location,
        )

    def _offset(self, key: str) -> int:
        member = self.members.get(key)
        if member is None:
            raise Damaged(self.archive.blob.name, expected=f"a member data/{key}", got="none")
        if member.method != 0:
            raise Unsupported(
                self.archive.blob.name,
                expected="storages that lie uncompressed, as torch writes them",
                got=f"compression method {member.method}",
                where=member.name,
                remedy="Unpack the archive and pack it again without compression (zip -0).",
            )
        return self.archive.data_offset(member)

    def _odd(self, kind: str, what: str, persistent: Persistent) -> None:
        self.archive.anomalies.append(Anomaly(kind, what, "data.pkl", persistent.offset))


def _audit(archive: ZipArchive, table: _Storages, limits: Limits, deep: bool) -> Iterator[Anomaly]:
    """Headers and checksums of every member that is no storage; with `deep`, of storages too.

    Yields all that is odd about the archive so far, what was known before included.
    """
    storages = {member.index for member in table.members.values()}
    main = _record(archive, "data.pkl")
    for member in archive.members:
        if member.index not in storages:
            archive.check_local(member)
            data = archive.read(member, limits)
            if member is not main and _is_program(data[:_CHUNK], limits):
                what = "a pickle that torch.load does not read"
                yield Anomaly("nested-pickle", what, member.name, member.header_offset)
    if deep:
        for key, member in table.members.items():
            archive.check_local(member)
            yield from _checksum(archive, member, key)
            yield from _hidden_pickle(archive, member, limits)
    yield from archive.anomalies


def _checksum(archive: ZipArchive, member: ZipMember, key: str) -> Iterator[Anomaly]:
    expected, got = crc_of(archive, member)
    if expected != got:
        what = f"storage {key!r} has checksum {got}, its directory says {expected}"
        yield Anomaly("bad-checksum", what, member.name, member.header_offset)


def _is_program(head: bytes, limits: Limits) -> bool:
    """Whether these bytes are a pickle that imports something.

    Any text with a "c" in front begins like one: without a protocol it must go on like one too.
    """
    program = run(head, limits=limits)
    if not any(isinstance(event, Import) for event in program.trace):
        return False
    called = any(isinstance(event, Call) for event in program.trace)
    return head[0] == 0x80 or program.error is None or called


def _hidden_pickle(archive: ZipArchive, member: ZipMember, limits: Limits) -> Iterator[Anomaly]:
    """A storage that begins with a whole pickle which imports something."""
    if member.size < 4 or member.method != 0:
        return
    start = archive.data_offset(member)
    head = archive.blob.read(start, min(member.size, _CHUNK))
    if head[0] == 0x80 and _is_program(head, limits):
        what = "a storage that begins with a pickle"
        yield Anomaly("pickle-in-storage", what, member.name, start)


def crc_of(archive: ZipArchive, member: ZipMember) -> tuple[str, str]:
    """The checksum that the directory gives for a stored member, and the one its bytes have.

    Two empty texts where it carries none: torch can be told to write none.
    """
    import zlib

    if member.method != 0 or not archive.has_checksum(member):
        return "", ""
    start, crc = archive.data_offset(member), 0
    buffer = memoryview(bytearray(min(_CHUNK, max(member.size, 1))))
    for at in range(0, member.size, _CHUNK):
        piece = buffer[: min(_CHUNK, member.size - at)]
        archive.blob.read_into(start + at, piece)
        crc = zlib.crc32(piece, crc)
    return f"crc32:{member.crc32:08x}", f"crc32:{crc:08x}"


def _verify(archive: ZipArchive, table: _Storages) -> Iterator[tuple[str, str, str, str]]:
    for member in archive.members:
        if member.method == 0:
            expected, got = crc_of(archive, member)
            yield member.name, _key_of(member, table), expected, got


def _key_of(member: ZipMember, table: _Storages) -> str:
    prefix = f"{table.archive.root}/data/"
    return member.name.removeprefix(prefix) if member.name.startswith(prefix) else ""
