"""A torch.distributed.checkpoint folder: one `.metadata`, and the files of every rank, as one.

Source: torch 2.13 `torch/distributed/checkpoint` (`filesystem.py`, `default_planner.py`). Items
lie one after the other in `__RANK_NUMBER.distcp`: a chunk of a tensor or any other value, each a
file as `torch.save` writes it; `SerializationFormat.SAFETENSORS` puts all tensors of a file
into one safetensors behind them. `dcp.load` runs `.metadata` and every value without restriction.

Opening reads `.metadata` and the values, while they are few; of a tensor nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod

from tensorkeep.errors import Damaged, LimitExceeded, ReadError, Unsupported
from tensorkeep.facts import Anomaly, Limits
from tensorkeep.formats._chunks import Chunk, Chunked
from tensorkeep.formats._dcp_items import Items, spans_of
from tensorkeep.formats._dcp_metadata import Entry, Metadata, Piece, announces, read_metadata
from tensorkeep.formats._dcp_names import METADATA, SUFFIX
from tensorkeep.formats._tiling import Steps, fault
from tensorkeep.formats.contents import (
    Contents,
    Graft,
    Inert,
    Parts,
    Storage,
    TensorRecord,
    contiguous_stride,
    plain,
)
from tensorkeep.stores import Blob, Folder

__all__ = ["METADATA", "NAME", "SUFFIX", "announces", "read", "read_metadata"]

NAME = "dcp"
# Values are read when the folder is opened, those at the top first; beyond that when scanned.
_VALUES_READ = 1_000
_VALUE_BYTES = 16 << 20
_MOST_BYTES = 1 << 63


def read(folder: Folder, name: str, inside: Callable[[Blob], Parts], limits: Limits) -> Contents:
    """The checkpoint that `name`, a `.metadata` in `folder`, describes, `Contents.error` included.

    `inside` gives what opens the files that lie in one of the folder's. Raises `StoreError`.
    """
    blob = folder.open(name)
    if blob.size > limits.max_pickle_bytes:
        raise LimitExceeded(
            blob.name,
            expected=f"a pickle of at most {limits.max_pickle_bytes} bytes",
            got=f"{blob.size} bytes",
        )
    found = read_metadata(blob.read(0, blob.size), limits, name)
    contents = Contents(
        format=NAME,
        container="directory",
        root={},
        lens=plain,
        storages={},
        facts=found.facts,
        programs=[(name, found.program)],
        anomalies=found.anomalies,
        error=found.program.error or found.error,
        pending=True,
    )
    items = Items(folder, found, inside)
    contents.parts = items.files
    contents.audit = lambda _deep: _audit(contents, items)
    contents.verify = lambda: _verify(items)
    if contents.error is None:
        missing = [error for _, error in items.missing]
        contents.error = missing[0] if missing else None
        contents.unreadable += items.missing[1:]
        if not missing:
            _Builder(contents, found, items).build()
    return contents


class _Builder:
    """Makes the value that the checkpoint holds, nested as the planner found it."""

    def __init__(self, contents: Contents, found: Metadata, items: Items) -> None:
        self.contents = contents
        self.found = found
        self.items = items
        self.storages: dict[str, Storage] = {}
        self.steps = Steps()

    def build(self) -> None:
        """Fill `contents.root` and `contents.storages`."""
        read_now = self._read_now()
        for name, entry in self.found.entries.items():
            if entry.problem:
                unread = {"tensor": "tensor", "other": "object"}.get(entry.kind, "")
                value: object = Inert(entry.problem, unread=unread)
                odd = Anomaly("storage-missing", f"{name!r} is {entry.problem}", METADATA)
                self.contents.anomalies.append(odd)
            elif entry.kind == "value":
                value = self._value(name, entry, name in read_now)
            else:
                value = self._tensor(name, entry)
            self._put(name, entry, value)
        self.contents.storages = self.storages

    def _read_now(self) -> set[str]:
        """The names of values to be read at once: those with the shortest paths."""
        rows = [
            (len(entry.path), at, name, entry.pieces[0].place)
            for at, (name, entry) in enumerate(self.found.entries.items())
            if entry.kind == "value"
        ]
        chosen, total = set(), 0
        for _, _, name, place in sorted(rows, key=lambda row: row[:2])[:_VALUES_READ]:
            total += place.length if place else 0
            if total > _VALUE_BYTES:
                break
            chosen.add(name)
        return chosen

    def _value(self, name: str, entry: Entry, now: bool) -> object:
        place = entry.pieces[0].place
        assert place is not None
        if not now:
            return Inert(f"a value in {place.file}, one of too many to be read before it is wanted")
        try:
            inside = self.items.examine(name, place)
            if inside.error is not None:
                raise inside.error
        except Unsupported as error:
            return Inert(f"value that is not read: {error.got}", unread="object")
        except ReadError as error:
            return Inert(f"damaged value: {error.sentence()}")
        for storage in inside.storages.values():
            storage.key = f"{name}:{storage.key}"
            self.storages[storage.key] = storage
        return Graft(inside)

    def _tensor(self, name: str, entry: Entry) -> object:
        assert entry.dtype is not None
        if min(entry.shape, default=0) < 0:
            return self._odd(name, "negative-size", "a tensor with a negative size")
        if prod(entry.shape) * entry.dtype.itemsize >= _MOST_BYTES:
            return self._odd(name, "declared-size", "a tensor larger than any file")
        kind, what = fault(entry.shape, entry.pieces, self.steps)
        if kind:
            return self._odd(name, kind, what)
        chunks = [self._chunk(name, piece) for piece in entry.pieces]
        storage = Chunked(name, entry.dtype, entry.shape, chunks, self.items.blob_of(entry.pieces))
        self.storages[name] = storage
        record = TensorRecord(entry.dtype, entry.shape, contiguous_stride(entry.shape), 0, storage)
        record.problem = self._short(name, entry)
        return record

    def _odd(self, name: str, kind: str, what: str) -> Inert:
        self.contents.anomalies.append(Anomaly(kind, f"{name!r} has {what}", METADATA))
        return Inert(f"tensor with {what}", unread="tensor")

    def _short(self, name: str, entry: Entry) -> str:
        """Why a chunk cannot be where it is said to be, or ""."""
        assert entry.dtype is not None
        for piece in entry.pieces:
            place = piece.place
            assert place is not None
            size = self.items.size_of(place.file)
            nbytes = prod(piece.sizes) * entry.dtype.itemsize
            if place.offset + place.length > size:
                end = place.offset + place.length
                what = f"has a chunk up to byte {end} of {place.file}, which has {size}"
            elif place.length < nbytes and not place.transforms:
                what = f"has a chunk of {nbytes} bytes in {place.length} of {place.file}"
            else:
                continue
            odd = Anomaly("item-out-of-bounds", f"{name!r} {what}", METADATA)
            self.contents.anomalies.append(odd)
            return what
        return ""

    def _chunk(self, name: str, piece: Piece) -> Chunk:
        place = piece.place
        assert place is not None
        return Chunk(piece.offsets, piece.sizes, lambda: self.items.tensor(name, place))

    def _put(self, name: str, entry: Entry, value: object) -> None:
        """Hang `value` into the tree; under its whole name where something stands in the way."""
        at: object = self.contents.root
        for step in entry.path[:-1]:
            if not isinstance(at, dict):
                break
            at = at.setdefault(step, {})
        last = entry.path[-1]
        free = isinstance(at, dict) and last not in at
        assert isinstance(self.contents.root, dict)
        if free and isinstance(at, dict):
            at[last] = value
        else:
            self.contents.root[name] = value


def _audit(contents: Contents, items: Items) -> Iterator[Anomaly]:
    """Read every item that a loader would run; those are then `nested` in the contents."""
    known = {where for where, _ in contents.nested} | {where for where, _ in contents.unreadable}
    for where, inside in items.every():
        if where in known:
            continue
        if isinstance(inside, ReadError):
            contents.unreadable.append((where, inside))
        else:
            contents.nested.append((where, inside))
    yield from spans_of(items)
    yield from _differing(contents)
    yield from contents.anomalies


def _differing(contents: Contents) -> Iterator[Anomaly]:
    """Chunks that are another tensor than the metadata says."""
    for name, storage in contents.storages.items():
        if isinstance(storage, Chunked):
            try:
                storage.require()
            except Damaged as error:
                yield Anomaly("chunk-differs", f"{name!r}: {error.sentence()}", METADATA)
            except ReadError:
                continue  # said already: the item cannot be read


def _verify(items: Items) -> Iterator[tuple[str, str, str, str]]:
    for name, where, inside in items.named():
        for member, _, expected, got in inside.verify():
            yield f"{where}: {member}", name, expected, got
