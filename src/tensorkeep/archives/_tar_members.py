"""A member of a tar archive."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TarMember:
    """`size` bytes of data from byte `offset` of the file; the header lies at `header_offset`.

    `kind` is "file", "directory", "symlink", "hardlink", "device", "fifo", "sparse" (the bytes
    stored are not those of the file) or "other". `link` is where a link leads.
    """

    name: str
    offset: int
    size: int
    kind: str
    link: str
    header_offset: int
