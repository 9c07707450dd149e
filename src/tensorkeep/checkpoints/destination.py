"""Where a written checkpoint goes: which format, one file or parts in a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tensorkeep import formats
from tensorkeep.checkpoints import index
from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.streaming import Output
from tensorkeep.checkpoints.writing import (
    TARGETS,
    Plan,
    Target,
    index_bytes,
    shards,
    target_for_suffix,
    target_named,
    write,
)
from tensorkeep.errors import AlreadyExists, BadArgument, Damaged, ReadError, TensorkeepError
from tensorkeep.facts import Limits
from tensorkeep.formats.contents import Contents
from tensorkeep.formats.layout import Layout
from tensorkeep.progress import Reporter
from tensorkeep.stores import Blob, Sink
from tensorkeep.stores._errors import mapped
from tensorkeep.stores.local import LocalFolderSink, LocalSink
from tensorkeep.stores.local.placing import require_parent
from tensorkeep.stores.opening import target_path

DEFAULT_SHARD = 5_000_000_000
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?\s*$", re.IGNORECASE)
_PART_OR_INDEX = re.compile(r"(-\d{5}-of-\d{5}\.\w+|\.index\.json)$")


def shard_bytes(text: int | str) -> int:
    """ "5GB" as bytes; KB, MB, GB, TB are powers of 1000, KiB and so on of 1024."""
    match = _SIZE.match(str(text))
    size = 0
    if match:
        base = 1024 if match[3] else 1000
        size = int(float(match[1]) * base ** " KMGT".index(match[2].upper() or " "))
    if size < 1:
        raise BadArgument("--shard-size", expected="a size such as 5GB or 500MiB", got=repr(text))
    return size


def resolve(
    destination: str | os.PathLike[str], to: str | None, shard_size: int | str | None
) -> Destination:
    """What `destination` asks for. Raises `BadArgument`, `UnknownScheme`."""
    text = target_path(destination)
    path = Path(text)
    size = shard_bytes(shard_size) if shard_size is not None else None
    kind = target_named(to) if to else None
    if path.name.endswith(".index.json"):
        kind = kind or target_for_suffix(path.name.removesuffix(".index.json"))
        return Destination(path.parent, kind or TARGETS[0], size or DEFAULT_SHARD)
    if text.endswith(("/", os.sep)) or path.is_dir():
        return Destination(path, kind or TARGETS[0], size or DEFAULT_SHARD)
    kind = kind or target_for_suffix(path.name)
    if kind is None:
        raise BadArgument(
            text,
            expected="a name that ends in .safetensors, .pth, .pt, .bin, .ckpt, or / for parts",
            got=repr(path.suffix) if path.suffix else "no ending",
            remedy="Say the format with --to safetensors or --to torch.",
        )
    if size is not None:
        raise BadArgument(
            "--shard-size",
            expected="a directory to put parts in",
            got=repr(text),
            remedy=f"End the destination with a slash: {os.path.splitext(text)[0]}/",  # noqa: PTH122
        )
    return Destination(path, kind, None)


@dataclass(frozen=True, slots=True)
class Destination:
    """`shard_size` in bytes when `path` is a folder of parts, None when it is one file.

    `beside`: further files of a folder, by name.
    """

    path: Path
    kind: Target
    shard_size: int | None
    beside: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people."""
        return os.fspath(self.path)

    def files(self, plan: Plan) -> list[str]:
        """Names of the files that writing `plan` makes."""
        if self.shard_size is None:
            return [self.path.name]
        parts = self.parts(plan)
        index = [self.kind.index] if len(parts) > 1 else []
        return [*parts, *index, *self.beside]

    def check(self, *sources: Checkpoint, overwrite: bool) -> None:
        """Refuse before any work: a source itself, and what exists unless `overwrite`."""
        with mapped(self.name):
            require_parent(Path.cwd() / self.path)
        if any(ckpt.is_in(self.path) for ckpt in sources):
            raise AlreadyExists(
                self.name,
                expected="a destination other than the source",
                got="the source itself" if self.shard_size is None else "the source's own folder",
                remedy="Write to another name and move it into place when it is good.",
            )
        if self.shard_size is None and not overwrite and os.path.lexists(self.path):
            raise AlreadyExists(
                self.name,
                expected="a name that is free",
                got="an existing file",
                remedy="Pick another name, or pass --overwrite.",
            )
        if self.shard_size is not None and not overwrite:
            self._check_empty()

    def _check_empty(self) -> None:
        with mapped(self.name):
            names = (
                sorted(entry.name for entry in self.path.iterdir()) if self.path.is_dir() else []
            )
        if names:
            raise AlreadyExists(
                self.name,
                expected="a new or an empty folder",
                got=", ".join(names[:3]) + (" and more" if len(names) > 3 else ""),
                remedy="Pick another name, or pass --overwrite.",
            )

    def write(
        self,
        ckpt: Checkpoint | None,
        plan: Plan,
        overwrite: bool,
        *,
        verify: bool,
        reporter: Reporter,
        others: Sequence[Checkpoint] = (),
    ) -> tuple[int | None, list[str]]:
        """Write it all and let it appear; with `verify`, compared before it appears.

        `ckpt`: what tensors are read from, or None if all are in memory; `others`: further
        ones. Returns how many tensors were compared, and notes. Raises `ChangedWhileRead` if
        somebody wrote to a source meanwhile: half of what was copied may be old and half new.
        """
        sources = [*others] if ckpt is None else [ckpt, *others]
        for one in sources:
            one.advise_sequential()
        reporter.start(f"writing {self.path.name}", plan.nbytes)
        writing = _Writing(self, plan, sources, overwrite, verify, reporter)
        try:
            return writing.file() if self.shard_size is None else writing.parts()
        finally:
            reporter.finish()

    def parts(self, plan: Plan) -> dict[str, Plan]:
        """What goes into which file of the folder."""
        assert self.shard_size is not None
        cut = shards(plan, self.shard_size)
        if len(cut) == 1:
            return {self.kind.single: cut[0]}
        return {self.kind.part(at + 1, len(cut)): part for at, part in enumerate(cut)}


@dataclass(frozen=True, slots=True)
class _Writing:
    """One call of `Destination.write`."""

    target: Destination
    plan: Plan
    sources: Sequence[Checkpoint]
    overwrite: bool
    verify: bool
    reporter: Reporter

    def file(self) -> tuple[int | None, list[str]]:
        layout = self.target.kind.layout(self.plan.request())
        path = self.target.path
        with LocalSink(path, overwrite=self.overwrite, size=layout.total) as sink:
            compared = self._fill(sink, self.plan, layout)
            self._check_unchanged()
            sink.commit()
        return compared if self.verify else None, []

    def parts(self) -> tuple[int | None, list[str]]:
        target, plan, compared = self.target, self.plan, 0
        parts = target.parts(plan)
        with LocalFolderSink(
            target.path, overwrite=self.overwrite, replaceable=self._replaceable
        ) as folder:
            for name, part in parts.items():
                layout = target.kind.layout(part.request())
                compared += self._fill(folder.create(name, size=layout.total), part, layout)
            if len(parts) > 1:
                data = index_bytes(plan, parts, aliases=target.kind.holds_versions)
                folder.create(target.kind.index, size=len(data)).write_at(0, data)
            for name, data in target.beside.items():
                folder.create(name, size=len(data)).write_at(0, data)
            self._check_unchanged()
            folder.commit()
        left = folder.left_behind
        notes = [f"the old folder could not be deleted whole: {left}"] if left else []
        return compared if self.verify else None, notes

    def _check_unchanged(self) -> None:
        for ckpt in self.sources:
            ckpt.check_unchanged()

    def _replaceable(self, names: Iterable[str]) -> bool:
        return _is_ours(name for name in names if name not in self.target.beside)

    def _fill(self, sink: Sink, part: Plan, layout: Layout) -> int:
        write(part, layout, sink, self.reporter)
        return _compare(sink, part) if self.verify else 0


def _is_ours(names: Iterable[str]) -> bool:
    """Whether a folder holds nothing but a sharded checkpoint, which may be replaced whole."""
    single = {target.single for target in TARGETS}
    return all(name in single or _PART_OR_INDEX.search(name) for name in names)


def _compare(sink: Sink, plan: Plan) -> int:
    """Read back what was written and compare SHA-256 digests, tensor by tensor."""
    blob: Blob = sink.reader()
    try:
        contents = _read_back(blob)
        found = index.build(contents, Limits(), blob.name)
        written = Checkpoint(blob.name, contents, found, [blob], blob.close)
        for output in plan.outputs:
            _same(output, written)
        for alias, kept in plan.aliases.items():
            if written[alias].tied_to != kept and written[kept].tied_to != alias:
                raise Damaged(sink.name, expected=f"{alias!r} tied to {kept!r}", got="no tie")
    finally:
        blob.close()
    return len(plan.outputs)


def _read_back(blob: Blob) -> Contents:
    try:
        return formats.read(blob, Limits())
    except ReadError as error:
        raise Damaged(
            blob.name,
            expected="to read back what was written",
            got=error,
            remedy="Nothing was kept. The disk or the memory of this machine may be at fault.",
        ) from error


def _same(output: Output, written: Checkpoint) -> None:
    import hashlib

    expected = hashlib.sha256()
    for piece in output.values.blocks():
        expected.update(piece)
    try:
        got = written[output.name].digest()
    except TensorkeepError as error:
        got = str(error)
    if got != f"sha256:{expected.hexdigest()}":
        raise Damaged(
            written.path,
            expected=f"sha256:{expected.hexdigest()}",
            got=got,
            where=output.name,
            remedy="Nothing was kept. The disk or the memory of this machine may be at fault.",
        )
