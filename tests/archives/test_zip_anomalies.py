"""Every kind of anomaly, made by hand; and what torch and zipfile make of the same bytes."""

import io
import struct
import zipfile

import pytest
import torch

from tensorkeep.errors import Damaged, LimitExceeded, ReadError, Unsupported
from tensorkeep.facts import Limits


def kinds(archive):
    return sorted({anomaly.kind for anomaly in archive.anomalies})


def base(kit, **changes):
    """A tiny torch-like archive with one member changed."""
    changed = kit.member("r/data.pkl", b"pickle", **changes)
    return [kit.member("r/version", b"3\n"), changed, kit.member("r/data/0", b"12345678")]


def field(kind, content):
    return struct.pack("<HH", kind, len(content)) + content


def words(*numbers):
    return field(1, struct.pack(f"<{len(numbers)}Q", *numbers))


FULL = 0xFFFFFFFF

BY_DIRECTORY = {
    "duplicate-member": lambda kit: kit.build([*base(kit), kit.member("r/data.pkl", b"other")]),
    "case-collision": lambda kit: kit.build([*base(kit), kit.member("r/DATA.pkl", b"other")]),
    "several-roots": lambda kit: kit.build([*base(kit), kit.member("q/data.pkl", b"other")]),
    "prefix-bytes": lambda kit: kit.build([kit.member("r/a", before=b"#!/bin/sh\n"), *base(kit)]),
    "trailing-bytes": lambda kit: kit.build(base(kit), tail=b"more"),
    "comment-length": lambda kit: kit.build(base(kit), comment=b"hello", comment_length=9),
    "comment-bytes": lambda kit: kit.build(base(kit), comment=b"\x80\x02cos\nsystem\n."),
    "encrypted-member": lambda kit: kit.build(base(kit, flags=0x801)),
    "patched-member": lambda kit: kit.build(base(kit, flags=0x820)),
    "strong-encryption": lambda kit: kit.build(base(kit, flags=0x840)),
    "unsupported-method": lambda kit: kit.build(base(kit, method=12)),
    "directory-with-data": lambda kit: kit.build(base(kit, kind=0x10)),
    "overlapping-members": lambda kit: kit.build(base(kit, start=0)),
    "unlisted-bytes": lambda kit: kit.build(base(kit, after=bytes(65_560))),
    "path-traversal": lambda kit: kit.build([*base(kit), kit.member("r/../../etc/x", b"")]),
    "unicode-path": lambda kit: kit.build(base(kit, extra=field(0x7075, b"\1abcdr/other"))),
    "extra-field": lambda kit: kit.build(base(kit, extra=b"\x99\x99\x05\x00a")),
    "zip64-contradiction": lambda kit: kit.build(base(kit), zip64=True, entries=2, here=2),
    "entry-count": lambda kit: kit.build(base(kit), entries=2),
    "directory-shift": lambda kit: shifted(kit),
    "several-directories": lambda kit: two_directories(kit),
}  # fmt: skip


def shifted(kit):
    """Bytes between the directory and its end record."""
    data = kit.build(base(kit))
    at = data.rindex(b"PK\5\6")
    return data[:at] + b"hidden" + data[at:]


def two_directories(kit):
    """The comment of one archive is the end record of another directory in the same file."""
    one = kit.build(base(kit))
    at = one.rindex(b"PK\5\6")
    end = one[at:]
    return one[:at] + end[:-2] + struct.pack("<H", len(end)) + end


@pytest.mark.parametrize("kind", BY_DIRECTORY)
def test_seen_in_the_directory(kind, kit):
    archive = kit.opened(BY_DIRECTORY[kind](kit))
    assert kind in kinds(archive)
    for anomaly in archive.anomalies:
        assert anomaly.what and (anomaly.offset is not None)


@pytest.mark.parametrize("kind", BY_DIRECTORY)
def test_torch_opens_what_is_read_here(kind, kit, tmp_path):
    data = BY_DIRECTORY[kind](kit)
    (tmp_path / "m.zip").write_bytes(data)
    archive = kit.opened(data)
    peer = torch._C.PyTorchFileReader(str(tmp_path / "m.zip"))
    found = archive.locate("r/data/0")
    assert peer.has_record("data/0") == (found is not None)
    if found:
        assert peer.get_record_offset("data/0") == archive.data_offset(found)


LOCAL = {
    "local-name-differs": {"local_name": b"r/data.txt"},
    "local-flags-differ": {"local_flags": 0x801},
    "local-method-differs": {"local_method": 8},
    "local-size-differs": {"local_size": 5},
    "local-checksum-differs": {"local_crc": 1},
    "bad-checksum": {"crc": 1, "local_crc": 1},
    "descriptor-differs": {"flags": 0x808, "local_flags": 0x808, "after": b"PK\7\x08nonsense"},
    "unlisted-bytes": {"after": b"PK\3\4 a header that no directory lists"},
}


@pytest.mark.parametrize("kind", LOCAL)
def test_seen_in_the_member_itself(kind, kit):
    archive = kit.opened(kit.build(base(kit, **LOCAL[kind])))
    assert kinds(archive) == []
    assert kit.whole(archive) == [kind]
    for _ in range(2):
        kit.whole(archive)
    assert {anomaly.where for anomaly in archive.anomalies} == {"r/data.pkl"}
    # Reading twice compares the checksum twice; headers are looked at once.
    assert len(archive.anomalies) == (3 if kind == "bad-checksum" else 1)


def test_a_local_header_longer_than_the_room_for_it(kit):
    members = base(kit, local_extra=bytes(8))
    entry = kit.build(members).index(b"r/data.pkl") - 2
    data = bytearray(kit.build(members))
    data[entry : entry + 2] = struct.pack("<H", 20)
    archive = kit.opened(bytes(data))
    archive.check_local(archive.members[1])
    assert kinds(archive) == ["overlapping-members"]


def test_a_checksum_of_zero_among_others_is_wrong_outside_storages(kit):
    archive = kit.opened(kit.build(base(kit, crc=0, local_crc=0)))
    assert kit.whole(archive) == ["bad-checksum"]


def test_torch_ignores_the_checksum_and_zipfile_does_not(kit, tmp_path):
    data = kit.build(base(kit, crc=1, local_crc=1))
    (tmp_path / "m.zip").write_bytes(data)
    assert torch._C.PyTorchFileReader(str(tmp_path / "m.zip")).get_record("data.pkl") == b"pickle"
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(data)).read("r/data.pkl")


@pytest.mark.parametrize(
    "name", ["../x", "r/../x", "r/..", "/etc/passwd", "r\\x", "r/data.pkl\0.txt", "C:/x", "\n/../y"]
)
def test_names_that_escape(name, kit):
    archive = kit.opened(kit.build([kit.member(name, b"x")]))
    assert kinds(archive) == ["path-traversal"]
    assert archive.anomalies[0].where == name


@pytest.mark.parametrize(
    "name", ["r/..x", "r/x..", "r/a...b", "r/\n/x", "r/a:/b", "r//x", "r/.", "é:/x"]
)
def test_names_that_do_not(name, kit):
    assert kinds(kit.opened(kit.build([kit.member(name, b"x")]))) == []


def test_zipfile_ends_a_name_at_nul_and_torch_does_not(kit):
    data = kit.build([*base(kit)[:1], kit.member("r/data.pkl\0.txt", b"other")])
    assert "r/data.pkl" in zipfile.ZipFile(io.BytesIO(data)).namelist()
    archive = kit.opened(data)
    assert archive.locate("r/data.pkl") is None
    assert kinds(archive) == ["path-traversal"]


def test_names_that_are_not_utf8_are_kept(kit, tmp_path):
    data = kit.build([*base(kit), kit.member(b"r/\xff\xc0", b"x")])
    archive = kit.opened(data)
    assert archive.members[-1].name.encode("utf-8", "surrogateescape") == b"r/\xff\xc0"
    assert archive.locate(archive.members[-1].name) is archive.members[-1]
    assert kit.whole(archive) == []


def test_several_roots_are_usual_where_torch_reads_nothing(kit):
    data = kit.build([kit.member("a/x", b"1"), kit.member("b/x", b"2"), kit.member("c", b"3")])
    assert kinds(kit.opened(data)) == []


def test_at_most_a_hundred_of_a_kind(kit):
    archive = kit.opened(kit.build([kit.member(f"{i}/../..") for i in range(500)]))
    assert len(archive.anomalies) == 100
    assert "further ones" in archive.anomalies[-1].what


def test_overlaps_in_any_order(kit):
    members = [kit.member(f"r/{i}", b"x" * 50) for i in range(4)]
    assert kinds(kit.opened(kit.build(members[::-1]))) == []
    data = kit.build([*members, kit.member("r/bomb", b"x" * 50, start=40)])
    assert "overlapping-members" in kinds(kit.opened(data))


def test_members_listed_in_another_order_than_they_lie(kit):
    data = kit.build([kit.member("r/a", b"first"), kit.member("r/b", b"second")])
    at, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    entries = data[at:end]
    half = len(entries) // 2
    archive = kit.opened(data[:at] + entries[half:] + entries[:half] + data[end:])
    assert [m.name for m in archive.members] == ["r/b", "r/a"]
    assert kit.whole(archive) == []


def test_a_member_that_runs_into_the_directory(kit):
    data = kit.build(base(kit)[:2] + [kit.member("r/data/0", b"12345678", size=40, packed=40)])
    assert kinds(kit.opened(data)) == ["overlapping-members"]


@pytest.mark.parametrize("extra", [b"\0", b"\0\0\0", field(0x5455, b"\3aaaa"), field(1, b"")])
def test_extra_fields_that_are_usual(extra, kit):
    assert kit.whole(kit.opened(kit.build(base(kit, extra=extra, local_extra=extra)))) == []


def test_zip64_fields_that_repeat_the_32_bit_ones_are_consistent(kit):
    archive = kit.opened(kit.build(base(kit, extra=words(6, 6))))
    assert kit.whole(archive) == []


@pytest.mark.parametrize("extra", [words(7, 7), words(6, 6, 1), words(6) + words(6)])
def test_zip64_fields_that_contradict(extra, kit):
    assert kinds(kit.opened(kit.build(base(kit, extra=extra)))) == ["zip64-contradiction"]


def test_zip64_fields_in_use(kit, tmp_path):
    changes = {"size": FULL, "packed": FULL, "local_size": FULL, "local_packed": FULL}
    data = kit.build(base(kit, **changes, extra=words(6, 6), local_extra=words(6, 6)))
    (tmp_path / "m.zip").write_bytes(data)
    archive = kit.opened(data)
    assert archive.read(archive.members[1], Limits()) == b"pickle"
    assert kit.whole(archive) == []
    assert torch._C.PyTorchFileReader(str(tmp_path / "m.zip")).get_record("data.pkl") == b"pickle"
    short = kit.build(base(kit, **changes, extra=words(6)))
    with pytest.raises(Damaged):
        kit.opened(short)
    lying = kit.build(base(kit, **changes, extra=words(6, 6), local_extra=words(9, 9)))
    assert kit.whole(kit.opened(lying)) == ["local-size-differs"]


def test_zip64_end_records(kit, tmp_path):
    full = kit.build(base(kit), zip64=True, entries=0xFFFF, here=0xFFFF, size=FULL, offset=FULL)
    assert kit.whole(kit.opened(full)) == []
    (tmp_path / "m.zip").write_bytes(full)
    assert torch._C.PyTorchFileReader(str(tmp_path / "m.zip")).has_record("data.pkl")
    assert len(zipfile.ZipFile(io.BytesIO(full)).namelist()) == 3


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        ({"size": 5}, "zip64-contradiction"),
        ({"offset": 5}, "zip64-contradiction"),
        ({"wide_mark": b"nope"}, "zip64-contradiction"),
    ],
)
def test_zip64_end_records_that_contradict(end, kind, kit):
    archive = kit.opened(kit.build(base(kit), zip64=True, **end))
    assert kind in kinds(archive)


def test_a_64_bit_end_record_elsewhere(kit):
    data = kit.build(base(kit), zip64=True)
    at, locator = data.index(b"PK\6\6"), data.index(b"PK\6\7")
    moved = data[:at] + data[at:locator] + b"gap" + data[locator:]
    assert "zip64-contradiction" in kinds(kit.opened(moved))


WIDE = {"size": FULL, "packed": FULL}
MANY = {"wide_entries": 2**60, "wide_here": 2**60}
REFUSED = {
    "no end record": (Damaged, lambda kit: b"PK\3\4" + bytes(100)),
    "nothing": (Damaged, lambda kit: b""),
    "entries here": (Damaged, lambda kit: kit.build(base(kit), here=2)),
    "more entries": (Damaged, lambda kit: kit.build(base(kit), entries=4)),
    "size too small": (Damaged, lambda kit: kit.build(base(kit), size=100)),
    "size too large": (Damaged, lambda kit: kit.build(base(kit), size=5000)),
    "offset too large": (Damaged, lambda kit: kit.build(base(kit), offset=5000)),
    "offset elsewhere": (Damaged, lambda kit: kit.build(base(kit), offset=3)),
    "disk": (Unsupported, lambda kit: kit.build(base(kit), disk=2)),
    "disk of a member": (Unsupported, lambda kit: kit.build(base(kit, disk=3))),
    "disk unknown": (Unsupported, lambda kit: kit.build(base(kit, disk=0xFFFF))),
    "masked": (Unsupported, lambda kit: kit.build(base(kit, flags=0x2800))),
    "stored sizes": (Damaged, lambda kit: kit.build(base(kit, size=5))),
    "deflated to nothing": (Damaged, lambda kit: kit.build(base(kit, method=8, packed=0))),
    "beyond the file": (Damaged, lambda kit: kit.build(base(kit, size=5000, packed=5000))),
    "2 TB": (Damaged, lambda kit: kit.build(base(kit, **WIDE, extra=words(2**41, 2**41)))),
    "header beyond": (Damaged, lambda kit: kit.build(base(kit, start=5000))),
    "wide at": (Damaged, lambda kit: kit.build(base(kit), zip64=True, wide_at=2**40)),
    "wide record": (Damaged, lambda kit: kit.build(base(kit), zip64=True, wide_record=10)),
    "wide disks": (Unsupported, lambda kit: kit.build(base(kit), zip64=True, disks=2)),
    "wide entries": (LimitExceeded, lambda kit: kit.build(base(kit), zip64=True, **MANY)),
    "wide offset": (Damaged, lambda kit: kit.build(base(kit), zip64=True, wide_offset=2**63)),
    "wide size": (Damaged, lambda kit: kit.build(base(kit), zip64=True, wide_size=2**63)),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_file_named_as_torch_refuses_it(case, kit, tmp_path):
    error, make = REFUSED[case]
    data = make(kit)
    with pytest.raises(error) as caught:
        kit.opened(data)
    assert caught.value.subject.startswith("<test>")
    assert caught.value.expected and caught.value.got != ""
    (tmp_path / "m.zip").write_bytes(data)
    with pytest.raises(RuntimeError):
        torch._C.PyTorchFileReader(str(tmp_path / "m.zip"))


def test_bytes_put_before_the_archive_are_counted_in_the_remedy(kit):
    data = b"x" * 1000 + kit.build(base(kit))
    with pytest.raises(Damaged, match="Cut the first 1000 bytes off"):
        kit.opened(data)
    assert kit.whole(kit.opened(data[1000:])) == []


def test_a_directory_that_lies_elsewhere_for_zipfile(kit, tmp_path):
    """Two directories, one for each way to count offsets: torch's is the one that is read."""
    ours = kit.build([kit.member("r/version", b"3\n"), kit.member("r/data.pkl", b"for torch")])
    theirs = kit.build([kit.member("r/version", b"3\n"), kit.member("r/data.pkl", b"for others")])
    first = ours[: ours.index(b"PK\5\6")]
    end = theirs.index(b"PK\5\6")
    size, offset = len(first) - first.index(b"PK\1\2"), first.index(b"PK\1\2")
    record = b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 2, 2, size, offset, 0)
    data = first + theirs[:end] + record
    (tmp_path / "m.zip").write_bytes(data)
    archive = kit.opened(data)
    assert archive.read(archive.locate("r/data.pkl"), Limits()) == b"for torch"
    peer = torch._C.PyTorchFileReader(str(tmp_path / "m.zip"))
    assert peer.get_record("data.pkl") == b"for torch"
    assert "directory-shift" in kinds(archive)


@pytest.mark.parametrize("length", [0, 1, 4096, 65_535, 69_562, 69_563, 69_600])
def test_the_end_record_is_looked_for_exactly_as_far_back_as_torch_looks(length, kit, tmp_path):
    members = [*base(kit), kit.member("r/data/1", bytes(100_000))]
    data = kit.build(members, tail=b"y" * length)
    (tmp_path / "m.zip").write_bytes(data)
    if length > 69_562:
        with pytest.raises(RuntimeError, match="central directory"):
            torch._C.PyTorchFileReader(str(tmp_path / "m.zip"))
        with pytest.raises(Damaged):
            kit.opened(data)
    else:
        assert torch._C.PyTorchFileReader(str(tmp_path / "m.zip")).has_record("data.pkl")
        assert kinds(kit.opened(data)) == (["trailing-bytes"] if length else [])


def test_a_long_comment_in_a_short_file(kit, tmp_path):
    """torch's search runs below zero here and gives up; zipfile's does not."""
    data = kit.build(base(kit), comment=b"y" * 5000)
    (tmp_path / "m.zip").write_bytes(data)
    with pytest.raises(RuntimeError, match="central directory"):
        torch._C.PyTorchFileReader(str(tmp_path / "m.zip"))
    assert kit.whole(kit.opened(data)) == []


def test_an_end_mark_too_near_the_end_is_passed_over(kit, tmp_path):
    data = kit.build(base(kit), tail=b"PK\5\6" + bytes(17))
    (tmp_path / "m.zip").write_bytes(data)
    assert torch._C.PyTorchFileReader(str(tmp_path / "m.zip")).has_record("data.pkl")
    assert kinds(kit.opened(data)) == ["trailing-bytes"]
    # An offset of the directory that happens to spell the mark is no second record.
    assert kit.opened(kit.build([])).anomalies == []


def test_limits_on_entries(kit):
    data = kit.build([kit.member(f"r/{i}") for i in range(20)])
    with pytest.raises(LimitExceeded, match="at most 19 members"):
        kit.opened(data, Limits(max_entries=19))
    assert len(kit.opened(data, Limits(max_entries=20)).members) == 20


def test_a_missing_local_header(kit):
    archive = kit.opened(kit.build(base(kit, local_mark=b"nope")))
    with pytest.raises(Damaged, match="local header"):
        archive.data_offset(archive.members[1])
    with pytest.raises(ReadError):
        archive.check_local(archive.members[1])


def test_local_lengths_that_reach_beyond_the_file(kit):
    data = bytearray(kit.build(base(kit)))
    at = data.index(b"r/data.pkl") - 2
    data[at : at + 2] = b"\xff\xff"
    archive = kit.opened(bytes(data))
    with pytest.raises(Damaged, match="inside"):
        archive.data_offset(archive.members[1])
