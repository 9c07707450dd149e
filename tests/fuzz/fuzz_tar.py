"""Tar archives: what has no anomaly, the standard library reads as the same members."""

from __future__ import annotations

import io
import random
import tarfile

import seeds as samples
from promises import LIMITS, every_verb

from tensorkeep.archives.tar import is_tar, read_directory
from tensorkeep.errors import TensorkeepError
from tensorkeep.stores.memory import MemoryBlob

BLOCK = 512
WORDS = [
    *(b"ustar\x0000", b"ustar  \x00", b"././@LongLink", b"0000644\x00", b"00000000004\x00"),
    *(
        b"\x80\x00\x00\x00\x00\x00\x00\x10",
        b"18 path=a/b\n",
        b"13 size=512\n",
        b"5",
        b"L",
        b"x",
        b"g",
    ),
    *(b"../", b"storages", b"tensors", b"pickle", b"sys_info", b"20 GNU.sparse.major=1\n"),
]


def seeds() -> list[bytes]:
    small = [packed(names, form) for form in (0, 1, 2) for names in _NAMES]
    return [*small, *samples.samples(is_tar)]


_NAMES = (
    ["pickle"],
    ["sys_info", "pickle", "storages", "tensors"],
    ["a" * 120, "b/" * 60 + "c"],
    ["é", "weights.pth", "../x"],
    [],
)


def packed(names: list[str], form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name[:90] if form == 0 else name)
            info.size = number * 300
            archive.addfile(info, io.BytesIO(bytes([65 + number]) * info.size))
    return out.getvalue()[: 4 * BLOCK + 2048 * len(names)]


def one(data: bytes) -> None:
    if is_tar(data[:BLOCK]):
        every_verb(data)
        _as_another_reader_sees_it(data)


def _as_another_reader_sees_it(data: bytes) -> None:
    try:
        ours = read_directory(MemoryBlob(data), LIMITS)
    except TensorkeepError:
        return
    if ours.anomalies:
        return
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        theirs = archive.getmembers()
    assert [m.name for m in ours.members] == [info.name.rstrip("/") for info in theirs]
    for member, info in zip(ours.members, theirs, strict=True):
        if member.kind == "file":
            assert (member.offset, member.size) == (info.offset_data, info.size), member.name


def mutate(data: bytes, longest: int, seed: int) -> bytes:
    """Bytes as libFuzzer changes them; then, mostly, the checksum of a header is made right."""
    import atheris

    rng = random.Random(seed)
    changed = bytearray(atheris.Mutate(data, longest))
    if rng.random() < 0.85:
        for at in range(0, len(changed) - BLOCK + 1, BLOCK):
            header = changed[at : at + BLOCK]
            if any(header) and header[257:262] == b"ustar":
                header[148:156] = b" " * 8
                changed[at + 148 : at + 156] = b"%06o\0 " % sum(header)
    return bytes(changed)
