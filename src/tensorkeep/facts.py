"""Frozen records that rooms hand to each other: what was read, what is odd, what it means.

They hold values and turn into JSON; they decide nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

Severity = Literal["suspicious", "dangerous", "unknown"]
Verdict = Literal["safe", "suspicious", "unknown", "dangerous"]

MiB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What reading may cost beyond work linear in the bytes given. Sizes in bytes.

    `max_pickle_bytes`: one pickle program, decompressed.
    `max_ratio`: how many times its compressed size a member may decompress to
    (members under 16 MiB are exempt: a list of zeros compresses well and honestly).
    `max_stack` and `max_memo`: live entries of the pickle machine.
    `max_json_bytes`: a JSON header or index (safetensors itself refuses over 100 MB).
    `max_expansion`: nodes visited when shared values are written out one by one, beyond one for
    each byte of the pickle (a million take seconds).
    `max_entries`: members of one archive.
    `max_depth`: containers inside containers (CPython itself cannot write more than a thousand).
    """

    max_pickle_bytes: int = 1024 * MiB
    max_ratio: int = 100
    max_stack: int = 4_000_000
    max_memo: int = 16_000_000
    max_json_bytes: int = 100_000_000
    max_expansion: int = 1_000_000
    max_entries: int = 5_000_000
    max_depth: int = 1_000


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something in the bytes that no honest writer does, or that two readers may read differently.

    `kind` is a stable word ("duplicate-member"), `where` a place inside the container (a member's
    name, a key), `offset` the byte position in the file or None, `what` a sentence.
    """

    kind: str
    what: str
    where: str = ""
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a rule says about a file.

    `where` is for people: the place inside the container and the byte. `member` and `offset` are
    the same for machines: the offset is a byte position in that member, or in the file if
    `member` is empty; None where the finding is about no byte. `subject` is the name that the
    finding is about ("os.system"), or "".
    """

    rule: str
    severity: Severity
    where: str
    what: str
    why: str
    remedy: str
    member: str = ""
    offset: int | None = None
    subject: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor's entry in a checkpoint's index.

    `shape` and `stride` in elements, `offset` in elements from the start of the storage,
    `nbytes` is what the elements fill when they lie contiguous. `tied_to` is the first name
    under which the very same tensor is stored, or None.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    section: str
    storage: str
    offset: int
    stride: tuple[int, ...]
    tied_to: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "bytes": self.nbytes,
            "section": self.section,
            "storage": self.storage,
            "offset": self.offset,
            "stride": list(self.stride),
            "tied_to": self.tied_to,
        }


@dataclass(frozen=True, slots=True)
class SectionInfo:
    """A top-level part of a checkpoint: how many tensors, elements and bytes lie in it."""

    name: str
    tensors: int
    parameters: int
    nbytes: int

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        return {
            "name": self.name,
            "tensors": self.tensors,
            "parameters": self.parameters,
            "bytes": self.nbytes,
        }
