"""The items in the data files of a torch.distributed.checkpoint folder, each read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tensorkeep.archives.zips import boundaries
from tensorkeep.errors import Damaged, NotFound, ReadError, StoreError, TensorkeepError, Unsupported
from tensorkeep.facts import Anomaly
from tensorkeep.formats._dcp_metadata import Metadata, Piece, Place, files_of
from tensorkeep.formats.contents import Contents, Inert, Parts, TensorRecord
from tensorkeep.stores import Blob, Folder
from tensorkeep.stores.slices import SliceBlob

_LONGEST_HEADER = 100_000_000
# Items that cannot be read and are looked into all the same: each costs a walk through its bytes.
_MOST_APART = 100


class Items:
    """Opens items, and remembers them: a scan and a reader of tensors ask for the same ones.

    `missing`: the files that cannot be had, and why; `anomalies`: names that lead elsewhere.
    """

    def __init__(self, folder: Folder, found: Metadata, inside: Callable[[Blob], Parts]) -> None:
        self.found = found
        self.files: list[str] = []
        self.missing: list[tuple[str, TensorkeepError]] = []
        self._inside = inside
        self._taken_apart = 0
        self._blobs: dict[str, Blob] = {}
        self._parts: dict[str, Parts] = {}
        self._seen: dict[tuple[str, int, int], Contents | ReadError] = {}
        for name in files_of(found):
            self._open(folder, name)

    def _open(self, folder: Folder, name: str) -> None:
        if "/" in name or "\\" in name or "\0" in name or name in ("", ".", ".."):
            what = f"{name!r} is not the plain name of a file in the folder"
            self.found.anomalies.append(Anomaly("path-traversal", what, ".metadata"))
            error: TensorkeepError = Damaged(
                folder.name,
                expected="files in the folder of their .metadata",
                got=repr(name),
                remedy="Do not use this checkpoint: it points outside its own folder.",
            )
            self.missing.append((name, error))
            return
        try:
            self._blobs[name] = folder.open(name)
            self.files.append(name)
        except NotFound:
            error = Damaged(
                folder.name,
                expected=f"the data file {name}, which .metadata names",
                got="no such file",
                remedy="Copy the whole folder again: every rank wrote a part of it.",
            )
            self.missing.append((name, error))
        except StoreError as error:
            self.missing.append((name, error))

    def size_of(self, file: str) -> int:
        """Bytes of a data file; none if it cannot be had."""
        blob = self._blobs.get(file)
        return blob.size if blob else 0

    def blob_of(self, pieces: Sequence[Piece]) -> Blob:
        """The file that the first of `pieces` lies in, or any: an empty tensor has none."""
        for piece in pieces:
            if piece.place is not None and piece.place.file in self._blobs:
                return self._blobs[piece.place.file]
        return next(iter(self._blobs.values()))

    def blob(self, file: str) -> Blob:
        """A data file. Raises `Damaged` if it could not be opened."""
        try:
            return self._blobs[file]
        except KeyError:
            raise Damaged(file, expected="a data file of the folder", got="none") from None

    def examine(self, name: str, place: Place) -> Contents:
        """What lies at `place`. Raises `ReadError`."""
        start, end = self._range(name, place)
        key = (place.file, start, end)
        if key not in self._seen:
            self._seen[key] = self._read(name, place, start, end)
        seen = self._seen[key]
        if isinstance(seen, ReadError):
            raise seen
        return seen

    def _range(self, name: str, place: Place) -> tuple[int, int]:
        if self.in_safetensors(name, place):
            return place.offset, self.blob(place.file).size
        return place.offset, place.offset + place.length

    def _read(self, name: str, place: Place, start: int, end: int) -> Contents | ReadError:
        try:
            if place.transforms:
                raise Unsupported(
                    place.file,
                    expected="items as torch.save writes them",
                    got=f"one that went through {', '.join(place.transforms)}",
                    where=name,
                    remedy="Load the checkpoint with torch and save it without extensions.",
                )
            blob = self.blob(place.file)
            piece = SliceBlob(blob, start, end - start, f"{place.file}, {name!r}")
            return self._parts_of(place.file).examine(piece)
        except ReadError as error:
            return error

    def _parts_of(self, file: str) -> Parts:
        if file not in self._parts:
            self._parts[file] = self._inside(self.blob(file))
        return self._parts[file]

    def in_safetensors(self, name: str, place: Place) -> bool:
        """Whether a tensor lies in one safetensors file with the others of its data file.

        Its place is then where that file begins, and its length that of its values.
        """
        entry = self.found.entries.get(name)
        if entry is None or entry.kind != "tensor" or place.file not in self._blobs:
            return False
        blob = self._blobs[place.file]
        if place.transforms or not 0 <= place.offset <= blob.size - 9:
            return False
        head = blob.read(place.offset, 9)
        return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER

    def tensor(self, name: str, place: Place) -> TensorRecord:
        """The tensor at `place`. Raises `ReadError`."""
        contents = self.examine(name, place)
        if contents.error is not None:
            raise contents.error
        value = contents.lens(contents.root)
        if self.in_safetensors(name, place) and isinstance(value, dict):
            value = value.get(name)
        if isinstance(value, TensorRecord):
            return value
        got = value.why if isinstance(value, Inert) else f"a {type(value).__name__}"
        kind = Unsupported if isinstance(value, Inert) else Damaged
        raise kind(place.file, expected=f"a plain tensor, a chunk of {name!r}", got=got)

    def named(self) -> Iterator[tuple[str, str, Contents]]:
        """Name, place in words and contents of every item that can be read, each once."""
        done = set()
        for name, place in self._places():
            key = (place.file, *self._range(name, place))
            if key in done:
                continue
            done.add(key)
            try:
                yield name, where(name, place), self.examine(name, place)
            except ReadError:
                continue

    def every(self) -> Iterator[tuple[str, Contents | ReadError]]:
        """Every item that is stored: what it holds, or why it cannot be read."""
        done = set()
        for name, place in self._places():
            if place.file not in self._blobs:
                continue  # said already: the file is missing
            key = (place.file, *self._range(name, place))
            if key in done:
                continue
            done.add(key)
            try:
                yield where(name, place), self.examine(name, place)
            except ReadError as error:
                yield where(name, place), error
                yield from self._within(name, place)

    def _within(self, name: str, place: Place) -> Iterator[tuple[str, Contents | ReadError]]:
        """What lies in an item that is several archives: each, as some reader may take it."""
        blob = self.blob(place.file)
        self._taken_apart += 1
        if place.offset + place.length > blob.size or self._taken_apart > _MOST_APART:
            return
        whole = SliceBlob(blob, place.offset, place.length, place.file)
        found = boundaries(whole)
        for start, end in found if len(found) > 1 else ():
            told = f"{where(name, place)}, archive at byte {start} of it"
            try:
                piece = SliceBlob(whole, start, end - start, told)
                yield told, self._parts_of(place.file).examine(piece)
            except ReadError as error:
                yield told, error

    def _places(self) -> Iterator[tuple[str, Place]]:
        for (name, _), place in self.found.places.items():
            yield name, place

    def nothing_at(self, file: str, at: int) -> bool:
        """Whether the rest of a file is a safetensors without tensors.

        `SerializationFormat.SAFETENSORS` puts one behind the values where a file has no tensors.
        """
        blob = self.blob(file)
        try:
            rest = SliceBlob(blob, at, blob.size - at, file)
            inside = self._parts_of(file).examine(rest)
        except ReadError:
            return False
        return inside.format == "safetensors" and inside.root == {} and not inside.anomalies

    def spans(self) -> dict[str, list[tuple[int, int, str]]]:
        """For each data file, begin, end and name of every item in it, in order."""
        spans: dict[str, dict[tuple[int, int, str], None]] = {name: {} for name in self.files}
        for name, place in self._places():
            if place.file in spans:
                start, end = self._range(name, place)
                shared = self.in_safetensors(name, place)
                spans[place.file][start, end, "" if shared else name] = None
        return {file: sorted(found) for file, found in spans.items()}


def where(name: str, place: Place) -> str:
    """The place of an item, for people."""
    return f"{place.file}, byte {place.offset}, {name!r}"


def spans_of(items: Items) -> Iterator[Anomaly]:
    """Every byte of the data files belongs to exactly one item; else readers may differ."""
    for file, spans in items.spans().items():
        at = 0
        for begin, end, name in spans:
            if begin < at:
                what = f"{name!r} begins at byte {begin}, inside the item before it"
                yield Anomaly("items-overlap", what, file, begin)
            elif begin > at:
                what = f"{begin - at} bytes before {name!r} belong to no item"
                yield Anomaly("unlisted-bytes", what, file, at)
            at = max(at, end)
        size = items.size_of(file)
        if at < size and not items.nothing_at(file, at):
            yield Anomaly("unlisted-bytes", f"{size - at} bytes belong to no item", file, at)
