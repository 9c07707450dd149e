"""Zip archives as torch writes them: the directory, the members, and what another reader sees."""

from __future__ import annotations

import io
import random
import zipfile
import zlib

import seeds as samples
from promises import LIMITS, every_verb

from tensorkeep.archives.zip import read_directory
from tensorkeep.errors import TensorkeepError
from tensorkeep.stores.memory import MemoryBlob

tricks = samples.module("corpus/hostile/tricks")
WORDS = [
    *(b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08"),
    *(b"archive/", b"data.pkl", b"data/0", b"version", b"byteorder", b"../", b"\xff\xff\xff\xff"),
    *(b".format_version", b".storage_alignment", b"constants.pkl", b".data/extern_modules"),
    *(b"\x01\x00\x1c\x00", b"FB", b"up", b"little", b"big", b"code/__torch__.py", b"\x08\x00"),
]


def seeds() -> list[bytes]:
    return samples.samples(lambda data: b"PK\x05\x06" in data)


def one(data: bytes) -> None:
    if not data.startswith(b"PK"):
        return
    if every_verb(data) == "safe":
        _as_another_reader_sees_it(data)


def _as_another_reader_sees_it(data: bytes) -> None:
    """Of a safe archive the standard library reads the same members, with the same bytes."""
    ours = read_directory(MemoryBlob(data), LIMITS)
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except NotImplementedError:  # of a version of the format that it does not know
        return
    with archive as theirs:
        infos = theirs.infolist()
        assert len(infos) == len(ours.members)
        for info, member in zip(infos, ours.members, strict=True):
            if member.name.isascii():
                assert info.filename == member.name
            assert _bytes(theirs, info) == ours.read(member, LIMITS), member.name


def _bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.CRC == 0:  # torch can be told to write none
        info.CRC = zlib.crc32(b"")
        with archive.open(info) as member:
            member._expected_crc = None
            return member.read()
    return archive.read(info)


def mutate(data: bytes, longest: int, seed: int) -> bytes:
    """Bytes as libFuzzer changes them; every other time in one member, and all is packed anew."""
    import atheris

    rng = random.Random(seed)
    if rng.random() < 0.5:
        return atheris.Mutate(data, longest)
    parts = _parts(data)
    if not parts:
        return atheris.Mutate(data, longest)
    at = rng.randrange(len(parts))
    name, body = parts[at]
    if rng.random() < 0.85:
        parts[at] = name, atheris.Mutate(body, max(len(body) + 64, 64))
    else:
        new = atheris.Mutate(name.encode(), len(name) + 16).decode("utf-8", "ignore")
        parts[at] = new, body
    if rng.random() < 0.1:
        parts.insert(rng.randrange(len(parts) + 1), rng.choice(parts))
    deflate = rng.random() < 0.2
    packed = tricks.archive([tricks.Member(n, b, deflate=deflate) for n, b in parts])
    return packed if len(packed) <= longest else atheris.Mutate(data, longest)


def _parts(data: bytes) -> list[tuple[str, bytes]]:
    try:
        archive = read_directory(MemoryBlob(data), LIMITS)
        parts = [(m.name, archive.read(m, LIMITS)) for m in archive.members[:20]]
    except TensorkeepError:
        return []
    return [(name.encode(errors="ignore").decode(), body) for name, body in parts]
