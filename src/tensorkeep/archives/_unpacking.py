"""A member's bytes, stored or deflated, never more of them than is allowed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from tensorkeep.archives._entries import ZipMember
from tensorkeep.archives._notes import Notes
from tensorkeep.archives._records import DEFLATED, STORED, UNREADABLE
from tensorkeep.errors import Amplified, Damaged, LimitExceeded, Unsupported
from tensorkeep.facts import Limits, MiB
from tensorkeep.stores import Blob

_BLOCK = MiB
_EXEMPT = 16 * MiB


def unpack(blob: Blob, member: ZipMember, start: int, limits: Limits, notes: Notes) -> bytes:
    """The member's bytes, which lie packed at offset `start`.

    Raises Unsupported for encryption and other methods than stored and deflated, LimitExceeded
    over `limits.max_pickle_bytes` or `limits.max_ratio`, Damaged if the declared size is wrong.
    """
    _check_readable(blob, member)
    longest = max(member.size, member.compressed_size)
    if longest > limits.max_pickle_bytes:
        where = f"{blob.name}, {member.name}"
        raise LimitExceeded(where, expected=f"at most {limits.max_pickle_bytes} bytes", got=longest)
    if member.method == STORED:
        return blob.read(start, member.size)
    return b"".join(_inflated(blob, member, start, limits, notes))


def pieces(
    blob: Blob, member: ZipMember, start: int, limits: Limits, notes: Notes
) -> Iterator[bytes | memoryview]:
    """The same bytes a megabyte or so at a time, for members of any size.

    A piece holds until the next one is asked for. Raises as `unpack`, except that of the limits
    only `max_ratio` applies.
    """
    _check_readable(blob, member)
    if member.method == STORED:
        buffer = memoryview(bytearray(min(_BLOCK, member.size)))
        for at in range(0, member.size, _BLOCK):
            piece = buffer[: member.size - at]
            blob.read_into(start + at, piece)
            yield piece
    else:
        yield from _inflated(blob, member, start, limits, notes)


def _check_readable(blob: Blob, member: ZipMember) -> None:
    if member.flags & UNREADABLE or member.method not in (STORED, DEFLATED):
        raise Unsupported(
            f"{blob.name}, {member.name}",
            expected="a stored or deflated member, not encrypted",
            got=f"method {member.method}, flags {member.flags:#x}",
            remedy="Unpack it with another tool.",
        )


def _inflated(
    blob: Blob, member: ZipMember, start: int, limits: Limits, notes: Notes
) -> Iterator[bytes]:
    """Inflate in steps of a megabyte: the declared size allocates nothing."""
    out, taken, left = 0, 0, b""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    while not engine.eof:
        if not left:
            length = min(_BLOCK, member.compressed_size - taken)
            left = blob.read(start + taken, length) if length else b""
            taken += length
        fresh = _step(engine, left, blob, member)
        if not fresh and not left:
            raise _wrong_size(blob, member, f"the end of the data after {out}")
        left = engine.unconsumed_tail
        out += len(fresh)
        _check(out, taken, blob, member, limits)
        yield fresh
    if out != member.size:
        raise _wrong_size(blob, member, f"{out}")
    if engine.unused_data or taken < member.compressed_size:
        what = "bytes follow the end of the compressed data inside the member"
        notes.add("trailing-compressed-bytes", what, member.name, start)


def _step(engine: zlib._Decompress, data: bytes, blob: Blob, member: ZipMember) -> bytes:
    try:
        return engine.decompress(data, _BLOCK)
    except zlib.error as error:
        where = f"{blob.name}, {member.name}"
        raise Damaged(where, expected="deflated data", got=str(error)) from None


def _check(length: int, taken: int, blob: Blob, member: ZipMember, limits: Limits) -> None:
    if length > member.size:
        raise _wrong_size(blob, member, "more")
    if length > max(_EXEMPT, limits.max_ratio * taken):
        expected = f"at most {limits.max_ratio} times its compressed size"
        got = f"{length} bytes out of {taken}"
        raise Amplified(f"{blob.name}, {member.name}", expected=expected, got=got)


def _wrong_size(blob: Blob, member: ZipMember, got: str) -> Damaged:
    where = f"{blob.name}, {member.name}"
    return Damaged(where, expected=f"{member.size} bytes when decompressed", got=got)
