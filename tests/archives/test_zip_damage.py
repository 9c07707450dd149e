"""Files cut short and bytes flipped: a right answer or one of our errors, and nothing else."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tensorkeep.errors import ReadError
from tensorkeep.facts import Limits

LIMITS = Limits(max_pickle_bytes=1 << 20, max_entries=10_000)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    path = tmp_path_factory.mktemp("damage") / "m.pth"
    torch.save({"weight": torch.arange(4.0), "n": 3}, path)
    return path.read_bytes()


def try_all(kit, data):
    """Everything there is to read, and how many members gave their bytes."""
    try:
        archive = kit.opened(data, LIMITS)
    except ReadError as error:
        assert str(error)
        return None
    given_up = 0
    for entry in archive.members:
        archive.locate(entry.name)
        try:
            archive.check_local(entry)
            archive.read(entry, LIMITS)
        except ReadError:
            given_up += 1
    assert all(anomaly.what for anomaly in archive.anomalies)
    return archive, given_up


def test_cut_anywhere(real, kit):
    for length in range(len(real)):
        outcome = try_all(kit, real[:length])
        assert outcome is None


def test_every_byte_flipped_in_every_header(real, kit):
    """Whatever is not refused and not noted reads as the undamaged file does."""
    whole, _ = try_all(kit, real)
    good = {m.name: whole.read(m, LIMITS) for m in whole.members}
    data_bytes = set()
    for m in whole.members:
        start = whole.data_offset(m)
        data_bytes.update(range(start, start + m.size))
    chance = random.Random(1)
    missed = []
    for at in range(len(real)):
        broken = bytearray(real)
        broken[at] ^= 1 << chance.randrange(8)
        outcome = try_all(kit, bytes(broken))
        if outcome is None or outcome[1] or outcome[0].anomalies:
            continue
        archive = outcome[0]
        if {m.name: archive.read(m, LIMITS) for m in archive.members} != good:
            missed.append(at)
    assert not data_bytes & set(missed), "checksums cover the data"
    assert missed == []


@given(st.data())
def test_random_damage(real, kit, data):
    broken = bytearray(real)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(broken) - 1))
        broken[at] = data.draw(st.sampled_from([0, 1, 0x50, 0x4B, 0x7F, 0x80, 0xFF]))
    try_all(kit, bytes(broken))


@given(st.data())
def test_random_damage_in_the_directory(real, kit, data):
    broken = bytearray(real)
    start = real.index(b"PK\1\2")
    for _ in range(data.draw(st.integers(1, 12))):
        at = data.draw(st.integers(start, len(broken) - 1))
        broken[at] = data.draw(st.integers(0, 255))
    try_all(kit, bytes(broken))


def test_with_any_bit_flipped_torch_reads_the_same_or_nothing(real, kit, tmp_path):
    """The other way round too: what torch opens, this reader opens or refuses."""
    path, compared = tmp_path / "m.pth", 0
    chance = random.Random(5)
    start = real.index(b"PK\1\2")
    for at in [*range(start, len(real)), *range(64), *range(64)]:
        broken = bytearray(real)
        broken[at] ^= 1 << chance.randrange(8)
        path.write_bytes(broken)
        try:
            peer = torch._C.PyTorchFileReader(str(path))
            archive = kit.opened(bytes(broken), LIMITS)
        except (RuntimeError, ReadError):
            continue
        if any(anomaly.kind == "directory-with-data" for anomaly in archive.anomalies):
            continue
        for name in ("data.pkl", "data/0", "version", "byteorder"):
            found = archive.locate(f"{archive.root}/{name}")
            assert peer.has_record(name) == (found is not None)
            try:
                theirs = peer.get_record(name) if found else b""
                ours = archive.read(found, LIMITS) if found else b""
            except (RuntimeError, ReadError):
                continue
            assert ours == theirs
            compared += 1
    assert compared > 1000


@given(st.binary(max_size=400))
def test_any_bytes(kit, data):
    try_all(kit, data)
    try_all(kit, b"PK\3\4" + data + b"PK\5\6" + bytes(18))
    end = bytes(4) + b"\1\0\1\0" + (len(data) + 4).to_bytes(4, "little") + bytes(6)
    try_all(kit, b"PK\1\2" + data + b"PK\5\6" + end)
