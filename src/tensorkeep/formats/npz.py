"""numpy's .npz: a zip of .npy files, each named for its array.

Source: numpy's `lib/_npyio_impl.py` (2.4), `_savez` and `NpzFile`: it takes the ending off.
"""

from __future__ import annotations

from tensorkeep.archives.zip import ZipArchive
from tensorkeep.facts import Limits
from tensorkeep.formats._zip_reading import ZipReading
from tensorkeep.formats.contents import Contents, Graft, Parts, plain

NAME = "npz"
SUFFIXES: tuple[str, ...] = (".npz",)
_ENDING = ".npy"


def claims(archive: ZipArchive) -> bool:
    """Whether every member is named as an array."""
    members = archive.members
    return bool(members) and all(member.name.endswith(_ENDING) for member in members)


def read_archive(archive: ZipArchive, limits: Limits, parts: Parts) -> Contents:
    """Every array by its name. One that cannot be read leaves the others as they are."""
    reading = ZipReading(archive, limits, parts)
    root: dict[str, object] = {}
    for member in archive.members:
        held = reading.nest(member)
        if held is None:
            continue
        # A member holds one array; numpy reads no further.
        if isinstance(held.root, dict) and list(held.root) == ["array"]:
            held.root = held.root["array"]
        root[member.name.removesuffix(_ENDING)] = Graft(held)
        for storage in held.storages.values():
            storage.key = f"{member.name}:{storage.key}"
            reading.storages[storage.key] = storage
    contents = reading.contents(NAME, root, plain)
    if not root and reading.unreadable:
        contents.error = reading.unreadable[0][1]
    return contents
