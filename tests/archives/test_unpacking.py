"""Members out of an archive: no more bytes than allowed, and no fewer than declared."""

import os
import tracemalloc
import zlib

import pytest

from tensorkeep.errors import Damaged, LimitExceeded, Unsupported
from tensorkeep.facts import Limits, MiB


def deflated(data, level=9):
    engine = zlib.compressobj(level, zlib.DEFLATED, -15)
    return engine.compress(data) + engine.flush()


def packed(kit, data, *, raw=None, **changes):
    raw = deflated(data) if raw is None else raw
    fields = {"method": 8, "size": len(data), "packed": len(raw), "crc": zlib.crc32(data)} | changes
    return kit.opened(kit.build([kit.member("r/x", raw, **fields)]))


@pytest.mark.parametrize("length", [0, 1, 1000, MiB, MiB + 1, 5 * MiB])
@pytest.mark.parametrize("noise", [False, True])
def test_deflated_members_come_back(length, noise, kit):
    data = os.urandom(length) if noise else bytes(length)
    archive = packed(kit, data)
    assert archive.read(archive.members[0], Limits()) == data
    assert kit.whole(archive) == []


@pytest.mark.parametrize("length", [0, 1, MiB, 3 * MiB + 5])
@pytest.mark.parametrize("method", [0, 8])
def test_members_of_any_size_come_in_pieces(length, method, kit):
    data = os.urandom(length)
    archive = packed(kit, data, method=method, raw=data if method == 0 else None)
    pieces = [bytes(p) for p in archive.pieces(archive.members[0], Limits(max_pickle_bytes=1))]
    assert b"".join(pieces) == data
    assert max(map(len, pieces), default=0) <= MiB


def test_a_declared_size_is_not_believed(kit):
    for declared in (9_999, 10_001):
        archive = packed(kit, bytes(10_000), size=declared)
        with pytest.raises(Damaged, match=f"expected {declared} bytes"):
            archive.read(archive.members[0], Limits())


def test_a_huge_declared_size_allocates_nothing(kit):
    archive = packed(kit, b"x" * 100, size=2**32 - 2)
    tracemalloc.start()
    with pytest.raises(LimitExceeded):
        archive.read(archive.members[0], Limits())
    with pytest.raises(Damaged):
        archive.read(archive.members[0], Limits(max_pickle_bytes=2**33))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MiB


def test_a_bomb_stops_at_the_ratio(kit):
    archive = packed(kit, bytes(64 * MiB), raw=deflated(bytes(64 * MiB)))
    tracemalloc.start()
    with pytest.raises(LimitExceeded, match="100 times"):
        archive.read(archive.members[0], Limits())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * MiB
    assert len(archive.read(archive.members[0], Limits(max_ratio=2000))) == 64 * MiB


def test_under_16_mib_any_ratio_is_honest(kit):
    archive = packed(kit, bytes(16 * MiB))
    assert len(archive.read(archive.members[0], Limits())) == 16 * MiB


@pytest.mark.parametrize("method", [0, 8])
def test_the_limit_on_one_member(method, kit):
    data = os.urandom(1000)
    archive = packed(kit, data) if method else kit.opened(kit.build([kit.member("r/x", data)]))
    assert archive.read(archive.members[0], Limits(max_pickle_bytes=2000)) == data
    with pytest.raises(LimitExceeded, match="at most 999 bytes"):
        archive.read(archive.members[0], Limits(max_pickle_bytes=999))


def test_data_that_does_not_inflate(kit):
    for raw in (b"\xff" * 50, deflated(os.urandom(500))[:-20], b"\x00"):
        archive = packed(kit, bytes(500), raw=raw)
        with pytest.raises(Damaged):
            archive.read(archive.members[0], Limits())


def test_bytes_behind_the_end_of_the_compressed_data(kit):
    for more in (b"payload", os.urandom(3 * MiB)):
        archive = packed(kit, b"data" * 100, raw=deflated(b"data" * 100) + more)
        assert archive.read(archive.members[0], Limits()) == b"data" * 100
        assert kit.whole(archive) == ["trailing-compressed-bytes"]


@pytest.mark.parametrize(
    "changes", [{"flags": 1}, {"flags": 0x20}, {"flags": 0x40}, {"method": 12}]
)
def test_what_is_not_read(changes, kit):
    archive = kit.opened(kit.build([kit.member("r/x", b"abc", **changes)]))
    with pytest.raises(Unsupported) as caught:
        archive.read(archive.members[0], Limits())
    assert "r/x" in str(caught.value) and caught.value.remedy


def test_a_wrong_checksum_is_noted_and_the_bytes_are_given(kit):
    archive = packed(kit, b"hello" * 10, crc=1)
    assert archive.read(archive.members[0], Limits()) == b"hello" * 10
    assert kit.whole(archive) == ["bad-checksum"]
