"""A signal in the middle of a convert: one sentence, nothing left, no hang."""

from __future__ import annotations

import json
import os
import signal
import struct
from pathlib import Path

import pytest

GiB = 1 << 30


@pytest.fixture
def large(tmp_path):
    """Six gigabytes of zeros that take no room on the disk."""
    size = 6 * GiB
    spec = {"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    header = json.dumps(spec).encode()
    path = tmp_path / "large.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(path, 8 + len(header) + size)
    return path


@pytest.mark.parametrize("dst", ["out.pth", "parts/"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_stopped_while_it_writes(large, command, dst, number):
    folder = large.parent
    done = command("convert", large, dst, cwd=folder, signal=number, after=32 << 20)
    left = sorted(entry.name for entry in folder.iterdir() if entry != large)
    if number == signal.SIGKILL:
        assert done.code == -signal.SIGKILL
        # A folder of parts cannot be nameless: its hidden one stays, the real name stays free.
        assert all(name.startswith(".parts.") for name in left)
        assert not left or dst == "parts/"
    else:
        assert done.code == 2
        assert signal.Signals(number).name in done.sentence()
        assert "Nothing was left behind" in done.err
        assert left == []
    assert done.peak < 96 << 20


def test_a_scan_that_is_stopped_gives_no_verdict(large, command, tmp_path):
    # An error that looks like a damaged file would be reported as one.
    reader = """
import os, signal, sys, threading
from tensorkeep.cli import main
from tensorkeep.stores.local import LocalBlob
real = LocalBlob.read
def read(self, *arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    return real(self, *arguments)
LocalBlob.read = read
main(sys.argv[1:])
"""
    done = command("scan", "--format", "json", large, cwd=tmp_path, python=reader)
    assert done.code == 2
    assert done.out == ""
    assert "SIGTERM" in done.sentence()


def test_an_ignored_signal_stays_ignored(command, tmp_path, digits):
    reader = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from tensorkeep.cli import main
from tensorkeep.stores.local import LocalBlob
real = LocalBlob.read
def read(self, *arguments):
    os.kill(os.getpid(), signal.SIGHUP)
    return real(self, *arguments)
LocalBlob.read = read
main(sys.argv[1:])
"""
    done = command("scan", Path(digits), cwd=tmp_path, python=reader)
    assert (done.code, done.err) == (0, "")
