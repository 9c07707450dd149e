"""Blobs over bytes and files, and zip files put together byte by byte, every field at will."""

import os
import struct
import zlib
from types import SimpleNamespace

import pytest

from tensorkeep.archives.zip import read_directory
from tensorkeep.errors import Damaged
from tensorkeep.facts import Limits


class BytesBlob:
    def __init__(self, data, name="<test>"):
        self.data, self.name, self.size = bytes(data), name, len(data)
        self.bytes_read = self.reads = 0

    def read(self, offset, length):
        assert offset >= 0 and length >= 0
        if offset + length > self.size:
            raise Damaged(self.name, expected=f"{offset + length} bytes", got=self.size)
        self.bytes_read += length
        self.reads += 1
        return self.data[offset : offset + length]

    def read_into(self, offset, buffer):
        buffer[:] = self.read(offset, len(buffer))

    def close(self):
        self.data = b""


class FileBlob(BytesBlob):
    def __init__(self, path):
        super().__init__(b"", str(path))
        self.size = path.stat().st_size
        self.path = path

    def read(self, offset, length):
        if offset + length > self.size:
            raise Damaged(self.name, expected=f"{offset + length} bytes", got=self.size)
        self.bytes_read += length
        self.reads += 1
        with self.path.open("rb") as file:
            return os.pread(file.fileno(), length, offset)


def member(name, data=b"", **changes):
    """One member to build. `changes`: size, packed, crc, method, flags, disk, kind, start,
    extra (central); local_name, local_size, local_packed, local_crc, local_method, local_flags,
    local_extra, local_mark; before, after (bytes around it)."""
    name = name.encode() if isinstance(name, str) else name
    crc = zlib.crc32(data)
    fields = {"size": len(data), "packed": len(data), "crc": crc, "method": 0, "flags": 0x800}
    fields |= {"disk": 0, "kind": 0, "start": None, "extra": b"", "comment": b""}
    fields |= {"local_extra": b"", "local_mark": b"PK\x03\x04", "before": b"", "after": b""}
    fields.update(changes)
    for key in ("name", "size", "packed", "crc", "method", "flags"):
        fields.setdefault("local_" + key, name if key == "name" else fields[key])
    return SimpleNamespace(name=name, data=data, **fields)


def build(members, *, comment=b"", tail=b"", zip64=False, **end):
    """A zip file. `end`: disk, here, entries, size, offset, comment_length; wide_* for zip64."""
    out, entries = bytearray(), bytearray()
    for m in members:
        out += m.before
        start = len(out) if m.start is None else m.start
        name, extra = m.local_name, m.local_extra
        sizes = (m.local_crc, m.local_packed, m.local_size, len(name), len(extra))
        out += m.local_mark + struct.pack("<5H", 20, m.local_flags, m.local_method, 0, 33)
        out += struct.pack("<3L2H", *sizes) + name + extra + m.data + m.after
        entries += b"PK\x01\x02" + struct.pack("<6H", 20, 20, m.flags, m.method, 0, 33)
        entries += struct.pack(
            "<3L3H", m.crc, m.packed, m.size, len(m.name), len(m.extra), len(m.comment)
        )
        entries += struct.pack("<2H2L", m.disk, 0, m.kind, start) + m.name + m.extra + m.comment
    offset, count = len(out), len(members)
    out += end.get("directory", entries)
    size = len(out) - offset
    if zip64:
        at = len(out)
        asked = {
            "record": 44,
            "disk": 0,
            "here": count,
            "entries": count,
            "size": size,
            "offset": offset,
        }
        wide = [end.get("wide_" + key, value) for key, value in asked.items()]
        out += end.get("wide_mark", b"PK\x06\x06") + struct.pack(
            "<Q2H2L4Q", wide[0], 45, 45, wide[1], 0, *wide[2:]
        )
        out += b"PK\x06\x07" + struct.pack("<LQL", 0, end.get("wide_at", at), end.get("disks", 1))
    disk = end.get("disk", 0)
    out += b"PK\x05\x06" + struct.pack(
        "<4H2LH", disk, end.get("directory_disk", disk), end.get("here", end.get("entries", count)),
        end.get("entries", count), end.get("size", size), end.get("offset", offset),
        end.get("comment_length", len(comment)),
    )  # fmt: skip
    return bytes(out + comment + tail)


def opened(data, limits=None):
    blob = data if hasattr(data, "read_into") else BytesBlob(data)
    return read_directory(blob, limits or Limits())


def whole(archive):
    """Every member checked and read; the kinds of the anomalies met."""
    for entry in archive.members:
        archive.check_local(entry)
        archive.read(entry, Limits())
    return sorted({anomaly.kind for anomaly in archive.anomalies})


@pytest.fixture(scope="session")
def kit():
    return SimpleNamespace(
        BytesBlob=BytesBlob,
        FileBlob=FileBlob,
        member=member,
        build=build,
        opened=opened,
        whole=whole,
    )
