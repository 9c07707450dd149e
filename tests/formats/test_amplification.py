"""Many parts that are each small enough: what they unpack to is bounded in all."""

from __future__ import annotations

import io
import time
import zipfile

import tensorkeep as tk

# A megabyte of opcodes that do nothing, and then a call.
BUSY = b"\x80\x02" + b"N0" * (1 << 19) + b"cos\ngetpid\n(tR."
SECONDS = 30  # of processor time; without a bound it is minutes


def archive(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return out.getvalue()


def test_bombs_in_bombs():
    # Found by looking for it: four kilobytes kept the scan busy for minutes.
    inner = archive({f"{n}.pkl": BUSY for n in range(8)})
    middle = archive({f"{n}.zip": inner for n in range(8)})
    whole = archive({f"{n}.zip": middle for n in range(8)})
    assert len(whole) < 10_000
    started = time.process_time()
    report = tk.scan(whole)
    assert time.process_time() - started < SECONDS
    assert report.verdict == "dangerous"
    assert "container/amplification" in {found.rule for found in report.findings}


def test_an_honest_archive_of_many_members_is_read_to_its_end():
    files = {f"{n}.pkl": b"\x80\x02" + b"N0" * 20_000 + b"N." for n in range(100)}
    assert tk.scan(archive(files)).verdict == "safe"
