"""From a path, bytes or a file object to an opened checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tensorkeep import formats
from tensorkeep.checkpoints import index
from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.kept import KeptFolder
from tensorkeep.errors import BadArgument
from tensorkeep.facts import Limits
from tensorkeep.formats._dcp_names import METADATA
from tensorkeep.formats.contents import Contents
from tensorkeep.stores import Blob
from tensorkeep.stores._errors import mapped
from tensorkeep.stores.opening import Source, open_blob, path_of

__all__ = ["Source", "open_checkpoint"]


def open_checkpoint(source: Source, *, limits: Limits | None = None) -> Checkpoint:
    """Open `source` as an index of tensors; no tensor byte is read and nothing is run.

    `source`: a path or `file://` URL of a file, an index file or a directory; "-" for standard
    input; bytes; or a readable, seekable binary file object. Raises `ReadError` and `StoreError`.
    """
    limits = limits_of(limits)
    path = path_of(source)
    if path is not None and _may_be_of_a_run(path):
        from tensorkeep.checkpoints.run_contents import chosen  # most files are of no run

        source = path = chosen(path)
    if path is not None and _is_sharded(path):
        return _open_directory(path, limits)
    blob = open_blob(source)
    try:
        contents = formats.read(blob, limits)
        return _finish(blob.name, contents, [blob], blob.close, limits)
    except BaseException:
        blob.close()
        raise


def limits_of(given: Limits | None) -> Limits:
    """Those of the caller, or the usual ones. Raises `BadArgument` for what is no `Limits`."""
    if given is not None and not isinstance(given, Limits):
        raise BadArgument(
            "limits",
            expected="a Limits",
            got=repr(given),
            remedy="Write it as in tk.Limits(max_depth=50).",
        )
    return given or Limits()


def _may_be_of_a_run(path: Path) -> bool:
    """Whether it is worth the import: `run.json`, or a step, or a name with `@` in it."""
    if not path.is_dir():
        return "@" in path.name
    with mapped(path), os.scandir(path) as entries:
        return any(entry.name == "run.json" or entry.name[:5] == "step-" for entry in entries)


def _is_sharded(path: Path) -> bool:
    return path.is_dir() or path.name.endswith(".index.json") or path.name == METADATA


def _open_directory(path: Path, limits: Limits) -> Checkpoint:
    from tensorkeep.checkpoints.directory import find, latest  # a single file need not wait for it

    folder = KeptFolder(latest(path) if path.is_dir() else path.parent)
    try:
        wanted = None if path.is_dir() else path.name
        contents = find(folder, wanted, limits)
        return _finish(os.fspath(path), contents, folder.blobs, folder.close, limits)
    except BaseException:
        folder.close()
        raise


def _finish(
    name: str,
    contents: Contents,
    blobs: list[Blob],
    close: Callable[[], None],
    limits: Limits,
) -> Checkpoint:
    return Checkpoint(name, contents, index.build(contents, limits, name), blobs, close)
