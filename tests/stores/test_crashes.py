"""Killed or out of room at every step: the old bytes or the new ones, and never in between."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HIDDEN = re.compile(r"\.out\.[0-9a-f]{8}\.tmp")

WRITER = """
import os, pathlib, signal, sys
from tensorkeep.stores.local import LocalFolderSink, LocalSink, kernel, placing

def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

def dying(function, after):
    def call(*arguments, **options):
        result = function(*arguments, **options) if after else None
        die()
    return call

kind, call, after, bare = sys.argv[1], sys.argv[2], sys.argv[3] == "after", sys.argv[4] == "bare"
if bare:
    del os.O_TMPFILE
    kernel.rename = lambda *a: False
overwrite = pathlib.Path("out").exists()
if kind == "file":
    sink = LocalSink("out", overwrite=overwrite, size=3 << 20)
else:
    folder = LocalFolderSink("out", overwrite=overwrite, replaceable=lambda names: True)
    sink = folder.create("part", size=3 << 20)
owner = {"fsync": os, "link": os, "pwrite": os, "replace": pathlib.Path, "rename": pathlib.Path}
if call in owner:
    setattr(owner[call], call, dying(getattr(owner[call], call), after))
for at in range(3):
    sink.write_at(at << 20, b"n" * (1 << 20))
(sink if kind == "file" else folder).commit()
"""
NEW = b"n" * (3 << 20)
CALLS = ["pwrite", "fsync", "link", "replace", "rename"]


def listed(folder):
    return sorted(entry.name for entry in Path(folder).iterdir())


def run(program, *arguments, cwd, root):
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(root / "src")},
    )


def unreached(call, done):
    """Whether the writer ended well because this system's way to commit has no such call."""
    return call not in ("pwrite", "fsync") and done.returncode == 0


@pytest.mark.parametrize("bare", ["linux", "bare"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", CALLS)
def test_killed_while_writing_a_file(tmp_path, root, call, when, bare):
    out = tmp_path / "out"
    for old in (None, b"old"):
        if old is not None:
            out.write_bytes(old)
        done = run(WRITER, "file", call, when, bare, cwd=tmp_path, root=root)
        assert done.returncode == -signal.SIGKILL or unreached(call, done), done.stderr
        assert not out.exists() or out.read_bytes() in (old, NEW)
        assert out.exists() or old is None
        if done.returncode == 0:
            assert out.read_bytes() == NEW
        left = [name for name in listed(tmp_path) if name != "out"]
        assert all(HIDDEN.fullmatch(name) for name in left)
        if call in ("pwrite", "fsync") and bare == "linux":
            assert left == []  # a file without a name dies with its process
        for name in left:
            (tmp_path / name).unlink()
        out.unlink(missing_ok=True)


@pytest.mark.parametrize("bare", ["linux", "bare"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", CALLS)
def test_killed_while_writing_a_folder(tmp_path, root, call, when, bare):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("part", "other"):
        (out / name).write_bytes(b"old")
    done = run(WRITER, "folder", call, when, bare, cwd=tmp_path, root=root)
    assert done.returncode == -signal.SIGKILL or unreached(call, done), done.stderr
    whole = [{"part": NEW}, {"part": b"old", "other": b"old"}]
    found = {
        folder: {
            file: (tmp_path / folder / file).read_bytes() for file in listed(tmp_path / folder)
        }
        for folder in listed(tmp_path)
    }
    assert all(name == "out" or HIDDEN.fullmatch(name) for name in found)
    if "out" in found:
        assert found["out"] in whole
    else:  # only between the two renames of a system that cannot swap folders
        assert (bare, call) == ("bare", "rename")
        assert all(one in found.values() for one in whole)
    if done.returncode == 0:
        assert found == {"out": {"part": NEW}}


FULL = """
import os, resource, signal, sys
from tensorkeep.errors import NoSpace
from tensorkeep.stores.local import LocalFolderSink, LocalSink, kernel
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
kind, size, bare = sys.argv[1], int(sys.argv[2]) or None, sys.argv[3] == "bare"
if bare:
    del os.O_TMPFILE
    kernel._function = lambda name: None
try:
    if kind == "file":
        with LocalSink("out", size=size) as sink:
            print("open")
            for at in range(4):
                sink.write_at(at * 1_000_000, bytes(1_000_000))
            sink.commit()
    else:
        with LocalFolderSink("out") as folder:
            folder.create("small").write_at(0, b"x")
            sink = folder.create("part", size=size)
            print("open")
            for at in range(4):
                sink.write_at(at * 1_000_000, bytes(1_000_000))
            folder.commit()
except NoSpace as error:
    print("NoSpace", error.subject)
print(os.listdir("."))
"""


@pytest.mark.parametrize("bare", ["linux", "bare"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_disk_that_fills_up(tmp_path, root, kind, bare):
    name = "out" if kind == "file" else "out/part"
    done = run(FULL, kind, "0", bare, cwd=tmp_path, root=root)
    assert done.stdout.splitlines() == ["open", f"NoSpace {name}", "[]"], done.stderr
    done = run(FULL, kind, "4000000", bare, cwd=tmp_path, root=root)
    # With its size known it is refused before a byte is written, where room can be reserved.
    expected = [f"NoSpace {name}", "[]"]
    assert done.stdout.splitlines() in (expected, ["open", *expected]), done.stderr
