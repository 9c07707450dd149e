"""Planned archives: opened by torch, by zipfile, by Info-ZIP's rules and by our own reader."""

import io
import os
import zipfile
import zlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.serialization import config

from tensorkeep.archives.zip_writer import ZipPlan
from tensorkeep.errors import BadArgument
from tensorkeep.facts import Limits


def written(plan, contents):
    """The whole file as bytes; `contents` in the order of the plan."""
    out = bytearray(plan.total)
    crcs = [zlib.crc32(data) for data in contents]
    for slot, data, crc in zip(plan.slots, contents, crcs, strict=True):
        header = slot.header(crc)
        assert slot.header_offset + len(header) == slot.data_offset
        out[slot.header_offset : slot.data_offset] = header
        out[slot.data_offset : slot.data_offset + slot.size] = data
    directory = plan.directory(crcs)
    assert plan.directory_offset + len(directory) == plan.total
    out[plan.directory_offset :] = directory
    return bytes(out)


def repacked(source, root="model"):
    """The members of a torch archive in a planned one, without the record of its layout."""
    plan, contents = ZipPlan(root), []
    with zipfile.ZipFile(source) as archive:
        for name in archive.namelist():
            short = name.partition("/")[2]
            if short not in (".format_version", ".storage_alignment"):
                data = archive.read(name)
                plan.add(short, len(data))
                contents.append(data)
    return plan, written(plan, contents)


@pytest.fixture
def state():
    return {"weight": torch.randn(40, 3), "steps": torch.arange(5), "none": torch.zeros(0), "n": 7}


@pytest.fixture
def planned(state, tmp_path):
    torch.save(state, tmp_path / "source.pth")
    path = tmp_path / "model.pth"
    path.write_bytes(repacked(tmp_path / "source.pth")[1])
    return path


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("computed", [False, True])
def test_torch_loads_it(planned, state, mmap, computed):
    config.load.calculate_storage_offsets = computed
    try:
        loaded = torch.load(planned, weights_only=True, mmap=mmap)
    finally:
        config.load.calculate_storage_offsets = False
    assert loaded.keys() == state.keys() and loaded["n"] == 7
    for name in ("weight", "steps", "none"):
        assert torch.equal(loaded[name], state[name])


def test_zipfile_finds_it_whole(planned):
    with zipfile.ZipFile(planned) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_our_reader_finds_nothing_odd(planned, kit):
    archive = kit.opened(planned.read_bytes())
    assert archive.root == "model"
    assert kit.whole(archive) == []
    assert [archive.data_offset(m) % 64 for m in archive.members] == [0] * len(archive.members)


def test_the_same_plan_gives_the_same_bytes(state, tmp_path):
    torch.save(state, tmp_path / "source.pth")
    assert repacked(tmp_path / "source.pth")[1] == repacked(tmp_path / "source.pth")[1]


ALIGNED = st.tuples(st.binary(max_size=200), st.sampled_from([1, 2, 8, 64, 100, 4096]))


@given(st.lists(ALIGNED, max_size=12), st.text("aé/.", min_size=1, max_size=6))
def test_what_is_written_comes_back(kit, contents, name):
    plan = ZipPlan("root é")
    for index, (data, align) in enumerate(contents):
        slot = plan.add(f"{name}{index}", len(data), align)
        assert slot.data_offset % align == 0
    bytes_of = [data for data, _ in contents]
    whole = written(plan, bytes_of)
    archive = kit.opened(whole)
    assert [archive.read(m, Limits()) for m in archive.members] == bytes_of
    assert [archive.data_offset(m) for m in archive.members] == [s.data_offset for s in plan.slots]
    with zipfile.ZipFile(io.BytesIO(whole)) as peer:
        assert [peer.read(info) for info in peer.infolist()] == bytes_of
        assert peer.namelist() == [slot.name for slot in plan.slots]
    # A name such as "a/../b" is written as asked, and said to be odd when it is read.
    assert {anomaly.kind for anomaly in archive.anomalies} <= {"path-traversal"}


def test_sizes_and_offsets_beyond_4_gib(tmp_path, kit):
    plan = ZipPlan("wide")
    sizes = [3, 5 * 2**30, 2**32 - 1, 2**32 - 2, 7, 0]
    for index, size in enumerate(sizes):
        plan.add(f"data/{index}", size)
    plan.add("version", 2)
    path = tmp_path / "wide.pth"
    with path.open("wb") as file:
        file.truncate(plan.total)
        for slot in plan.slots:
            os.pwrite(file.fileno(), slot.header(zlib.crc32(b"3\n")), slot.header_offset)
        os.pwrite(file.fileno(), b"3\n", plan.slots[-1].data_offset)
        os.pwrite(file.fileno(), plan.directory([zlib.crc32(b"3\n")] * 7), plan.directory_offset)
    archive = kit.opened(kit.FileBlob(path))
    for member in archive.members:
        archive.check_local(member)
    assert archive.anomalies == []
    assert [m.size for m in archive.members] == [*sizes, 2]
    peer = torch._C.PyTorchFileReader(str(path))
    with zipfile.ZipFile(path) as theirs:
        for member, slot, info in zip(archive.members, plan.slots, theirs.infolist(), strict=True):
            name = member.name.removeprefix("wide/")
            assert archive.data_offset(member) == slot.data_offset == peer.get_record_offset(name)
            assert member.size == info.file_size == peer.get_record_size(name)
            assert member.header_offset == info.header_offset == slot.header_offset
        assert theirs.read("wide/version") == b"3\n"


def test_more_than_65535_members(kit):
    plan = ZipPlan("r")
    for index in range(65_600):
        plan.add(f"data/{index}", 0, align=1)
    data = written(plan, [b""] * 65_600)
    archive = kit.opened(data)
    assert len(archive.members) == 65_600 and archive.anomalies == []
    assert len(zipfile.ZipFile(io.BytesIO(data)).infolist()) == 65_600


@pytest.mark.parametrize("root", ["", "a/b", "a\\b", ".", ".."])
def test_roots_that_are_refused(root):
    with pytest.raises(BadArgument):
        ZipPlan(root)


@pytest.mark.parametrize("name", ["x\0", "a\\b", "n" * 65_535, "\ud800"])
def test_names_that_are_refused(name):
    plan = ZipPlan("r")
    with pytest.raises(BadArgument):
        plan.add(name, 1)
    assert plan.slots == []


def test_a_name_twice_in_any_case_is_refused():
    plan = ZipPlan("r")
    plan.add("data/a", 1)
    with pytest.raises(BadArgument, match="already"):
        plan.add("DATA/A", 1)


@pytest.mark.parametrize(("size", "align"), [(-1, 64), (1, 0), (1, -64), (1, 1 << 16)])
def test_sizes_and_alignments_that_are_refused(size, align):
    with pytest.raises(BadArgument):
        ZipPlan("r").add("x", size, align)


def test_checksums_must_be_as_many_as_members():
    plan = ZipPlan("r")
    plan.add("x", 1)
    with pytest.raises(BadArgument, match="1 checksums"):
        plan.directory([])
