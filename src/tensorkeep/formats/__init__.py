"""How bytes are laid out: one file per format.

A format finds tensors as places in a blob and reads no tensor bytes. It reports facts and
anomalies, judges nothing and prints nothing. `read` looks at bytes, never at the extension.
A new format is one file with NAME, SUFFIXES, `identify` and `read`, and one line in FORMATS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from tensorkeep.errors import Amplified, LimitExceeded, ReadError
from tensorkeep.facts import Anomaly, Limits, MiB
from tensorkeep.formats import (
    compressed,
    distcp,
    foreign,
    numpy_files,
    raw_pickle,
    safetensors,
    tar_bundle,
    torch_legacy,
    torch_tar,
    zips,
)
from tensorkeep.formats.contents import Contents, Parts
from tensorkeep.stores import Blob

HEAD = 512
_DEEPEST = 8
_FREE = 32 * MiB  # that the members and files inside a file may have beyond `Limits.max_ratio`


class Format(Protocol):
    """What a format's module has."""

    NAME: str
    SUFFIXES: tuple[str, ...]

    def identify(self, blob: Blob, head: bytes) -> bool:
        """Whether the first bytes announce this format."""

    def read(self, blob: Blob, limits: Limits, parts: Parts) -> Contents:
        """The checkpoint, without its tensor bytes; `parts` opens files that lie in it."""


# Asked in this order; a pickle of the old protocols, which has no magic, last.
FORMATS: tuple[Format, ...] = (
    distcp,
    zips,
    safetensors,
    torch_tar,
    tar_bundle,
    torch_legacy,
    numpy_files,
    compressed,
    raw_pickle,
)


def identify(blob: Blob) -> Format | None:
    """The format that `blob`'s first bytes announce, or None."""
    head = blob.read(0, min(HEAD, blob.size))
    return next((known for known in FORMATS if known.identify(blob, head)), None)


@dataclass(slots=True)
class Inside:
    """Opens files that lie in files. `budget` in bytes is shared by all that one file leads to.

    An archive that holds itself, or a thousand archives of a thousand each, ends here.
    """

    limits: Limits
    depth: int = 0
    budget: list[int] = field(default_factory=list)

    def examine(self, blob: Blob) -> Contents:
        """See `Parts`."""
        self.spend(blob.size, blob.name)
        if self.depth >= _DEEPEST:
            expected = f"files nested at most {_DEEPEST} deep"
            raise LimitExceeded(blob.name, expected=expected, got="more")
        return _examine(blob, self.limits, Inside(self.limits, self.depth + 1, self.budget))

    def spend(self, size: int, name: str) -> None:
        """See `Parts`."""
        self.budget[0] -= size
        if self.budget[0] < 0:
            raise Amplified(
                name,
                expected=f"parts of at most {self.limits.max_ratio} times the size of the whole",
                got="more",
            )

    def recognises(self, blob: Blob) -> bool:
        """See `Parts`."""
        return identify(blob) is not None


def examine(blob: Blob, limits: Limits) -> Contents:
    """What can be found out about `blob`, `Contents.error` included.

    Raises `ReadError` if it is no checkpoint, or its container is damaged.
    """
    return _examine(blob, limits, inside(blob, limits))


def inside(blob: Blob, limits: Limits) -> Inside:
    """What opens the files that lie in `blob`, within its limits."""
    return Inside(limits, 0, [limits.max_ratio * blob.size + _FREE])


def _examine(blob: Blob, limits: Limits, parts: Inside) -> Contents:
    head = blob.read(0, min(HEAD, blob.size))
    claimed = [known for known in FORMATS if known.identify(blob, head)]
    if not claimed:
        raise foreign.error(blob, head)
    contents = claimed[0].read(blob, limits, parts)
    # torch's old files are pickles, and read as such.
    programs = (torch_legacy,) if torch_legacy in claimed else (raw_pickle,)
    for other in claimed[1:]:
        if other in programs:
            _read_again(other, blob, limits, parts, contents)
    return contents


def _read_again(
    other: Format, blob: Blob, limits: Limits, parts: Inside, contents: Contents
) -> None:
    """A file that is a container to one loader is a program to another: both are judged."""
    what = f"the bytes are {contents.format} to one reader and {other.NAME} to another"
    contents.anomalies.append(Anomaly("two-formats", what, "", 0))
    try:
        contents.nested.append((f"read as {other.NAME}", other.read(blob, limits, parts)))
    except ReadError as error:
        contents.unreadable.append((f"read as {other.NAME}", error))


def read(blob: Blob, limits: Limits) -> Contents:
    """Read the checkpoint in `blob`. Raises `ReadError` if it is none or is damaged."""
    contents = examine(blob, limits)
    if contents.error is not None:
        raise contents.error
    return contents
