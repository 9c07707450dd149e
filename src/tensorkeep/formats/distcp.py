"""One data file of a torch.distributed.checkpoint folder, without its `.metadata`.

Source: torch 2.13 `torch/distributed/checkpoint/filesystem.py`: the items of a rank, each a zip as
`torch.save` writes it, one after the other. What they are called stands in `.metadata`: here
they go by number. Told from other zips by the name of the file: a zip reader sees the last one,
and of any other file with several a scan must say that readers differ.
"""

from __future__ import annotations

from tensorkeep.archives.zips import boundaries
from tensorkeep.errors import Damaged, ReadError, TensorkeepError
from tensorkeep.facts import Limits
from tensorkeep.formats._dcp_names import SUFFIX
from tensorkeep.formats.contents import Contents, Graft, Inert, Parts, Storage, plain
from tensorkeep.stores import Blob
from tensorkeep.stores.slices import SliceBlob

NAME = "distcp"
SUFFIXES: tuple[str, ...] = (SUFFIX,)


def identify(blob: Blob, head: bytes) -> bool:
    """Whether it is named as a data file and more than one archive, or none that begins it."""
    return (
        blob.name.endswith(SUFFIXES)
        and head.startswith(b"PK\x03\x04")
        and boundaries(blob) != [(0, blob.size)]
    )


def read(blob: Blob, limits: Limits, parts: Parts) -> Contents:
    """Every item of the file, by number. Raises `Damaged` if no archive ends it."""
    places = boundaries(blob)
    if not places:
        raise Damaged(
            blob.name,
            expected="zip archives one after the other",
            got="other bytes at the end",
            remedy="Name the folder: its .metadata says where the items lie.",
        )
    storages: dict[str, Storage] = {}
    contents = Contents(NAME, "distcp", {}, plain, storages)
    contents.notes.append("the names of the items are in .metadata: name the folder to see them")
    if places[0][0]:
        error = Damaged(
            blob.name, expected="an archive at byte 0", got="other bytes", where="byte 0"
        )
        contents.unreadable.append(("byte 0", error))
    contents.root = dict(enumerate(_item(contents, blob, parts, *place) for place in places))
    storages.update((s.key, s) for _, inside in contents.nested for s in inside.storages.values())
    contents.audit = lambda _deep: list(contents.anomalies)
    contents.verify = lambda: (
        (f"{where}: {member}", f"{where}:{key}", expected, got)
        for where, inside in contents.nested
        for member, key, expected, got in inside.verify()
    )
    return contents


def _item(contents: Contents, blob: Blob, parts: Parts, start: int, end: int) -> object:
    where = f"byte {start}"
    try:
        inside = parts.examine(SliceBlob(blob, start, end - start, f"{blob.name}, {where}"))
    except ReadError as error:
        return _failed(contents, where, error)
    contents.nested.append((where, inside))
    if inside.error is not None:
        return Inert(f"damaged item: {inside.error.sentence()}")
    for storage in inside.storages.values():
        storage.key = f"{where}:{storage.key}"
    return Graft(inside)


def _failed(contents: Contents, where: str, error: TensorkeepError) -> Inert:
    contents.unreadable.append((where, error))
    return Inert(f"damaged item: {error.sentence()}")
