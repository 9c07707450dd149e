"""The storages that a pickle names, found among the members of a zip as torch finds them."""

from __future__ import annotations

from functools import partial

from tensorkeep.archives.zip import ZipArchive, ZipMember
from tensorkeep.dtypes import DType
from tensorkeep.errors import Damaged, Unsupported
from tensorkeep.facts import Anomaly
from tensorkeep.formats._tensors import storage_dtype
from tensorkeep.formats.contents import Storage
from tensorkeep.pickles import Persistent

_HUGE = 1 << 62
_TEXT = (str, bytes)


class Storages:
    """The storages of one pickle: `root/PLACE`, with the key in the place of its braces.

    `label` makes the key by which the checkpoint knows a storage: several pickles of one archive
    may number theirs alike. `swapped` says that the bytes are big-endian. `numbered`: keys are
    integers, as torch.package writes them. `hollow`: members may be empty, as those of traced
    inputs are: such a storage is of the device "hollow". `reductions`: ids that make
    torch.package call a function are no storages, and no mistake either. `where` is the pickle,
    for what is odd about it.
    """

    def __init__(
        self,
        archive: ZipArchive,
        *,
        swapped: bool,
        place: str = "data/{}",
        label: str = "{}",
        where: str = "data.pkl",
        numbered: bool = False,
        hollow: bool = False,
        reductions: bool = False,
    ) -> None:
        self.archive = archive
        self.by_key: dict[str, Storage] = {}
        self.members: dict[str, ZipMember] = {}
        self._swapped = swapped
        # The key stands where the last braces are: names in the file may have some, too.
        self._place = f"{archive.root}/{place}".rsplit("{}", 1)
        self._label = label.rsplit("{}", 1)
        self._where = where
        self._numbered = numbered
        self._hollow = hollow
        self._reductions = reductions
        self._dtypes: dict[str, DType | None] = {}
        self._found: dict[int, tuple[Storage, DType | None]] = {}

    def of(self, persistent: Persistent) -> tuple[Storage, DType | None] | None:
        """The storage that a persistent id names and the dtype of its elements."""
        return self._found.get(id(persistent))

    def register(self, persistents: list[Persistent]) -> None:
        """In the order in which they are loaded: torch keeps the first of each key."""
        for persistent in persistents:
            self._register(persistent)

    def _register(self, persistent: Persistent) -> None:
        pid = persistent.pid
        if self._reductions and isinstance(pid, tuple) and pid and pid[0] == "reduce_package":
            return
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
            self._odd("persistent-id", "a persistent id that is no storage of torch's", persistent)
            return
        _, target, key, location, numel = pid
        known, dtype = storage_dtype(target)
        if not isinstance(location, _TEXT):
            self._odd("persistent-id", "a storage whose device is no text", persistent)
            return
        if self._numbered and type(key) is int and 0 <= key < _HUGE:
            key = str(key)
        if not known or type(key) is not str or type(numel) is not int or not 0 <= numel < _HUGE:
            self._odd("persistent-id", "a storage whose description is not torch's", persistent)
            return
        if not key.isascii() or "/" in key or "\\" in key:
            self._odd("storage-key-traversal", f"storage key {key!r}", persistent)
            return
        label = key.join(self._label)
        if label in self.by_key:
            self._again(persistent, label, dtype, numel)
        else:
            self._new(persistent, key, label, dtype, numel, str(location))
        self._found[id(persistent)] = self.by_key[label], self._dtypes[label]

    def _again(self, persistent: Persistent, label: str, dtype: DType | None, numel: int) -> None:
        length = numel * (dtype.itemsize if dtype else 1)
        if dtype is not self._dtypes[label] or length != self.by_key[label].nbytes:
            self._odd("storage-described-twice", f"storage {label!r} with two types", persistent)

    def _new(
        self,
        persistent: Persistent,
        key: str,
        label: str,
        dtype: DType | None,
        numel: int,
        location: str,
    ) -> None:
        width = dtype.itemsize if dtype else 1
        nbytes = numel * width
        member = self.archive.locate(key.join(self._place))
        self._dtypes[label] = dtype
        if location == "meta":
            # A loader that maps it to another device takes the record, if there is one.
            if member is not None and member.size < nbytes:
                what = f"meta storage {key!r} of {nbytes} bytes in a member of {member.size}"
                self._odd("numel-larger-than-record", what, persistent)
            nbytes = 0
        elif member is None:
            self._odd("storage-missing", f"storage {key!r} is not in the archive", persistent)
            nbytes = 0
        elif self._hollow and member.size == 0:
            location = "hollow"
        elif member.size < nbytes:
            what = f"storage {key!r} of {nbytes} bytes in a member of {member.size}"
            self._odd("numel-larger-than-record", what, persistent)
            nbytes = member.size
        if member is not None:
            self.members[label] = member
        self.by_key[label] = Storage(
            label,
            nbytes,
            self.archive.blob,
            # No method of this table: it would be a cycle of all storages, and be freed late.
            locate=partial(_begin, self.archive, member, label),
            swapped=width if self._swapped else 0,
            device=location,
        )

    def _odd(self, kind: str, what: str, persistent: Persistent) -> None:
        self.archive.anomalies.append(Anomaly(kind, what, self._where, persistent.offset))


def _begin(archive: ZipArchive, member: ZipMember | None, label: str) -> int:
    if member is None:
        raise Damaged(archive.blob.name, expected=f"a storage {label}", got="none")
    return stored_at(archive, member)


def stored_at(archive: ZipArchive, member: ZipMember) -> int:
    """Where the bytes of an uncompressed member begin. Raises `Unsupported` for packed ones."""
    if member.method != 0:
        raise Unsupported(
            archive.blob.name,
            expected="storages that lie uncompressed, as torch writes them",
            got=f"compression method {member.method}",
            where=member.name,
            remedy="Unpack the archive and pack it again without compression (zip -0).",
        )
    return archive.data_offset(member)
