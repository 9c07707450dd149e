"""The storages of torch's formats without a directory: each lies behind the one before it.

Source: `persistent_load` in `_legacy_load` (`torch/serialization.py`, 2.13) and `THPStorage_
writeFileRaw` (`torch/csrc/serialization.cpp`): eight bytes, the number of elements, then the
elements, all little-endian whatever machine wrote them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tensorkeep.dtypes import DType
from tensorkeep.errors import Damaged
from tensorkeep.facts import Anomaly
from tensorkeep.formats._tensors import storage_dtype
from tensorkeep.formats.contents import Storage
from tensorkeep.pickles import Global, Persistent
from tensorkeep.stores import Blob

_HUGE = 1 << 62
_COUNT = 8


@dataclass(slots=True)
class _Root:
    """A storage as the first persistent id of its key describes it."""

    dtype: DType | None
    numel: int
    device: str
    offset: int | None = None

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize if self.dtype else 1

    @property
    def nbytes(self) -> int:
        return 0 if self.device == "meta" else self.numel * self.itemsize


def container_class(pid: object) -> object:
    """The class in ("module", class, source file, source): torch gives the class back."""
    if not isinstance(pid, tuple) or len(pid) != 4 or pid[0] not in ("module", b"module"):
        return None
    known, *source = pid[1:]
    plain = all(text is None or type(text) in (str, bytes) for text in source)
    return known if isinstance(known, Global) and plain else None


class LegacyStorages:
    """The storages that a program names, in the order in which torch meets them."""

    def __init__(self, blob: Blob) -> None:
        self.blob = blob
        self.by_key: dict[str, Storage] = {}
        self.anomalies: list[Anomaly] = []
        self._roots: dict[str, _Root] = {}
        self._found: dict[int, tuple[str, DType | None]] = {}
        self._views: dict[str, tuple[str, int, int]] = {}

    def of(self, persistent: Persistent) -> tuple[Storage, DType | None] | None:
        """The storage that a persistent id stands for, and the type of its elements."""
        known = self._found.get(id(persistent))
        storage = self.by_key.get(known[0]) if known else None
        return (storage, known[1]) if known and storage is not None else None

    def register(self, persistents: list[Persistent]) -> None:
        """In the order in which they are loaded: torch keeps the first of each key."""
        for persistent in persistents:
            self._register(persistent)

    def _register(self, persistent: Persistent) -> None:
        pid = persistent.pid
        if not isinstance(pid, tuple) or len(pid) != 6 or pid[0] not in ("storage", b"storage"):
            self._odd("persistent-id", "a persistent id that is no storage of torch's", persistent)
            return
        _, target, key, location, numel, view = pid
        known, dtype = storage_dtype(target)
        text = type(key) is str and isinstance(location, str | bytes)
        if not known or not text or type(numel) is not int or not 0 <= numel < _HUGE:
            self._odd("persistent-id", "a storage whose description is not torch's", persistent)
            return
        place = location.decode("ascii", "replace") if type(location) is bytes else str(location)
        root = self._roots.setdefault(key, _Root(dtype, numel, place))
        if root.dtype is not dtype or root.numel != numel:
            what = f"storage {key!r} is described in two ways"
            self._odd("storage-described-twice", what, persistent)
        self._found[id(persistent)] = (key, root.dtype)
        if view is not None:
            self._view(persistent, key, root, view)

    def _view(self, persistent: Persistent, key: str, root: _Root, view: object) -> None:
        if not isinstance(view, tuple) or len(view) != 3 or type(view[0]) is not str:
            self._odd("persistent-id", "a view that is not torch's", persistent)
            return
        name, offset, length = view
        if type(offset) is not int or type(length) is not int or min(offset, length) < 0:
            self._odd("negative-offset", f"view {name!r} of storage {key!r}", persistent)
            return
        if offset + length > root.numel:
            what = f"view {name!r} reaches element {offset + length} of {root.numel}"
            self._odd("storage-out-of-bounds", what, persistent)
            return
        if name in self._roots or self._views.setdefault(name, (key, offset, length)) != (
            key,
            offset,
            length,
        ):
            what = f"view {name!r} is described in two ways"
            self._odd("storage-described-twice", what, persistent)
        self._found[id(persistent)] = (name, root.dtype)

    def place(self, keys: object, start: int) -> int:
        """Walk the storages that begin at byte `start`, in the order of `keys`; where they end.

        Raises `Damaged` where torch would: a key that no tensor has, a count that is another.
        """
        if not isinstance(keys, list) or any(type(key) is not str for key in keys):
            raise Damaged(self.blob.name, expected="a list of storage keys", got="something else")
        if len(set(keys)) < len(keys):
            what = "a storage key is listed twice: the later bytes replace the earlier"
            self.anomalies.append(Anomaly("storage-described-twice", what, "", start))
        for key in keys:
            start = self._place(key, start)
        self._fill()
        return start

    def _place(self, key: str, start: int) -> int:
        root = self._roots.get(key)
        if root is None:
            raise Damaged(
                self.blob.name, expected="keys of the storages in the pickle", got=repr(key[:80])
            )
        room = self.blob.size - start - _COUNT
        if room < 0:
            raise self._short(key, start)
        (count,) = struct.unpack("<q", self.blob.read(start, _COUNT))
        length: int = count * root.itemsize
        if count != root.numel and not (count == 0 and root.device == "meta"):
            raise Damaged(
                self.blob.name,
                expected=f"{root.numel} elements, as its pickle says",
                got=f"{count}",
                where=f"storage {key[:80]}, byte {start}",
            )
        if length > room:
            raise self._short(key, start)
        root.offset = start + _COUNT
        return root.offset + length

    def _short(self, key: str, start: int) -> Damaged:
        where = f"storage {key[:80]}, byte {start}"
        size = self.blob.size
        return Damaged(
            self.blob.name, expected="a storage", got=f"{size} bytes in all", where=where
        )

    def _fill(self) -> None:
        """Make the storages that tensors name; a root that only views name is theirs."""
        named = {key for key, _ in self._found.values()}
        for key, root in self._roots.items():
            if key in named and key not in self._views:
                self.by_key[key] = self._storage(key, root, 0, root.nbytes)
        for name, (key, offset, length) in self._views.items():
            root = self._roots[key]
            self.by_key[name] = self._storage(
                name, root, offset * root.itemsize, length * root.itemsize
            )

    def _storage(self, key: str, root: _Root, start: int, nbytes: int) -> Storage:
        if root.offset is None and nbytes:
            what = f"storage {key!r} is named and not in the file"
            self.anomalies.append(Anomaly("storage-missing", what))
            nbytes = 0
        return Storage(
            key, nbytes, self.blob, offset=(root.offset or 0) + start, device=root.device
        )

    def _odd(self, kind: str, what: str, persistent: Persistent) -> None:
        self.anomalies.append(Anomaly(kind, what, "", persistent.offset))
