"""A member's bytes, stored or deflated, never more of them than is allowed."""

from __future__ import annotations

import zlib

from tensorkeep.archives._entries import ZipMember
from tensorkeep.archives._notes import Notes
from tensorkeep.archives._records import DEFLATED, STORED, UNREADABLE
from tensorkeep.errors import Damaged, LimitExceeded, Unsupported
from tensorkeep.facts import Limits, MiB
from tensorkeep.stores import Blob

_BLOCK = MiB
_EXEMPT = 16 * MiB


def unpack(blob: Blob, member: ZipMember, start: int, limits: Limits, notes: Notes) -> bytes:
    """The member's bytes, which lie packed at offset `start`.

    Raises Unsupported for encryption and other methods than stored and deflated, LimitExceeded
    over `limits.max_pickle_bytes` or `limits.max_ratio`, Damaged if the declared size is wrong.
    """
    where = f"{blob.name}, {member.name}"
    if member.flags & UNREADABLE or member.method not in (STORED, DEFLATED):
        got = f"method {member.method}, flags {member.flags:#x}"
        expected = "a stored or deflated member, not encrypted"
        raise Unsupported(where, expected=expected, got=got, remedy="Unpack it with another tool.")
    longest = max(member.size, member.compressed_size)
    if longest > limits.max_pickle_bytes:
        raise LimitExceeded(where, expected=f"at most {limits.max_pickle_bytes} bytes", got=longest)
    if member.method == STORED:
        return blob.read(start, member.size)
    return _inflate(blob, member, start, limits, notes)


def _inflate(blob: Blob, member: ZipMember, start: int, limits: Limits, notes: Notes) -> bytes:
    """Inflate in steps of a megabyte: the declared size allocates nothing."""
    out, taken, left = bytearray(), 0, b""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    while not engine.eof:
        if not left:
            length = min(_BLOCK, member.compressed_size - taken)
            left = blob.read(start + taken, length) if length else b""
            taken += length
        fresh = _step(engine, left, blob, member)
        if not fresh and not left:
            raise _wrong_size(blob, member, f"the end of the data after {len(out)}")
        left = engine.unconsumed_tail
        out += fresh
        _check(len(out), taken, blob, member, limits)
    if len(out) != member.size:
        raise _wrong_size(blob, member, f"{len(out)}")
    if engine.unused_data or taken < member.compressed_size:
        what = "bytes follow the end of the compressed data inside the member"
        notes.add("trailing-compressed-bytes", what, member.name, start)
    return bytes(out)


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
        raise LimitExceeded(f"{blob.name}, {member.name}", expected=expected, got=got)


def _wrong_size(blob: Blob, member: ZipMember, got: str) -> Damaged:
    where = f"{blob.name}, {member.name}"
    return Damaged(where, expected=f"{member.size} bytes when decompressed", got=got)
