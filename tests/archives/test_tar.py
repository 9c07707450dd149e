"""Tar directories: what Python's tarfile reads, and an anomaly wherever readers part ways."""

import io
import random
import struct
import tarfile

import pytest

from tensorkeep.archives import tar
from tensorkeep.errors import Damaged, LimitExceeded, ReadError
from tensorkeep.facts import Limits
from tensorkeep.stores.memory import MemoryBlob

LIMITS = Limits()
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def packed(*entries, format=tarfile.PAX_FORMAT, **options):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format, **options) as archive:
        for name, data, *rest in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in (rest[0] if rest else {}).items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def opened(data, limits=LIMITS):
    return tar.read_directory(MemoryBlob(data), limits)


def kinds(data):
    return {anomaly.kind for anomaly in opened(data).anomalies}


def with_checksum(block):
    block = bytearray(block)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def patched(data, at, value, header=0):
    """The archive with `value` at byte `at` of the header at `header`, its checksum mended."""
    out = bytearray(data)
    out[header + at : header + at + len(value)] = value
    out[header : header + 512] = with_checksum(out[header : header + 512])
    return bytes(out)


@pytest.mark.parametrize("format", FORMATS)
def test_reads_what_tarfile_writes_as_tarfile_reads_it(format):
    long = "folder/" * 12 + "n" * 90 if format == tarfile.USTAR_FORMAT else "f/" * 90 + "é" * 200
    data = packed(
        ("a.txt", b"one"),
        ("empty", b""),
        ("folder", b"", {"type": tarfile.DIRTYPE}),
        (long, b"x" * 5000),
        ("z" * 100, b"\0" * 512),
        format=format,
    )
    archive = opened(data)
    assert archive.anomalies == []
    with tarfile.open(fileobj=io.BytesIO(data)) as peer:
        assert [m.name for m in archive.members] == peer.getnames()
        for member in archive.members:
            assert archive.locate(member.name) is member
            if member.kind == "file":
                with archive.open(member) as inside:
                    assert inside.read(0, member.size) == peer.extractfile(member.name).read()
    assert [m.kind for m in archive.members][2] == "directory"
    assert archive.locate("nowhere") is None


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_ten_gigabytes_are_places(format):
    """Sizes in base 256 and in pax headers, on a file with a hole."""
    size = 10 << 30
    info = tarfile.TarInfo("big")
    info.size = size
    head = info.tobuf(format)
    after = packed(("after", b"seen"))

    class Holey(MemoryBlob):
        def __init__(self):
            super().__init__(b"")
            self.size = len(head) + size + len(after)

        def read(self, offset, length):
            out = bytearray(length)
            for at, piece in ((0, head), (len(head) + size, after)):
                for i, byte in enumerate(piece):
                    if offset <= at + i < offset + length:
                        out[at + i - offset] = byte
            self.bytes_read += length
            return bytes(out)

    blob = Holey()
    archive = tar.read_directory(blob, Limits())
    assert [(m.name, m.size) for m in archive.members] == [("big", size), ("after", 4)]
    assert archive.anomalies == []
    assert blob.bytes_read < 64 << 10


CASES = {
    "path-traversal": ("../../out", b"x"),
    "absolute-path": ("/etc/out", b"x"),
    "device-member": ("null", b"", {"type": tarfile.CHRTYPE}),
    "link-member": ("a", b"", {"type": tarfile.SYMTYPE, "linkname": "b"}),
    "link-outside": ("d/a", b"", {"type": tarfile.SYMTYPE, "linkname": "../../b"}),
    "unknown-member": ("v", b"", {"type": b"V"}),
}


@pytest.mark.parametrize("kind", CASES)
def test_odd_members(kind):
    assert kinds(packed(CASES[kind], ("fine", b"x"))) == {kind}


def test_links_out_of_the_archive():
    for link in ("/etc/passwd", "..", "a/../../b", "C:\\x"):
        assert "link-outside" in kinds(
            packed(("s", b"", {"type": tarfile.SYMTYPE, "linkname": link}))
        )
    hard = ("d/h", b"", {"type": tarfile.LNKTYPE, "linkname": "../b"})
    assert "link-outside" in kinds(packed(hard))
    below = [("d", b"", {"type": tarfile.SYMTYPE, "linkname": "e"}), ("d/x", b"y")]
    assert "link-outside" in kinds(packed(*below))


def test_one_name_twice_takes_the_last_as_tarfile_does():
    data = packed(("a", b"first"), ("a", b"second!"))
    archive = opened(data)
    assert archive.locate("a").size == 7
    assert kinds(data) == {"duplicate-member"}
    assert kinds(packed(("a", b"1"), ("A", b"2"))) == {"case-collision"}
    assert kinds(packed(("a", b"1"), ("./a", b"2"))) == {"case-collision"}


def test_a_wrong_checksum_ends_the_archive_for_tarfile_and_not_for_others():
    data = bytearray(packed(("a", b"1"), ("b", b"2")))
    data[1024] ^= 1
    archive = opened(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as peer:
        assert [m.name for m in archive.members] == peer.getnames() == ["a"]
    assert kinds(data) == {"bad-header-checksum"}
    data[0] ^= 1
    with pytest.raises(Damaged, match="tar header"):
        opened(data)


def test_bytes_behind_the_end():
    data = packed(("a", b"1"))
    assert kinds(data + b"hidden") == {"trailing-bytes"}
    assert kinds(data + bytes(4096)) == set()
    assert kinds(data[:1024]) == {"no-end-blocks"}
    assert kinds(data[:1536]) == {"no-end-blocks"}
    assert kinds(data[:1536] + packed(("b", b"2"))) == {"trailing-bytes"}
    assert kinds(data + bytes(2 << 20)) == {"trailing-bytes"}


def test_sizes_that_readers_take_differently():
    plain = packed(("a", b"12345678"), ("b", b"x"))
    for field in (b"0o10\0\0\0\0\0\0\0\0", b"1_0\0\0\0\0\0\0\0\0\0", b"+10\0\0\0\0\0\0\0\0\0"):
        assert kinds(patched(plain, 124, field)) == {"odd-number"}
        assert opened(patched(plain, 124, field)).members[0].size == 8
    for field in (b"-10\0\0\0\0\0\0\0\0\0", b"\xff" * 12, b"9\0\0\0\0\0\0\0\0\0\0\0"):
        with pytest.raises(Damaged, match="size"):
            opened(patched(plain, 124, field))
    link = packed(("a", b"", {"type": tarfile.SYMTYPE, "linkname": "b"}), ("b", b"x"))
    assert "link-with-data" in kinds(patched(link, 124, b"00000001000\0"))
    with pytest.raises(Damaged, match="bytes of a member"):
        opened(patched(plain, 124, b"\x80" + struct.pack(">3xQ", 1 << 60)))


def test_pax_headers_that_contradict():
    data = packed(("a", b"12345678", {"pax_headers": {"size": "3"}}), ("b", b"x"))
    assert kinds(data) == {"pax-size-differs"}
    assert opened(data).members[0].size == 3
    everywhere = packed(("a", b"1"), pax_headers={"path": "other"})
    assert kinds(everywhere) == {"pax-global"}
    assert kinds(packed(("a", b"1"), pax_headers={"comment": "a commit"})) == set()
    holes = packed(("a", b"1", {"pax_headers": {"GNU.sparse.major": "1"}}))
    assert kinds(holes) == {"sparse-member"}
    with pytest.raises(Damaged, match="decimal digits"):
        opened(packed(("a", b"1", {"pax_headers": {"size": "-1"}})))
    with pytest.raises(Damaged, match="pax records"):
        opened(packed(("a", b"1", {"pax_headers": {"comment": "x"}})).replace(b"13 com", b"99 com"))


def test_two_long_names_for_one_member():
    first = packed(("x" * 200, b"1"), format=tarfile.GNU_FORMAT)[:1024]
    second = packed(("y" * 200, b"1"), format=tarfile.GNU_FORMAT)
    data = first + second
    assert kinds(data) == {"several-names"}
    with tarfile.open(fileobj=io.BytesIO(data)) as peer:
        assert peer.getnames() == [opened(data).members[0].name]


def test_bounds():
    with pytest.raises(LimitExceeded, match="members"):
        opened(packed(*[(f"{i}", b"") for i in range(20)]), Limits(max_entries=10))
    name = packed(("x" * 200, b"1"), format=tarfile.GNU_FORMAT)[:1024]
    with pytest.raises(LimitExceeded, match="headers before a member"):
        opened(name * 1000 + packed(("a", b"")))
    with pytest.raises(LimitExceeded, match="headers before a member"):
        opened(packed(("x" * 3_000_000, b"1"), format=tarfile.GNU_FORMAT))
    with pytest.raises(Damaged, match="a member after"):
        opened(name + bytes(1024))


def test_any_bytes_give_what_tarfile_gives_or_say_so():
    """Without an anomaly, what is read is what tarfile reads."""
    whole = packed(("a", b"1" * 600), ("n" * 120, b"22"), ("b", b"3")) + packed()
    chance = random.Random(7)
    agreed = 0
    for _ in range(2_000):
        data = bytearray(whole)
        header = chance.choice([0, 1536, 2048, 2560, 3584])
        at = header + chance.choice([chance.randrange(512), 124, 135, 156, 345])
        data[at] = chance.choice([0, 0x30, 0x37, 0x80, 0xFF, chance.randrange(256)])
        if chance.random() < 0.9:
            data[header : header + 512] = with_checksum(data[header : header + 512])
        data = bytes(data[: chance.choice([len(data), chance.randrange(len(data))])])
        try:
            archive = opened(data)
        except ReadError as error:
            assert str(error)
            continue
        if not archive.anomalies:
            agreed += 1
            with tarfile.open(fileobj=io.BytesIO(data)) as peer:
                theirs = [(m.name, m.offset_data) for m in peer.getmembers() if m.size]
            assert [(m.name, m.offset) for m in archive.members if m.size] == theirs
    assert agreed > 200


def test_recognised_by_its_checksum_not_by_a_magic():
    data = packed(("a", b"1"))
    assert tar.is_tar(data[:512])
    assert tar.is_tar(patched(data, 257, bytes(8))[:512])
    for other in (b"", b"\0" * 512, b"PK\x03\x04" * 128, data[:511], b"\x80" + data[:511]):
        assert not tar.is_tar(other)
