"""Opcodes, zip archives and safetensors headers, written byte by byte as no honest writer does."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass

WEIGHT = struct.pack("<4f", 1, 2, 3, 4)
P2, P4 = b"\x80\x02", b"\x80\x04"


def g(module, name):
    """GLOBAL."""
    return f"c{module}\n{name}\n".encode()


def u(text):
    """BINUNICODE."""
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def sg(module, name):
    """STACK_GLOBAL."""
    return u(module) + u(name) + b"\x93"


def i(number):
    """BININT, or LONG1 where that is too short."""
    if -(1 << 31) <= number < 1 << 31:
        return b"J" + struct.pack("<i", number)
    data = number.to_bytes(9, "little", signed=True)
    return b"\x8a\x09" + data


SYSTEM = g("os", "system")
ARG = u("echo tensorkeep") + b"\x85"
CALL = SYSTEM + ARG + b"R"  # os.system("echo tensorkeep"): were it run, a line on stdout
OD = g("collections", "OrderedDict") + b")R"
NAMESPACE = g("argparse", "Namespace") + b")\x81"


def storage(key="0", numel=4):
    text = u("storage") + g("torch", "FloatStorage") + u(key) + u("cpu")
    return b"(" + text + i(numel) + b"tQ"


def tensor(key="0", numel=4, offset=0, shape=(4,), stride=(1,)):
    numbers = [b"(" + b"".join(map(i, each)) + b"t" for each in (shape, stride)]
    view = storage(key, numel) + i(offset) + b"".join(numbers)
    return g("torch._utils", "_rebuild_tensor_v2") + b"(" + view + b"\x89" + OD + b"tR"


def state_dict(*more, proto=P2, **entries):
    """An honest `weight`, then `more` opcodes that leave one value each, under names of their own.

    `entries` are tensors by name.
    """
    pairs = u("weight") + tensor() + b"s"
    for number, value in enumerate(more):
        pairs += u(f"extra{number}") + value + b"s"
    for name, value in entries.items():
        pairs += u(name) + value + b"s"
    return proto + b"}" + pairs + b"."


HONEST = state_dict()
EVIL = P2 + CALL + b"."


@dataclass
class Member:
    """A member of a zip: what its own header says, and what the directory says of it."""

    name: str
    data: bytes
    local_name: str = ""
    crc: int | None = None
    deflate: bool = False
    flags: int = 0
    size: int | None = None
    at: int | None = None  # the directory's offset, where it lies
    listed: bool = True
    external: int = 0


def archive(members, between=b"", suffix=b"", comment=b"", directories=1):
    """The bytes of a zip archive; `between` lies before the directory."""
    out, directory = bytearray(), bytearray()
    for member in members:
        name, local = member.name.encode(), (member.local_name or member.name).encode()
        packed = _deflated(member.data) if member.deflate else member.data
        crc = zlib.crc32(member.data) if member.crc is None else member.crc
        size = len(member.data) if member.size is None else member.size
        method = 8 if member.deflate else 0
        common = struct.pack("<HHHHHIII", 20, member.flags, method, 0, 0x21, crc, len(packed), size)
        offset = len(out) if member.at is None else member.at
        out += b"PK\3\4" + common + struct.pack("<HH", len(local), 0) + local + packed
        if member.listed:
            tail = struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, member.external, offset)
            directory += b"PK\1\2" + struct.pack("<H", 20) + common + tail + name
    out += between
    count = sum(member.listed for member in members)
    for _ in range(directories):
        start = len(out)
        end = struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), start, len(comment))
        out += directory + b"PK\5\6" + end + comment
    return bytes(out + suffix)


def _deflated(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def checkpoint(pickle, *more, deflate=False, weight=WEIGHT, crc=None, **options):
    """A torch zip around `pickle`; `more` members after it."""
    members = [
        Member("archive/data.pkl", pickle, deflate=deflate, crc=crc),
        Member("archive/byteorder", b"little"),
        Member("archive/data/0", weight),
        *more,
        Member("archive/version", b"3\n"),
    ]
    return archive(members, **options)


def header(text, data=WEIGHT, length=None):
    """A safetensors file with this text for its header."""
    text = text.encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin, end, shape=(4,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def safetensors(data=WEIGHT, **entries):
    return header(json.dumps(entries), data)
