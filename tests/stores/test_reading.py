"""Local files and folders: what opens, what is refused, what changed meanwhile."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tensorkeep.errors import (
    AccessDenied,
    BadArgument,
    ChangedWhileRead,
    Damaged,
    NotFound,
    StoreError,
)
from tensorkeep.stores.local import LocalBlob, LocalFolder, same_file


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_it_says_what_is_missing(tmp_path):
    with pytest.raises(NotFound) as caught:
        LocalBlob(tmp_path / "absent.pth")
    assert caught.value.subject == str(tmp_path / "absent.pth")
    (tmp_path / "file").touch()
    with pytest.raises(NotFound, match="not a folder"):
        LocalBlob(tmp_path / "file" / "model.pth")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(NotFound, match="circle"):
        LocalBlob(tmp_path / "loop")
    with pytest.raises(BadArgument, match="shorter"):
        LocalBlob(tmp_path / ("n" * 300))


def test_it_refuses_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError, match="got a pipe"):
        LocalBlob(tmp_path / "pipe")  # and does not wait for somebody to write to it
    with pytest.raises(StoreError, match="got a folder"):
        LocalBlob(tmp_path)
    with pytest.raises(StoreError, match="got a device"):
        LocalBlob("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(tmp_path, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/socket")  # the path itself may be too long for one
        os.close(here)
        with pytest.raises(StoreError, match="got a socket"):
            LocalBlob(tmp_path / "socket")


def test_no_descriptor_leaks(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"abc")
    before = open_descriptors()
    LocalBlob(path).close()
    with pytest.raises(ZeroDivisionError), LocalBlob(path):
        raise ZeroDivisionError
    with pytest.raises(StoreError):
        LocalBlob(tmp_path)
    assert open_descriptors() == before


def test_reads_that_come_short_are_put_together(tmp_path, monkeypatch):
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 4)
    pread, preadv = os.pread, os.preadv
    monkeypatch.setattr(os, "pread", lambda fd, n, at: pread(fd, min(n, 100), at))
    monkeypatch.setattr(os, "preadv", lambda fd, to, at: preadv(fd, [to[0][:7]], at))
    with LocalBlob(path) as blob:
        assert blob.read(3, 1000) == path.read_bytes()[3:1003]
        assert blob.bytes_read == 1000


def test_a_device_that_fails_is_named(tmp_path, monkeypatch):
    path = tmp_path / "data"
    path.write_bytes(bytes(100))

    def broken(*arguments):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", broken)
    with LocalBlob(path) as blob, pytest.raises(StoreError, match=r"offset 40.*check the disk"):
        blob.read(40, 10)


def test_a_file_that_shrank_is_noticed(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(1000))
    with LocalBlob(path) as blob:
        os.truncate(path, 600)
        assert blob.read(0, 600) == bytes(600)
        with pytest.raises(ChangedWhileRead, match="600"):
            blob.read(500, 200)
        with pytest.raises(ChangedWhileRead):
            blob.read_into(700, memoryview(bytearray(10)))
        with pytest.raises(ChangedWhileRead, match="has 600"):
            blob.check_unchanged()


def test_a_file_that_was_written_to_is_noticed(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(1000))
    os.utime(path, ns=(1, 1))
    with LocalBlob(path) as blob:
        blob.check_unchanged()
        with path.open("r+b") as file:
            file.write(b"x")
        with pytest.raises(ChangedWhileRead):
            blob.check_unchanged()


def test_a_file_that_was_replaced_is_still_read(tmp_path):
    path, other = tmp_path / "data", tmp_path / "other"
    path.write_bytes(b"old")
    other.write_bytes(b"newer")
    with LocalBlob(path) as blob:
        other.replace(path)
        blob.check_unchanged()
        assert blob.read(0, 3) == b"old"


def test_a_sparse_terabyte_opens_and_reads(tmp_path):
    path = tmp_path / "data"
    path.touch()
    os.truncate(path, 1 << 40)
    with LocalBlob(path) as blob:
        assert blob.read((1 << 40) - 5, 5) == bytes(5)
        assert blob.bytes_read == 5


DROPPED = """
import os, sys
from tensorkeep.stores.local import LocalBlob, LocalFolder, LocalFolderSink, LocalSink
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
for kind, path in [(LocalBlob, "secret"), (LocalFolder, "closed"), (LocalSink, "new"),
                   (LocalFolderSink, "newfolder"), (LocalBlob, "closed/x")]:
    try:
        made = kind(os.path.join(sys.argv[1], path))
        getattr(made, "names", str)()
        print(path, "worked")
    except Exception as error:
        print(path, type(error).__name__)
"""


def test_no_permission_is_said(root):
    # Not in tmp_path: its parents are closed to the unprivileged child.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        (folder / "secret").write_bytes(b"x")
        (folder / "secret").chmod(0)
        (folder / "closed").mkdir(mode=0o000)
        folder.chmod(0o555)
        child = subprocess.run(
            [sys.executable, "-c", DROPPED, name],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(root / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        folder.chmod(0o755)
        (folder / "closed").chmod(0o755)
    denied = AccessDenied.__name__
    assert child.stderr == ""
    assert child.stdout.splitlines() == [
        f"{path} {denied}" for path in ("secret", "closed", "new", "newfolder", "closed/x")
    ]


def test_a_folder_lists_and_opens_its_files(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "abc").write_bytes(b"abc")
    cache = tmp_path / "snapshot"
    cache.mkdir()
    (cache / "b.bin").symlink_to("../blobs/abc")  # as hub caches are made
    (cache / "a.bin").write_bytes(b"a")
    (cache / "broken").symlink_to("nowhere")
    (cache / "inner").mkdir()
    folder = LocalFolder(cache)
    assert folder.names() == ["a.bin", "b.bin", "broken"]
    with folder.open("b.bin") as blob:
        assert blob.read(0, 3) == b"abc"
        assert blob.name == str(cache / "b.bin")
    with pytest.raises(NotFound):
        folder.open("broken")


@pytest.mark.parametrize("name", ["", ".", "..", "/etc/passwd", "a/b", "../up", "a\\b", "a\0b"])
def test_a_name_cannot_lead_out_of_the_folder(tmp_path, name):
    with pytest.raises(Damaged, match="plain name"):
        LocalFolder(tmp_path).open(name)


def test_a_folder_must_be_one(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="expected a folder"):
        LocalFolder(tmp_path / "file")
    with pytest.raises(NotFound):
        LocalFolder(tmp_path / "absent")


def test_same_file_sees_through_links(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"1")
    (tmp_path / "soft").symlink_to(one)
    (tmp_path / "hard").hardlink_to(one)
    assert same_file(one, tmp_path / "soft")
    assert same_file(str(one), tmp_path / "hard")
    assert not same_file(one, two)
    assert not same_file(one, tmp_path / "absent")
    assert not same_file("a\0b", one)
    with LocalBlob(one) as blob:
        assert same_file(blob.fileno(), tmp_path / "hard")
