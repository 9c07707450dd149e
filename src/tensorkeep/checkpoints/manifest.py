"""The manifest of a training checkpoint: what lies beside it, and where it comes from.

`manifest.json` is JSON that `jq` reads. Its last entry is the SHA-256 of all of its bytes before
the 64 digits of that entry, so that a changed manifest is known as well as a changed file.
Tensors are digested one by one; the digest of a safetensors file is the SHA-256 of its header
(its 8 bytes of length included) followed by the 32 bytes of each tensor's digest, in the order in
which they lie, so that bytes are hashed once. Other files have the digest of their bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tensorkeep.checkpoints.migrations import CURRENT, KIND, migrated
from tensorkeep.errors import Damaged, LimitExceeded
from tensorkeep.stores.local.reading import plain_name

NAME = "manifest.json"
PREFIX = "sha256:"
# Only the bytes of states count towards it; a manifest of a million tensors has 150 MB.
LONGEST = 1 << 29
# An honest one has a comma for each tensor; a few bytes of text can ask for a hundred of memory.
MOST_VALUES = 5_000_000
_CLOSING = b'"\n}\n'
_DIGITS = 64
_WRITTEN = re.compile(r"sha256:[0-9a-f]{64}")
_DIGEST = re.compile(rb'\n "digest": "sha256:\Z')


@dataclass(frozen=True, slots=True)
class FileFacts:
    """`nbytes` of a file, its digest, and those of its tensors in the order in which they lie."""

    nbytes: int
    digest: str
    tensors: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As the manifest holds it."""
        more = {"tensors": dict(self.tensors)} if self.tensors else {}
        return {"bytes": self.nbytes, "digest": self.digest, **more}


@dataclass(frozen=True, slots=True)
class Manifest:
    """`facts` are those of `provenance`, and whatever else the run says of itself.

    `serial` counts the checkpoints of a run as they were saved: after a run went back to an older
    step, what it saves is newer than the steps beyond, whatever the clock says.
    """

    step: int
    files: Mapping[str, FileFacts]
    created: str
    parent: int | None = None
    epoch: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    serial: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all files but the manifest."""
        return sum(file.nbytes for file in self.files.values())

    def to_dict(self) -> dict[str, Any]:
        """As it is written, without its own digest."""
        return {
            "kind": KIND,
            "version": CURRENT,
            "step": self.step,
            "epoch": self.epoch,
            "parent": self.parent,
            "serial": self.serial,
            "created": self.created,
            "metrics": {name: _shown(value) for name, value in self.metrics.items()},
            **self.facts,
            "files": {name: file.to_dict() for name, file in self.files.items()},
        }

    def to_bytes(self) -> bytes:
        """The text, its digest at the end."""
        return sealed(self.to_dict())

    @classmethod
    def from_bytes(cls, text: bytes, subject: str) -> Manifest:
        """Raises `Damaged` if it is not what was written, `Unsupported` if it is of the future."""
        raw = migrated(unsealed(text, subject), subject)
        try:
            return _read(raw)
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise Damaged(subject, expected="the fields of a manifest", got=repr(error)) from error


_OWN = {"kind", "version", "step", "epoch", "parent", "serial", "created", "metrics", "files"}


def _read(raw: Mapping[str, Any]) -> Manifest:
    files = {_plain(name): _facts(each) for name, each in raw["files"].items()}
    parent = raw["parent"]
    return Manifest(
        int(raw["step"]),
        files,
        str(raw["created"]),
        None if parent is None else int(parent),
        int(raw["epoch"]),
        {str(name): float(value) for name, value in raw["metrics"].items()},
        {name: value for name, value in raw.items() if name not in _OWN},
        int(raw["serial"]),
    )


def _plain(name: str) -> str:
    if not plain_name(name):
        raise ValueError(f"{name!r} leads out of the folder")
    return name


def _facts(each: Mapping[str, Any]) -> FileFacts:
    tensors = dict(each.get("tensors", {}))
    for digest in (each["digest"], *tensors.values()):
        if not _WRITTEN.fullmatch(digest):
            raise ValueError(f"{digest!r} is no digest")
    return FileFacts(int(each["bytes"]), each["digest"], tensors)


def _shown(value: float) -> float | str:
    # JSON has no number for these; `float` reads the words.
    return value if value - value == 0 else repr(float(value))


def sealed(content: Mapping[str, Any]) -> bytes:
    """JSON of `content` with the digest of its own bytes as the last entry."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    open_text = text.removesuffix("\n}") if content else "{"
    comma = "," if content else ""
    head = f'{open_text}{comma}\n "digest": "{PREFIX}'.encode()
    return head + hashlib.sha256(head).hexdigest().encode() + _CLOSING


def unsealed(text: bytes, subject: str) -> dict[str, Any]:
    """The content of what `sealed` wrote. Raises `Damaged` if a bit of it is another."""
    head = text[: -len(_CLOSING) - _DIGITS]
    digits = text[len(head) : len(head) + _DIGITS]
    whole = text.endswith(_CLOSING) and _DIGEST.search(head)
    found = hashlib.sha256(head).hexdigest()
    if not whole or digits != found.encode():
        raise Damaged(
            subject,
            expected="a text that ends in its own digest"
            if not whole
            else PREFIX + digits.decode("ascii", "replace"),
            got=f"{len(text)} bytes that do not" if not whole else PREFIX + found,
            remedy="Resume from another checkpoint, or restore this file from a backup.",
        )
    content = _parsed(text, subject)
    del content["digest"]
    return content


def _parsed(text: bytes, subject: str) -> dict[str, Any]:
    # Whoever makes up a manifest makes up its digest, too.
    values = sum(text.count(each) for each in (b",", b"[", b"{"))
    if values > MOST_VALUES:
        raise LimitExceeded(subject, expected=f"at most {MOST_VALUES} values", got=values)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(subject, expected="JSON", got=error) from error
    if not isinstance(content, dict) or "digest" not in content:
        raise Damaged(subject, expected="an object with its digest", got=type(content).__name__)
    return content


def file_digest(header: bytes, tensors: Iterable[bytes]) -> str:
    """Of a safetensors file: its header and the digests of its tensors, in the file's order."""
    digest = hashlib.sha256(header)
    for each in tensors:
        digest.update(each)
    return PREFIX + digest.hexdigest()
