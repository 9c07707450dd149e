"""Zip archives: read once, then the kind is decided by what lies in them, as torch decides it.

Source: `torch/serialization.py` (2.13). `torch.load` takes an archive with `constants.pkl` as
TorchScript, and reads `data.pkl` otherwise; `torch.export.load` looks for `archive_format`,
`torch.package` for `.data/extern_modules`. An archive that several of them would take is a
contradiction: it is read as the first in KINDS, and every pickle in it is taken as one that runs.
"""

from __future__ import annotations

from typing import Protocol

from tensorkeep.archives.zip import ZipArchive, read_directory
from tensorkeep.facts import Anomaly, Limits
from tensorkeep.formats import bundle, npz, pt2, torch_package, torch_zip, torchscript
from tensorkeep.formats._zip_reading import is_zip
from tensorkeep.formats.contents import Contents, Parts
from tensorkeep.stores import Blob

NAME = "zip"
SUFFIXES: tuple[str, ...] = (".zip",)


class Kind(Protocol):
    """What the module of a kind of zip archive has."""

    NAME: str
    SUFFIXES: tuple[str, ...]

    def claims(self, archive: ZipArchive) -> bool:
        """Whether some loader takes the archive for one of this kind, by its members alone."""

    def read_archive(self, archive: ZipArchive, limits: Limits, parts: Parts) -> Contents:
        """The checkpoint in `archive`, without its tensor bytes. Raises `ReadError`."""


# The last one takes any zip.
KINDS: tuple[Kind, ...] = (torchscript, pt2, torch_package, torch_zip, npz, bundle)


def identify(blob: Blob, head: bytes) -> bool:
    """Whether this is a zip archive at all; which kind is seen when it is read."""
    return is_zip(head)


def read(blob: Blob, limits: Limits, parts: Parts) -> Contents:
    """The checkpoint in `blob`, without its tensor bytes. Raises `ReadError`."""
    archive = read_directory(blob, limits)
    claimed = [kind for kind in KINDS[:-1] if kind.claims(archive)] or [KINDS[-1]]
    contents = claimed[0].read_archive(archive, limits, parts)
    if len(claimed) > 1:
        what = "an archive that is at once " + " and ".join(kind.NAME for kind in claimed)
        archive.anomalies.append(Anomaly("two-kinds", what))
        list(contents.audit(False))  # it adds every pickle in the archive to the programs
    return contents
