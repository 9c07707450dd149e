"""Archives that honest writers make: read as torch and zipfile read them, nothing odd noted."""

import io
import zipfile
import zlib

import pytest
import torch
import torch.utils.serialization as serialization
from hypothesis import given
from hypothesis import strategies as st

from tensorkeep.facts import Limits

STATE = {"weight": torch.arange(6.0), "bias": torch.ones(33), "none": torch.zeros(0)}


def save_default(path):
    torch.save(STATE, path)


def save_without_checksums(path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, path)
    finally:
        torch.serialization.set_crc32_options(True)


def save_aligned(alignment):
    def save(path):
        before = serialization.config.save.storage_alignment
        serialization.config.save.storage_alignment = alignment
        try:
            torch.save(STATE, path)
        finally:
            serialization.config.save.storage_alignment = before

    return save


def save_to_buffer(path):
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    path.write_bytes(buffer.getvalue())


def save_without_byteorder(path):
    torch.save(STATE, path, _disable_byteorder_record=True)


def save_without_data(path):
    with torch.serialization.skip_data():
        torch.save(STATE, path)


def save_protocol_4(path):
    torch.save(STATE, path, pickle_protocol=4)


def save_scripted(path):
    writer = torch._C.PyTorchFileWriter(str(path))
    writer.write_record("code/a.py", b"x = 1\n" * 100, 600)
    writer.write_record("data/0", b"", 0)
    writer.write_end_of_file()


WRITERS = [
    save_default, save_without_checksums, save_aligned(1), save_aligned(256), save_aligned(4096),
    save_to_buffer, save_without_byteorder, save_without_data, save_protocol_4, save_scripted,
]  # fmt: skip


@pytest.mark.parametrize("file_name", ["model.pth", "modèle 模型.pth", "a.b.c", "noext"])
@pytest.mark.parametrize("write", WRITERS)
def test_what_torch_writes_has_no_anomaly_and_lies_where_torch_finds_it(
    write, file_name, tmp_path, kit
):
    path = tmp_path / file_name
    write(path)
    archive = kit.opened(path.read_bytes())
    assert kit.whole(archive) == []
    peer = torch._C.PyTorchFileReader(str(path))
    records = peer.get_all_records()
    assert [m.name for m in archive.members] == [f"{archive.root}/{name}" for name in records]
    for name in records:
        found = archive.locate(f"{archive.root}/{name}")
        assert archive.data_offset(found) == peer.get_record_offset(name)
        assert found.header_offset == peer.get_record_header_offset(name)
        assert archive.read(found, Limits()) == peer.get_record(name)


def test_the_root_is_the_first_name_up_to_the_slash(kit):
    assert kit.opened(kit.build([kit.member("a/b/c"), kit.member("x/y")])).root == "a"
    assert kit.opened(kit.build([kit.member("weights.npy")])).root is None
    assert kit.opened(kit.build([])).root is None
    assert kit.opened(kit.build([])).members == []


def test_a_name_that_is_not_there(kit):
    archive = kit.opened(kit.build([kit.member("a/b", b"x")]))
    assert archive.locate("a/c") is None and archive.locate("") is None
    assert archive.locate("A/B") is archive.members[0]
    assert archive.locate("a/b\0ignored") is archive.members[0]


def test_without_checksums_nothing_is_compared(tmp_path, kit):
    save_without_checksums(tmp_path / "m.pth")
    archive = kit.opened((tmp_path / "m.pth").read_bytes())
    assert not archive.has_checksums
    assert not any(archive.has_checksum(m) for m in archive.members)


def test_storages_left_out_by_skip_data_have_no_checksum_and_the_rest_does(tmp_path, kit):
    save_without_data(tmp_path / "m.pth")
    archive = kit.opened((tmp_path / "m.pth").read_bytes())
    without = [m.name for m in archive.members if not archive.has_checksum(m)]
    assert without == ["m/data/0", "m/data/1", "m/data/2"]


def test_the_directory_of_a_large_file_takes_one_small_read(tmp_path, kit):
    path = tmp_path / "big.pth"
    writer = torch._C.PyTorchFileWriter(str(path))
    for index in range(300):
        writer.write_record_metadata(f"data/{index}", 70_000_000)
    writer.write_end_of_file()
    blob = kit.FileBlob(path)
    assert blob.size > 20_000_000_000
    archive = kit.opened(blob)
    assert len(archive.members) == 303
    assert blob.reads == 1 and blob.bytes_read < 70_000


def test_zip64_written_by_torch(tmp_path, kit):
    path = tmp_path / "wide.pth"
    writer = torch._C.PyTorchFileWriter(str(path))
    for index, size in enumerate((5 * 2**30, 3, 2**32 - 1, 100, 2**32 - 2, 0)):
        writer.write_record_metadata(f"data/{index}", size)
        writer.write_record(f"small{index}", b"abc", 3)
    writer.write_end_of_file()
    archive, peer = kit.opened(kit.FileBlob(path)), torch._C.PyTorchFileReader(str(path))
    for member in archive.members:
        name = member.name.removeprefix("wide/")
        archive.check_local(member)
        assert archive.data_offset(member) == peer.get_record_offset(name)
        assert member.size == peer.get_record_size(name)
    assert archive.anomalies == []


class Unseekable(io.RawIOBase):
    """What zipfile writes to a pipe: descriptors behind the data."""

    def __init__(self):
        self.got = bytearray()

    def writable(self):
        return True

    def write(self, data):
        self.got += data
        return len(data)


CHARACTERS = st.characters(blacklist_categories=("Cs",), blacklist_characters="\0\\:")
NAMES = st.text(CHARACTERS, min_size=1, max_size=12)
FILES = st.dictionaries(
    NAMES.map(lambda name: "r/" + name.replace("..", "_").lower()),
    st.binary(max_size=300),
    max_size=8,
)


@given(FILES, st.booleans(), st.booleans(), st.booleans(), st.binary(max_size=20))
def test_what_zipfile_writes_comes_back(kit, files, deflate, piped, forced, comment):
    files = {name: data for name, data in files.items() if "/../" not in name}
    keys = {name.encode().lower() for name in files}
    if len(keys) < len(files) or b"PK" in comment:
        return
    target = Unseekable() if piped else io.BytesIO()
    method = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    with zipfile.ZipFile(target, "w", method) as writer:
        writer.comment = comment
        for name, data in files.items():
            if name.endswith("/"):
                writer.writestr(name, b"")
                continue
            with writer.open(name, "w", force_zip64=forced) as file:
                file.write(data)
    archive = kit.opened(target.got if piped else target.getvalue())
    # A name that zipfile writes in cp437 it reads in cp437; torch reads bytes. ASCII and UTF-8
    # with its flag are the same for both.
    assert {m.name for m in archive.members} == set(files)
    for name, data in files.items():
        expected = b"" if name.endswith("/") else data
        assert archive.read(archive.locate(name), Limits()) == expected
    no_text = any(byte < 32 and byte not in b"\t\n\r" for byte in comment)
    assert kit.whole(archive) == (["comment-bytes"] if no_text else [])


def test_appending_with_zipfile_leaves_nothing_odd(tmp_path, kit):
    path = tmp_path / "m.pth"
    save_default(path)
    with zipfile.ZipFile(path, "a") as writer:
        writer.writestr("m/extra/notes.txt", "hello")
    archive = kit.opened(path.read_bytes())
    assert archive.read(archive.locate("m/extra/notes.txt"), Limits()) == b"hello"
    assert kit.whole(archive) == []


def test_many_members_and_the_16_bit_count(kit):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as writer:
        for index in range(65_600):
            writer.writestr(zipfile.ZipInfo(f"r/{index}"), b"")
    archive = kit.opened(buffer.getvalue())
    assert len(archive.members) == 65_600
    assert archive.locate("r/65599") is archive.members[-1]
    assert archive.anomalies == []


def test_a_directory_longer_than_the_tail_takes_two_reads(kit):
    blob = kit.BytesBlob(kit.build([kit.member(f"r/{index}") for index in range(3000)]))
    assert len(kit.opened(blob).members) == 3000
    assert blob.reads == 2


def test_checksums_are_those_of_zip(kit):
    data = b"some bytes"
    archive = kit.opened(kit.build([kit.member("r/x", data)]))
    assert archive.members[0].crc32 == zlib.crc32(data)
    archive.check_checksum(archive.members[0], zlib.crc32(data))
    assert archive.anomalies == []
    archive.check_checksum(archive.members[0], 1)
    assert [anomaly.kind for anomaly in archive.anomalies] == ["bad-checksum"]
