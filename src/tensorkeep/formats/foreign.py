"""Files that are no checkpoint this version reads, named so that the user knows what to do.

Source of the magic numbers: the specification of each format.
"""

from __future__ import annotations

from tensorkeep.errors import NotACheckpoint, ReadError, Unsupported
from tensorkeep.facts import Limits
from tensorkeep.formats._programs import run_text
from tensorkeep.stores import Blob

_LATER = "This version does not read it yet; nothing in it was run."
_UNPACK = "Unpack it with its own tool and scan what is in it."

# (offset, magic, what it is, what to do): model containers, and archives that may hold some.
_MODELS = (
    (0, b"GGUF", "a GGUF file", _LATER),
    (0, b"tjgg", "a GGML file, which GGUF replaced", _LATER),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras, perhaps)", _LATER),
    (4, b"TFL3", "a TensorFlow Lite file", _LATER),
    (4, b"ET12", "an ExecuTorch program", _LATER),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it first (7z x) and scan what is in it."),
    (0, b"Rar!\x1a\x07", "a rar archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "zstd data", "Unpack it first (unzstd) and scan what is in it."),
    (0, b"\x04\x22\x4d\x18", "lz4 data", "Unpack it first (unlz4) and scan what is in it."),
    (0, b"\x1f\x8b", "gzip data of an unknown method", _UNPACK),
)
_OTHERS = (
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file", "Run `git lfs pull`."),
    (0, b"<!DOCTYPE", "a web page", "The download fetched a page; use the file's own link."),
    (0, b"<html", "a web page", "The download fetched a page; use the file's own link."),
)


def model_kind(head: bytes) -> str:
    """What model file or archive this is that nothing here reads; empty if it is none."""
    for offset, magic, what, _ in _MODELS:
        if head[offset : offset + len(magic)] == magic:
            return what
    return "a pickle outside any container" if _looks_pickled(head) else ""


def error(blob: Blob, head: bytes) -> ReadError:
    """The error that says what `blob` is instead of a checkpoint."""
    if not head:
        return NotACheckpoint(
            blob.name,
            expected="a checkpoint",
            got="an empty file",
            remedy="The write or the download that made it did not finish; make it again.",
        )
    for table, kind in ((_MODELS, Unsupported), (_OTHERS, NotACheckpoint)):
        for offset, magic, what, remedy in table:
            if head[offset : offset + len(magic)].lower() == magic.lower():
                return kind(blob.name, expected="a checkpoint", got=what, remedy=remedy)
    failed = run_text(head, limits=Limits()).error if _looks_pickled(head) else None
    if isinstance(failed, ReadError):
        # It begins like a pickle and imports nothing: what broke it off says the most.
        said = {"expected": failed.expected, "got": failed.got, "where": failed.where}
        return type(failed)(f"{blob.name}, a pickle outside any container", **said)
    return NotACheckpoint(
        blob.name,
        expected="torch.save's zip or safetensors",
        got=f"a file that begins with {head[:8]!r}",
        remedy="See the list of formats in the documentation (docs/formats.md).",
    )


def _looks_pickled(head: bytes) -> bool:
    return len(head) > 2 and head[0] == 0x80 and head[1] <= 5
