"""One file in a compressed stream: gzip, zlib (joblib's), bzip2, xz and lzma.

Sources: RFC 1950 to 1952; the xz format 1.2; bzip2's `BZh`; joblib's `compressor.py` (1.6). The
stream is unpacked into memory and what is in it is examined in place of it. Python's readers
take several gzip, bzip2 or xz streams in a row for one, and so does this one.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from tensorkeep.errors import Damaged, LimitExceeded, NotACheckpoint, ReadError
from tensorkeep.facts import Anomaly, Limits, MiB
from tensorkeep.formats.contents import Contents, Parts, plain
from tensorkeep.pickles import run
from tensorkeep.stores import Blob
from tensorkeep.stores.memory import MemoryBlob

NAME = "compressed"
SUFFIXES: tuple[str, ...] = (".gz", ".z", ".bz2", ".xz", ".lzma")
_STEP = MiB
_EXEMPT = 16 * MiB
_BUSY = 1_000_000  # opcodes in the first megabytes: an attack, where zeros would only be large
_LOOK = 2 * MiB
_MEMORY = 256 * MiB  # of lzma's dictionary
_ZFILE = 21  # bytes of joblib's old header


class _Engine(Protocol):
    """What `bz2`, `lzma` and the class below have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Zlib:
    """zlib's engine with the manners of the others."""

    def __init__(self, bits: int) -> None:
        self._engine = zlib.decompressobj(bits)

    @property
    def eof(self) -> bool:
        return self._engine.eof

    @property
    def needs_input(self) -> bool:
        return not self._engine.unconsumed_tail and not self._engine.eof

    @property
    def unused_data(self) -> bytes:
        return self._engine.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._engine.decompress(self._engine.unconsumed_tail + data, max_length)


@dataclass(frozen=True, slots=True)
class _Kind:
    """`several`: further streams may follow. `start`: bytes before the stream."""

    name: str
    make: Callable[[], _Engine]
    several: bool = False
    start: int = 0

    @property
    def certain(self) -> bool:
        """Whether the magic is long enough that nothing else begins so."""
        return self.several


def _kind(head: bytes) -> _Kind | None:
    if head.startswith(b"\x1f\x8b\x08"):
        return _Kind("gzip", lambda: _Zlib(16 + zlib.MAX_WBITS), several=True)
    if head.startswith(b"BZh") and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):
        return _Kind("bzip2", bz2.BZ2Decompressor, several=True)
    if head.startswith(b"\xfd7zXZ\x00"):
        return _Kind("xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _MEMORY), several=True)
    if head.startswith(b"\x5d\x00") and head[13:14] == b"\0":
        return _Kind("lzma", lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, _MEMORY))
    start = 0
    if head.startswith(b"ZF0x"):
        # joblib before 0.10: the length in hexadecimal, filled up with blanks.
        start = _ZFILE + (head[_ZFILE : _ZFILE + 1] == b" ")
    # Method 8 with a window, and a checksum of the two bytes.
    magic = head[start : start + 2]
    if len(magic) == 2 and magic[0] == 0x78 and int.from_bytes(magic, "big") % 31 == 0:
        return _Kind("zlib", lambda: _Zlib(zlib.MAX_WBITS), start=start)
    return None


def identify(blob: Blob, head: bytes) -> bool:
    """Whether the first bytes begin such a stream, and unpack where that magic is short."""
    kind = _kind(head)
    if kind is None or kind.certain:
        return kind is not None
    try:
        return bool(kind.make().decompress(head[kind.start :], 64)) or blob.size > len(head)
    except (zlib.error, lzma.LZMAError, MemoryError):
        return False


def read(blob: Blob, limits: Limits, parts: Parts) -> Contents:
    """What the stream holds, as if it lay there unpacked.

    Raises `NotACheckpoint` if that is no checkpoint, `Damaged` for a stream that does not unpack.
    """
    kind = _kind(blob.read(0, min(32, blob.size)))
    if kind is None:
        raise Damaged(blob.name, expected="a compressed stream", got="another beginning")
    unpacking = _Unpacking(blob, kind, limits)
    try:
        data = unpacking.all()
    except LimitExceeded as error:
        return _bomb(bytes(unpacking.out[:_LOOK]), kind.name, error, limits)
    name = f"{blob.name} (unpacked)"
    try:
        inside = parts.examine(MemoryBlob(data, name))
    except NotACheckpoint as error:
        raise NotACheckpoint(
            blob.name,
            expected="a checkpoint",
            got=f"{kind.name} data, and in them {error.got}",
            remedy="Unpack it and look at what is in it.",
        ) from None
    except ReadError as error:
        raise _renamed(error, blob.name) from None
    audit = inside.audit
    return replace(
        inside,
        container=f"{inside.container} in {kind.name}",
        anomalies=[*inside.anomalies, *unpacking.anomalies],
        audit=lambda deep: [*audit(deep), *unpacking.anomalies],
    )


def _renamed(error: ReadError, name: str) -> ReadError:
    return type(error)(
        name, expected=error.expected, got=error.got, where=error.where, remedy=error.remedy
    )


class _Unpacking:
    """A stream on its way into memory, a megabyte at a time; `out` is what came of it so far."""

    def __init__(self, blob: Blob, kind: _Kind, limits: Limits) -> None:
        self.blob = blob
        self.limits = limits
        self.out = bytearray()
        self.anomalies: list[Anomaly] = []
        self._name, self._several, self._make = kind.name, kind.several, kind.make
        self._taken = kind.start

    def all(self) -> bytes:
        """Every byte. Raises `Damaged` and `LimitExceeded`."""
        left = self._one(b"")
        while left and self._several and self._begins(left):
            left = self._one(left)
        rest = len(left) + self.blob.size - self._taken
        if rest and left.strip(b"\0"):
            what = f"{rest} bytes follow the end of the {self._name} data"
            self.anomalies.append(Anomaly("trailing-bytes", what, "", self.blob.size - rest))
        return bytes(self.out)

    def _begins(self, left: bytes) -> bool:
        kind = _kind(left[:32])
        return kind is not None and kind.name == self._name

    def _one(self, data: bytes) -> bytes:
        """Unpack one stream that begins with `data`; what of it was not used."""
        engine = self._make()
        while not engine.eof:
            if engine.needs_input and not data:
                data = self._more()
            try:
                fresh = engine.decompress(data, _STEP)
            except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
                raise self._damaged(str(error)) from None
            except MemoryError:
                raise LimitExceeded(self.blob.name, expected="a small dictionary") from None
            if not fresh and not data and not engine.eof:
                raise self._damaged("its end")
            data = b""
            self.out += fresh
            self._check()
        return engine.unused_data or (self._more() if self._several else b"")

    def _more(self) -> bytes:
        length = min(_STEP, self.blob.size - self._taken)
        piece = self.blob.read(self._taken, length) if length else b""
        self._taken += length
        return piece

    def _check(self) -> None:
        length, limits = len(self.out), self.limits
        if length > limits.max_pickle_bytes:
            expected = f"at most {limits.max_pickle_bytes} bytes when unpacked"
            raise LimitExceeded(self.blob.name, expected=expected, got="more")
        if length > max(_EXEMPT, limits.max_ratio * self._taken):
            expected = f"at most {limits.max_ratio} times its compressed size"
            got = f"{length} bytes out of {self._taken}"
            raise LimitExceeded(self.blob.name, expected=expected, got=got)

    def _damaged(self, got: str) -> Damaged:
        return Damaged(self.blob.name, expected=f"whole {self._name} data", got=got)


def _bomb(start: bytes, name: str, error: LimitExceeded, limits: Limits) -> Contents:
    """A stream that unpacks to more than the limits allow, and what its first megabytes say.

    Zeros compress a thousandfold and honestly: only the time is lost. Millions of opcodes out of
    kilobytes are an attack on whoever loads them.
    """
    program = run(start, limits=limits)
    anomalies = []
    if program.opcodes > _BUSY:
        what = f"{error.got}, and {program.opcodes} opcodes in the first {len(start)} of them"
        anomalies.append(Anomaly("compressed-bomb", what))
    return Contents(
        format=NAME,
        container=name,
        root=None,
        lens=plain,
        storages={},
        programs=[("the unpacked pickle's beginning", program)] if program.trace else [],
        anomalies=anomalies,
        error=error,
    )
