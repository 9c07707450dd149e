"""From what the user names to the bytes: the table of schemes, and all that is no URL."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from tensorkeep.errors import BadArgument, UnknownScheme
from tensorkeep.stores import Blob, Buffer
from tensorkeep.stores._errors import file_name
from tensorkeep.stores.local import LocalBlob
from tensorkeep.stores.memory import MemoryBlob
from tensorkeep.stores.streams import BinaryFile, FileObjectBlob, plain_file_blob, stdin_blob

Source = str | os.PathLike[str] | Buffer | BinaryFile

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_blob(source: Source) -> Blob:
    """The bytes of a path, a URL, bytes, a seekable binary file object, or "-" (stdin).

    Text with a scheme in front ("s3://...") is always a URL, whatever files lie around: what a
    command opens must not depend on that. A file of such a name opens as "./s3:/..." or as a
    `Path`. Raises `UnknownScheme`, `BadArgument` and what the stores raise.
    """
    if isinstance(source, str):
        return _open_text(source)
    if isinstance(source, os.PathLike):
        return LocalBlob(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return MemoryBlob(source)
    if all(callable(getattr(source, name, None)) for name in ("read", "seek", "tell")):
        return plain_file_blob(source) or FileObjectBlob(source)
    raise BadArgument(
        f"a {type(source).__name__}",
        expected="a path, a URL, bytes, or a file object that can read, seek and tell",
        remedy="Open it as a binary file, or pass its bytes.",
    )


def path_of(source: Source) -> Path | None:
    """The local path that `source` names, or None if it names none (bytes, files, "-", URLs).

    Raises `UnknownScheme` for a URL that no store answers to, `BadArgument` for no path at all.
    """
    if isinstance(source, str):
        scheme = _scheme_of(source)
        if source == "-" or scheme not in {"", "file"}:
            return None
        return file_url_path(source) if scheme else Path(file_name(source))
    return Path(file_name(source)) if isinstance(source, os.PathLike) else None


def target_path(target: str | os.PathLike[str]) -> str:
    """The local path to write to, its trailing slash kept: by that a folder is asked for.

    Raises `UnknownScheme` and, for "-", `BadArgument`: offsets are written in any order, which
    a pipe cannot take.
    """
    if not isinstance(target, str):
        return file_name(target)
    if target == "-":
        raise BadArgument(
            "-",
            expected="a file to write",
            got="standard output",
            remedy="Write to a file, and copy that.",
        )
    scheme = _scheme_of(target)
    if scheme not in {"", "file"}:
        raise _unwritable(scheme)
    return _file_url_text(target) if scheme else file_name(target)


def file_url_path(url: str) -> Path:
    """The path in a `file://` URL (RFC 8089): percent-decoded; the host empty or localhost.

    "?" and "#" are taken as part of the name, as they are more often there than meant.
    """
    return Path(_file_url_text(url))


def _file_url_text(url: str) -> str:
    from urllib.parse import unquote_to_bytes

    host, slash, path = url[len("file://") :].partition("/")
    if not slash or host.lower() not in {"", "localhost"}:
        raise BadArgument(
            url,
            expected="file:///path, on this machine",
            got=f"the host '{host}'",
            remedy=f"Did you mean file:///{host}{slash}{path} ?",
        )
    return file_name(os.fsdecode(b"/" + unquote_to_bytes(path)))


def _open_file_url(url: str) -> Blob:
    return LocalBlob(file_url_path(url))


SCHEMES: dict[str, Callable[[str], Blob]] = {"file": _open_file_url}


def _open_text(text: str) -> Blob:
    if text == "-":
        return stdin_blob()
    scheme = _scheme_of(text)
    return SCHEMES[scheme](text) if scheme else LocalBlob(text)


def _scheme_of(text: str) -> str:
    """The scheme in front of `text`, in lower case, or "". Raises `UnknownScheme`."""
    match = _SCHEME.match(text)
    scheme = match[1].lower() if match else ""
    if scheme and scheme not in SCHEMES:
        raise UnknownScheme(
            text,
            expected="a local path or " + ", ".join(f"{known}://" for known in sorted(SCHEMES)),
            got=f"{scheme}://",
            remedy="tensorkeep reads and writes local files in this version; "
            f"copy the file here first. A local file of that name is written ./{text}",
        )
    return scheme


def _unwritable(scheme: str) -> UnknownScheme:
    return UnknownScheme(f"{scheme}://", expected="a place to write to", got="one that is read")
