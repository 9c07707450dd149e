"""What torch wrote before version 0.1.10: a tar archive of pickles with raw numbers between them.

Three members, read in this order: `storages` (a count; for each storage a pickle of its key,
place and type, then eight bytes of count and its elements; then the views), `tensors` (a count;
for each tensor a pickle of its key, its storage and its type, then dimensions, sizes, strides and
offset), `pickle` (the object, in which numbers stand for tensors). Each of those pickles is a
program. Source: `legacy_load` in `torch/serialization.py` (2.13), which reads it with tarfile.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tensorkeep.archives import tar
from tensorkeep.archives.tar import TarArchive
from tensorkeep.dtypes import DType
from tensorkeep.errors import Damaged, NotACheckpoint, ReadError, TensorkeepError, Unsupported
from tensorkeep.facts import Anomaly, Limits
from tensorkeep.formats import _hidden, _nested
from tensorkeep.formats._arrays import KnownFirst
from tensorkeep.formats._programs import Stream, imports
from tensorkeep.formats._tensors import Interpreter, _bounds, storage_dtype
from tensorkeep.formats.contents import Contents, Inert, Parts, Storage, TensorRecord, sizes
from tensorkeep.pickles import Global, Persistent, Program
from tensorkeep.stores import Blob
from tensorkeep.stores.slices import SliceBlob

NAME = "torch_tar"
SUFFIXES: tuple[str, ...] = (".pth", ".pt", ".t7")
_MEMBERS = ("storages", "tensors", "pickle")
_WINDOW = 1 << 10
_MOST_DIMENSIONS = 64
_LONGEST = 1 << 62


def identify(blob: Blob, head: bytes) -> bool:
    """Whether this is a tar archive with the members that torch's loader asks for.

    The loader has run the first of them, `storages`, before it misses one of the others: a member
    of that name that begins with a pickle makes the archive torch's as well.
    """
    if not tar.is_tar(head):
        return False
    try:
        archive = tar.read_directory(blob, Limits())
    except ReadError:
        return False
    if all(archive.locate(name) is not None for name in _MEMBERS):
        return True
    first = archive.locate(_MEMBERS[0])
    if first is None or first.kind != "file":
        return False
    program = Stream(archive.open(first), Limits(), _WINDOW).run(0)
    return not isinstance(program.error, Damaged) or imports(program)


def read(blob: Blob, limits: Limits, parts: Parts) -> Contents:
    """The checkpoint in `blob`, without its tensor bytes."""
    archive = tar.read_directory(blob, limits)
    table = _Table(archive, limits)
    error: ReadError | None = None
    # What stops one part must not hide the programs of the next.
    for part in (table.read_storages, table.read_tensors, table.read_object):
        try:
            part()
        except ReadError as found:
            error = error or found
    anomalies = archive.anomalies
    files: dict[bytes, Contents] = {}
    nested, unreadable = _nested.collect(table.programs, parts, anomalies, files)
    contents = Contents(
        format=NAME,
        container="tar",
        root=table.main.value,
        lens=KnownFirst(table.tensors, Interpreter(table.main, table.of, anomalies, files)),
        storages=table.storages,
        programs=table.programs,
        anomalies=anomalies,
        error=error,
        nested=nested,
        unreadable=unreadable + table.unreadable,
    )
    _others(archive, parts, contents)
    return contents


def _others(archive: TarArchive, parts: Parts, contents: Contents) -> None:
    """Members that the loader does not ask for, where they are files that another would load."""
    for member in archive.members:
        if member.kind != "file" or archive.locate(member.name) is not member:
            continue
        if member.name in _MEMBERS or not member.size:
            continue
        inside = archive.open(member)
        try:
            if parts.recognises(inside):
                contents.nested.append((member.name, parts.examine(inside)))
        except NotACheckpoint:
            continue
        except ReadError as error:
            contents.unreadable.append((member.name, error))


@dataclass(slots=True)
class _Member:
    """A member on its way: its bytes, and how many of them were read."""

    name: str
    blob: SliceBlob
    at: int = 0

    def take(self, length: int) -> bytes:
        """The next bytes. Raises `Damaged` if there are fewer."""
        if length > self.blob.size - self.at:
            raise Damaged(
                self.name,
                expected=f"{length} bytes at byte {self.at}",
                got=f"{self.blob.size} in all",
            )
        self.at += length
        return self.blob.read(self.at - length, length)


@dataclass(slots=True)
class _Table:
    """Storages and tensors by the keys that the pickle has for them."""

    archive: TarArchive
    limits: Limits
    programs: list[tuple[str, Program]] = field(default_factory=list)
    storages: dict[str, Storage] = field(default_factory=dict)
    main: Program = field(default_factory=lambda: Program(0))
    unreadable: list[tuple[str, TensorkeepError]] = field(default_factory=list)
    _dtypes: dict[str, DType] = field(default_factory=dict)
    _tensors: dict[str, object] = field(default_factory=dict)
    _nodes: dict[str, Persistent] = field(default_factory=dict)
    _keys: dict[int, str] = field(default_factory=dict)

    def of(self, persistent: Persistent) -> tuple[Storage, DType | None] | None:
        """The storage that a persistent id stands for."""
        key = self._keys.get(id(persistent), "")
        storage = self.storages.get(key)
        return None if storage is None else (storage, self._dtypes[key])

    @property
    def tensors(self) -> dict[int, object]:
        """The tensors that persistent ids stand for, by the ids' nodes."""
        return {
            node: self._tensors[key] for node, key in self._keys.items() if key in self._tensors
        }

    def _member(self, name: str) -> _Member:
        member = self.archive.locate(name)
        if member is None:
            raise Damaged(
                self.archive.blob.name,
                expected=f"members {', '.join(_MEMBERS)}, as torch before 0.1.10 wrote them",
                got=f"no member {name}",
            )
        if member.kind != "file":
            raise Unsupported(self.archive.blob.name, expected=f"a file {name}", got=member.kind)
        return _Member(name, self.archive.open(member))

    def _value(self, member: _Member) -> object:
        """Run the pickle that comes next in `member`."""
        where = f"{member.name}, byte {member.at}" if member.at else member.name
        rest = SliceBlob(member.blob, member.at, member.blob.size - member.at, where)
        program = Stream(rest, self.limits, _WINDOW).run(0, where)
        self.programs.append((where, program))
        if program.error is not None:
            raise program.error
        member.at += max(program.end, program.frame_end)
        return program.value

    def _count(self, member: _Member) -> int:
        count = self._value(member)
        if type(count) is not int or count < 0:
            raise self._other(member, "a count", count)
        return count

    def read_storages(self) -> None:
        """The member `storages`. Raises `ReadError`."""
        member = self._member("storages")
        for _ in range(self._count(member)):
            self._storage(member)
        views = self._value(member)
        if not isinstance(views, list | tuple):
            raise self._other(member, "a list of views", views)
        for view in views:
            self._view(member, view)

    def _storage(self, member: _Member) -> None:
        args = self._value(member)
        key, location, target = args if isinstance(args, tuple) and len(args) == 3 else (0, 0, 0)
        known, dtype = storage_dtype(target)
        name = _key(key)
        if not known or dtype is None or name is None or not isinstance(location, str | bytes):
            raise self._other(member, "a storage's key, place and type", args)
        (count,) = struct.unpack("<q", member.take(8))
        if not 0 <= count * dtype.itemsize <= member.blob.size - member.at:
            raise Damaged(
                "storages",
                expected=f"{count} elements of {dtype.name}",
                got=f"{member.blob.size - member.at} bytes",
                where=f"byte {member.at}",
            )
        self._twice(name, "storages")
        nbytes = count * dtype.itemsize
        self.storages[name] = Storage(name, nbytes, member.blob, offset=member.at)
        self._dtypes[name] = dtype
        member.at += nbytes

    def _view(self, member: _Member, view: object) -> None:
        if not isinstance(view, tuple | list) or len(view) != 4:
            raise self._other(member, "a view of a storage", view)
        name, root = _key(view[0]), _key(view[1])
        if name is None or root not in self.storages or not sizes(tuple(view[2:])):
            raise self._other(member, "a view of a storage that is there", view)
        base, dtype = self.storages[root], self._dtypes[root]
        start, length = view[2] * dtype.itemsize, view[3] * dtype.itemsize
        if min(start, length) < 0 or start + length > base.nbytes:
            raise self._other(member, "a view inside its storage", view)
        self._twice(name, "storages")
        self.storages[name] = Storage(name, length, base.blob, offset=base.offset + start)
        self._dtypes[name] = dtype

    def _twice(self, name: str, where: str) -> None:
        if name in self.storages or name in self._tensors:
            what = f"the key {name} is given twice: the later one holds"
            self.archive.anomalies.append(Anomaly("storage-described-twice", what, where))

    def read_tensors(self) -> None:
        """The member `tensors`. Raises `ReadError`."""
        member = self._member("tensors")
        for _ in range(self._count(member)):
            args = self._value(member)
            key, root, _ = args if isinstance(args, tuple) and len(args) == 3 else (None,) * 3
            name, storage = _key(key), _key(root)
            if name is None or storage not in self.storages:
                raise self._other(member, "a tensor's key, storage and type", args)
            self._twice(name, "tensors")
            self._tensors[name] = self._tensor(member, storage)

    def _tensor(self, member: _Member, storage: str) -> object:
        (dims,) = struct.unpack("<i4x", member.take(8))
        if not 0 <= dims <= _MOST_DIMENSIONS:
            raise self._other(member, f"at most {_MOST_DIMENSIONS} dimensions", dims)
        shape = struct.unpack(f"<{dims}q", member.take(8 * dims))
        stride = struct.unpack(f"<{dims}q", member.take(8 * dims))
        (offset,) = struct.unpack("<q", member.take(8))
        record = TensorRecord(self._dtypes[storage], shape, stride, offset, self.storages[storage])
        kind, record.problem = _bounds(record, 1)
        if kind:
            what = f"a tensor {record.problem}"
            where = f"tensors, byte {member.at}"
            self.archive.anomalies.append(Anomaly(kind, what, where))
        if min((offset, *shape, *stride)) < 0:
            return Inert(f"tensor that {record.problem}", unread="tensor")
        return record

    def read_object(self) -> None:
        """The member `pickle`. Raises `ReadError`."""
        member = self._member("pickle")
        self.main = Stream(member.blob, self.limits).run(0, "pickle", resolve=self._resolve)
        self.programs.append(("pickle", self.main))
        if self.main.error is not None:
            raise self.main.error
        rest = member.blob.size - self.main.end
        if rest:
            what = f"{rest} bytes follow the pickle's end"
            self.archive.anomalies.append(
                Anomaly("bytes-after-pickle", what, "pickle", self.main.end)
            )
            behind = _hidden.behind(member.blob, self.main.end, self.limits, "pickle")
            self.programs += behind.programs
            self.archive.anomalies.extend(behind.anomalies)
            self.unreadable += behind.unreadable

    def _resolve(self, pid: object) -> object:
        """What the loader gives for a persistent id: a tensor, a storage, or a class."""
        if isinstance(pid, tuple):
            plain = all(text is None or isinstance(text, str | bytes) for text in pid[1:])
            return pid[0] if len(pid) == 3 and isinstance(pid[0], Global) and plain else None
        key = _key(pid)
        if key is None or (key not in self.storages and key not in self._tensors):
            return None
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = Persistent(pid, 0)
            self._keys[id(node)] = key
        return node

    def _other(self, member: _Member, expected: str, got: object) -> Damaged:
        del got  # it may be of any size and depth
        where = f"byte {member.at}"
        return Damaged(member.name, expected=expected, got="something else", where=where)


def _key(value: object) -> str | None:
    """A key as torch compares it: `int(value)`."""
    if type(value) is int:
        return str(value) if abs(value) < _LONGEST else None
    if type(value) is str and value.isascii() and value.isdigit() and len(value) < 20:
        return str(int(value))
    return None
