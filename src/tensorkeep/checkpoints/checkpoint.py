"""An opened checkpoint: an index of names over bytes that stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType

from tensorkeep.checkpoints import kinds, sections
from tensorkeep.checkpoints.index import Index, names
from tensorkeep.checkpoints.sections import ALL, FLAT
from tensorkeep.checkpoints.tensor import TensorRef, tensor_of
from tensorkeep.checkpoints.ties import dead_bytes, tie
from tensorkeep.errors import NameCollision
from tensorkeep.facts import SectionInfo
from tensorkeep.formats._numpy_values import Array
from tensorkeep.formats.assembled import Compound
from tensorkeep.formats.contents import Contents, Inert, TensorRecord
from tensorkeep.stores import Blob
from tensorkeep.stores._descriptor import DescriptorBlob
from tensorkeep.stores.local import BriefBlob, LocalBlob, same_file


class Checkpoint:
    """A mapping from tensor names to `TensorRef`, in the order of the file.

    `path` is for people; `size` is the bytes of all its files. Use it in a `with` block or call
    `close()`; tensors read before stay valid after.
    """

    def __init__(
        self,
        path: str,
        contents: Contents,
        index: Index,
        blobs: list[Blob],
        close: Callable[[], None],
    ) -> None:
        self.path = path
        self.contents = contents
        self.index = index
        self.parts = sections.parts_of(index)
        self._blobs = blobs
        self._close = close
        self._alike = False  # whether names collide
        self.tensors = self._refs()
        # A hundred thousand sections of a tensor each must not be a search through all for each.
        self._ordered = list(self.tensors.values())

    def _refs(self) -> dict[str, TensorRef]:
        paths = [path for path, _ in self.index.tensors]
        records = [record for _, record in self.index.tensors]
        try:
            shown = names(paths, self.path)
        except NameCollision:  # must not keep anybody from looking at the rest: `select` refuses
            self._alike = True
            shown = names(paths, self.path, strict=False)
        owners = [""] * len(paths)
        for section, part in self.parts.items():
            for at in part.tensors if section else ():
                owners[at] = section
        refs = dict(zip(shown, map(TensorRef, shown, records, owners), strict=True))
        if len({record.storage.key for record in records}) == len(records):
            return refs  # nobody shares a storage: nobody is tied
        first = tie(
            [
                (n, r.storage.key, r.dtype.name, r.shape, r.stride, r.offset)
                for n, r in zip(shown, records, strict=True)
            ]
        )
        for name, kept in first.items():
            refs[name].tied_to = kept
        return refs

    @property
    def format(self) -> str:
        """Name of the format, such as "torch_zip"."""
        return self.contents.format

    @property
    def kind(self) -> str:
        """ "state_dict", "training_checkpoint", "whole_model" or "values"."""
        return kinds.kind_of(self.contents, self.index, self.parts)

    @property
    def writer(self) -> str:
        """Who wrote it, as far as its layout tells."""
        return kinds.writer_of(self.contents, self.index)

    @property
    def metadata(self) -> dict[str, str]:
        """Text that the container carries beside the tensors."""
        return self.contents.metadata

    @property
    def values(self) -> object:
        """Everything that is no tensor, nested as in the file; unknown objects as `Inert`."""
        return self.index.values

    @property
    def blobs(self) -> list[Blob]:
        """All its files."""
        return list(self._blobs)

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(blob.size for blob in self._blobs)

    @property
    def bytes_read(self) -> int:
        """Bytes asked of the device so far."""
        return sum(blob.bytes_read for blob in self._blobs)

    def check_unchanged(self) -> None:
        """Raise `ChangedWhileRead` if one of its files was written to since it was opened."""
        for blob in self._blobs:
            blob.check_unchanged()

    def is_in(self, path: Path) -> bool:
        """Whether `path` is one of its files, by whatever links, or a folder that holds one."""
        places: list[Path | int] = [Path(self.path)]
        for blob in self._blobs:
            if isinstance(blob, LocalBlob | BriefBlob):
                places += [blob.path, blob.path.parent, blob.path.resolve().parent]
            elif isinstance(blob, DescriptorBlob):
                places.append(blob.fileno())
        return any(same_file(place, path) for place in places)

    @cached_property
    def sections(self) -> list[SectionInfo]:
        """The top-level parts. Bytes count a tied tensor once."""
        return [self._section(name) for name, part in self.parts.items() if part.tensors]

    def _section(self, name: str) -> SectionInfo:
        refs = [self._ordered[at] for at in self.parts[name].tensors]
        own = [ref for ref in refs if ref.tied_to is None]
        return SectionInfo(
            name, len(refs), sum(r.record.numel for r in own), sum(r.nbytes for r in own)
        )

    @cached_property
    def dead_bytes(self) -> int | None:
        """Bytes of storages that no tensor of the file can reach.

        None if some belong to objects that are not read: then nobody here can tell.
        """
        unread = [value for _, value in self.index.leaves if isinstance(value, Inert)]
        if any(value.unread and not isinstance(value, Compound) for value in unread):
            return None
        readable = [record for record in self._records() if not record.problem]
        spans = [(record.storage.key, *record.span()) for record in readable]
        sizes: dict[Hashable, int] = {s.key: s.nbytes for s in self.contents.storages.values()}
        return dead_bytes(sizes, spans) if sizes else 0

    def _records(self) -> Iterator[TensorRecord]:
        """Every view of a storage that the file makes, what no name leads to included."""
        swept = self.index.swept.records
        known = set(map(id, swept))
        yield from swept
        yield from (record for _, record in self.index.tensors if id(record) not in known)
        for compound in self.index.swept.compounds:
            yield from compound.parts.values()
        for _, value in self.index.leaves:
            if isinstance(value, Compound):
                yield from value.parts.values()

    def choose(self, section: str | None) -> tuple[str, list[str]]:
        """The section meant (None: the weights), and notes for the user. See `sections.choose`."""
        arrays = 0 if self.parts else self._arrays()
        return sections.choose(self.parts, section, self.path, arrays)

    def _arrays(self) -> int:
        return sum(isinstance(value, Array) for _, value in self.index.leaves)

    def select(self, section: str, *, strict: bool = True) -> dict[str, TensorRef]:
        """The tensors of `section` by their names inside it.

        Raises `NameCollision` if two would have the same; without `strict` they are quoted.
        """
        chosen = self._within(section)
        if section in (FLAT, ALL) and len(chosen) == len(self._ordered) and not self._alike:
            return dict(self.tensors)  # the names inside are the names, and all different
        paths = [sections.inner_path(self.index.tensors[at][0], section) for at in chosen]
        inner = names(paths, self.path, strict=strict)
        return {name: self._ordered[at] for name, at in zip(inner, chosen, strict=True)}

    def _within(self, section: str) -> Sequence[int]:
        """Where the tensors of `section` stand in the index."""
        if section == ALL:
            return range(len(self._ordered))
        part = self.parts.get(section)
        return part.tensors if part else ()

    def unread(self, section: str) -> list[tuple[str, str]]:
        """Name and reason of what lies in `section` and holds tensors that cannot be read."""
        found = []
        for path, value in self.index.leaves:
            top = str(path[0]) if path else FLAT
            inside = section in (ALL, top) or (section == FLAT and top not in self.parts)
            if inside and isinstance(value, Inert) and value.unread:
                found.append((".".join(map(str, path)) or self.path, value.why))
        return found

    def __getitem__(self, name: str) -> TensorRef:
        return tensor_of(self.tensors, name, self.path)

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def advise_sequential(self) -> None:
        """Tell the stores that most bytes will be read now, so that they read ahead."""
        for blob in self._blobs:
            blob.advise_sequential()

    def keys(self) -> list[str]:
        """Names of all tensors."""
        return list(self.tensors)

    def close(self) -> None:
        """Let go of the files."""
        self._close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
