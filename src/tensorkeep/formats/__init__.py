"""How bytes are laid out: one file per format.

A format finds tensors as places in a blob and reads no tensor bytes. It reports facts and
anomalies, judges nothing and prints nothing. `read` looks at bytes, never at the extension.
A new format is one file with NAME, SUFFIXES, `identify` and `read`, and one line in FORMATS.
"""

from __future__ import annotations

from typing import Protocol

from tensorkeep.facts import Limits
from tensorkeep.formats import foreign, safetensors, torch_zip
from tensorkeep.formats.contents import Contents
from tensorkeep.stores import Blob

HEAD = 512


class Format(Protocol):
    """What a format's module has."""

    NAME: str
    SUFFIXES: tuple[str, ...]

    def identify(self, blob: Blob, head: bytes) -> bool:
        """Whether the first bytes announce this format."""

    def read(self, blob: Blob, limits: Limits) -> Contents:
        """The checkpoint, without its tensor bytes."""


FORMATS: tuple[Format, ...] = (torch_zip, safetensors)


def identify(blob: Blob) -> Format | None:
    """The format that `blob`'s first bytes announce, or None."""
    head = blob.read(0, min(HEAD, blob.size))
    return next((known for known in FORMATS if known.identify(blob, head)), None)


def examine(blob: Blob, limits: Limits) -> Contents:
    """What can be found out about `blob`, `Contents.error` included.

    Raises `ReadError` if it is no checkpoint, or its container is damaged.
    """
    known = identify(blob)
    if known is None:
        raise foreign.error(blob, blob.read(0, min(HEAD, blob.size)))
    return known.read(blob, limits)


def read(blob: Blob, limits: Limits) -> Contents:
    """Read the checkpoint in `blob`. Raises `ReadError` if it is none or is damaged."""
    contents = examine(blob, limits)
    if contents.error is not None:
        raise contents.error
    return contents
