"""A zip of 100 GB: its directory and its pickles are read, and little memory is used."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib

import pytest

HUGE = 100 * 10**9
MEMORY = 50_000_000  # bytes resident at most, the interpreter's own included
READ = 200_000

CODE = """
import json, re, sys
import tensorkeep as tk
from tensorkeep.facts import Limits
from tensorkeep.scanning.examining import scan_blob
from tensorkeep.stores.local import LocalBlob
with LocalBlob(sys.argv[1]) as blob:
    report = scan_blob(blob, False, Limits())
    names = [tensor.name for tensor in tk.inspect(sys.argv[1]).tensors]
    used = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) * 1024
    print(json.dumps([report.verdict, blob.bytes_read, report.bytes_not_read, names, used]))
"""


def pickled(numel):
    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value

    size = b"\x8a\x08" + struct.pack("<q", numel)
    key = b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"0") + text(b"cpu") + size
    view = key + b"tQK\0" + size + b"\x85K\x01\x85\x89ccollections\nOrderedDict\n)R"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + view + b"tR"
    return b"\x80\x02}" + text(b"weight") + tensor + b"s."


def sparse(path, members):
    """An archive with zip64 fields; a number stands for as many bytes that were never written."""
    directory, count = b"", 0
    with path.open("wb") as file:
        for name, data in members.items():
            raw, start = name.encode(), file.tell()
            length = data if isinstance(data, int) else len(data)
            crc = 0 if isinstance(data, int) else zlib.crc32(data)
            wide = struct.pack("<HHQQ", 1, 16, length, length)
            fields = struct.pack("<HHHHHIII", 45, 0, 0, 0, 0x21, crc, 2**32 - 1, 2**32 - 1)
            file.write(b"PK\3\4" + fields + struct.pack("<HH", len(raw), len(wide)) + raw + wide)
            if isinstance(data, int):
                file.seek(length, 1)
            else:
                file.write(data)
            wide = struct.pack("<HHQQQ", 1, 24, length, length, start)
            tail = struct.pack("<HHHHHII", len(raw), len(wide), 0, 0, 0, 0, 2**32 - 1)
            directory += b"PK\1\2" + struct.pack("<H", 45) + fields + tail + raw + wide
            count += 1
        at = file.tell()
        file.write(directory)
        place = struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(directory), at)
        file.write(b"PK\6\6" + place)
        file.write(b"PK\6\7" + struct.pack("<IQI", 0, at + len(directory), 1))
        full = struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), 2**32 - 1, 0)
        file.write(b"PK\5\6" + full)


FILES = {
    "one storage": {"archive/data/0": HUGE},
    "one that no tensor names": {"archive/data/0": 4000, "archive/data/1": HUGE},
}


@pytest.mark.parametrize("storages", FILES.values(), ids=FILES)
@pytest.mark.parametrize("nested", [False, True], ids=["alone", "in a zip"])
def test_only_directory_and_pickles_are_read(tmp_path, storages, nested):
    path = tmp_path / "model.pth"
    members = {
        "archive/data.pkl": pickled(storages["archive/data/0"] // 4),
        "archive/byteorder": b"little",
        **storages,
        "archive/version": b"3\n",
    }
    sparse(path, members)
    if nested:
        path = within(path, tmp_path / "model.zip")
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    verdict, read, rest, names, used = json.loads(done.stdout)
    assert (verdict, names) == ("safe", ["weight"])
    assert read <= (2_500_000 if len(storages) > 1 else READ)  # a megabyte of what is no tensor's
    assert rest >= HUGE - 2_500_000
    assert used <= MEMORY


def within(path, outer):
    """The file as the only member of another archive, without copying its holes."""
    size, name = path.stat().st_size, b"model.pth"
    wide = struct.pack("<HHQQ", 1, 16, size, size)
    fields = struct.pack("<HHHHHIII", 45, 0, 0, 0, 0x21, 0, 2**32 - 1, 2**32 - 1)
    head = b"PK\3\4" + fields + struct.pack("<HH", len(name), len(wide)) + name + wide
    with path.open("rb") as source, outer.open("wb") as file:
        file.write(head)
        begin, end = source.read(1 << 14), 4096
        file.write(begin)
        source.seek(size - end)
        file.seek(len(head) + size - end)
        file.write(source.read())
        at = file.tell()
        wide = struct.pack("<HHQQQ", 1, 24, size, size, 0)
        tail = struct.pack("<HHHHHII", len(name), len(wide), 0, 0, 0, 0, 2**32 - 1)
        entry = b"PK\1\2" + struct.pack("<H", 45) + fields + tail + name + wide
        file.write(entry)
        place = struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, len(entry), at)
        file.write(b"PK\6\6" + place + b"PK\6\7" + struct.pack("<IQI", 0, at + len(entry), 1))
        file.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), 2**32 - 1, 0))
    return outer
