"""Archives of model files: a .mar, a zip of several checkpoints, a zip in a zip.

Sources: torch-model-archiver 0.12 (a zip with `MAR-INF/MANIFEST.json`, the serialised model, its
handler in Python and extra files). Each member that is a model file is a file of its own, read
where it lies; a packed one is unpacked into memory.
"""

from __future__ import annotations

from tensorkeep.archives.zip import ZipArchive, ZipMember
from tensorkeep.errors import NotACheckpoint
from tensorkeep.facts import Limits
from tensorkeep.formats._members import (
    HEAD,
    config_code,
    is_config,
    is_model,
    show,
)
from tensorkeep.formats._zip_reading import ZipReading
from tensorkeep.formats.contents import Code, Contents, Parts, plain

NAME = "bundle"
SUFFIXES: tuple[str, ...] = (".zip", ".mar")
_MANIFEST = "MAR-INF/MANIFEST.json"


def claims(archive: ZipArchive) -> bool:
    """Any zip: it is asked last."""
    return True


def read_archive(archive: ZipArchive, limits: Limits, parts: Parts) -> Contents:
    """The checkpoints in `archive`. Raises `NotACheckpoint` if there is nothing of a model."""
    reading = ZipReading(archive, limits, parts)
    for member in archive.members:
        if member.size and not reading.exhausted:
            _member(reading, member)
    manifest = archive.holds(_MANIFEST)
    if not (reading.nested or reading.unreadable or manifest):
        reading.look_at_all()
    if not (reading.nested or reading.unreadable or reading.programs or manifest):
        raise NotACheckpoint(
            archive.blob.name,
            expected="a checkpoint",
            got="a zip without a model in it",
            remedy="Check that this is the file you mean.",
        )
    contents = reading.contents(NAME, {}, plain)
    show(contents)
    return contents


def _member(reading: ZipReading, member: ZipMember) -> None:
    name = member.name
    if name.lower().endswith(".py"):
        text = reading.data(member).decode("utf-8", "replace")
        reading.code.append(Code(name, "python", text))
    elif is_model(name, reading.peek(member, HEAD), reading.parts):
        reading.nest(member)
    elif is_config(name, member.size):
        code = config_code(name, reading.data(member))
        if code is not None:
            reading.code.append(code)
