"""File objects of every manner, and standard input in every form."""

from __future__ import annotations

import errno
import gzip
import io
import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from tensorkeep.errors import BadArgument, ChangedWhileRead, NoSpace, StoreError
from tensorkeep.stores._descriptor import DescriptorBlob
from tensorkeep.stores.streams import FileObjectBlob, plain_file_blob, stdin_blob


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


class Odd(io.RawIOBase):
    """A file object with one method replaced."""

    def __init__(self, data=b"0123456789", **odd):
        self.inner = io.BytesIO(data)
        for name, value in odd.items():
            setattr(self, name, value)

    def seekable(self):
        return True

    def read(self, size=-1):
        return self.inner.read(size)

    def seek(self, offset, whence=0):
        return self.inner.seek(offset, whence)

    def tell(self):
        return self.inner.tell()


def test_the_position_comes_back_and_the_file_stays_open():
    file = io.BytesIO(b"0123456789")
    file.seek(4)
    with FileObjectBlob(file) as blob:
        assert blob.size == 10
        assert blob.read(0, 3) == b"012"
    assert file.tell() == 4
    assert not file.closed


def test_a_file_that_its_owner_closed_first_is_no_trouble_to_close():
    file = io.BytesIO(b"0123456789")
    blob = FileObjectBlob(file)
    file.close()
    with pytest.raises(StoreError, match="ValueError"):
        blob.read(0, 1)
    blob.close()


def test_names():
    assert FileObjectBlob(io.BytesIO()).name == "<BytesIO>"
    named = Odd()
    named.name = "weights.pth"
    assert FileObjectBlob(named).name == "weights.pth"
    named.name = 3  # what os.fdopen gives
    assert FileObjectBlob(named).name == "<Odd>"
    assert FileObjectBlob(named, "mine").name == "mine"


def test_text_is_refused(tmp_path):
    path = tmp_path / "text"
    path.write_text("hello")
    with path.open() as file, pytest.raises(BadArgument, match='"rb"'):
        FileObjectBlob(file)
    with pytest.raises(BadArgument, match="one that reads str"):
        FileObjectBlob(Odd(read=lambda size: "text", readinto=None)).read(0, 1)


def test_streams_are_refused():
    with pytest.raises(BadArgument, match="seek"):
        FileObjectBlob(Odd(seekable=lambda: False))


def test_a_base_class_that_never_wrote_readinto_is_read():
    def unwritten(buffer):
        raise io.UnsupportedOperation("readinto")

    assert FileObjectBlob(Odd(readinto=unwritten)).read(2, 5) == b"23456"


@pytest.mark.parametrize("got", [None, -1, 11, "5"])
def test_nonsense_counts_are_refused(got):
    with pytest.raises(StoreError, match="at most 10"):
        FileObjectBlob(Odd(readinto=lambda buffer: got)).read(0, 10)
    with pytest.raises(StoreError):
        FileObjectBlob(Odd(readinto=None, read=lambda size: b"x" * 11)).read(0, 10)


def test_an_end_that_came_early_is_a_change():
    file = io.BytesIO(b"0123456789")
    with FileObjectBlob(file) as blob:
        file.truncate(5)
        with pytest.raises(ChangedWhileRead, match="at 5"):
            blob.read(3, 4)
        with pytest.raises(ChangedWhileRead):
            blob.check_unchanged()


class CloudError(Exception):
    """What a library for object stores might raise."""


@pytest.mark.parametrize("name", ["tell", "seek", "read", "seekable"])
def test_whatever_the_object_raises_is_ours(name):
    def broken(*arguments):
        raise CloudError("token expired\x1b[2J")

    with pytest.raises(StoreError, match="CloudError: token expired") as caught:
        FileObjectBlob(Odd(readinto=None, **{name: broken})).read(0, 1)
    assert "\x1b" not in str(caught.value)


def test_an_interrupt_is_not_swallowed():
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FileObjectBlob(Odd(readinto=interrupted)).read(0, 1)


def test_plain_files_are_read_by_descriptor(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        file.read(3)
        blob = plain_file_blob(file)
        assert blob is not None
        assert (blob.name, blob.read(8, 2)) == (str(path), b"89")
        blob.close()
        assert file.read(2) == b"34"
    with path.open("rb", buffering=0) as raw, plain_file_blob(raw) as blob:
        assert blob.read(0, 1) == b"0"


def test_what_only_looks_like_a_plain_file_is_not(tmp_path):
    path = tmp_path / "data.gz"
    with gzip.open(path, "wb") as file:
        file.write(b"inside")
    with gzip.open(path) as file:
        assert plain_file_blob(file) is None
        assert FileObjectBlob(file).read(0, 6) == b"inside"
    with path.open("r+b") as both:
        assert plain_file_blob(both) is None
    with path.open("ab", buffering=0) as only_written:
        assert plain_file_blob(only_written) is None
    with Path("/dev/null").open("rb") as device:
        assert plain_file_blob(device) is None
    assert plain_file_blob(io.BytesIO()) is None


def test_a_temporary_file_wrapper_is_read():
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"abc")  # still in the buffer of the wrapped file
        assert FileObjectBlob(file).read(0, 3) == b"abc"


def piped(data):
    ours, theirs = os.pipe()

    def feed():
        with os.fdopen(theirs, "wb") as end:
            end.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        return stdin_blob(ours)
    finally:
        os.close(ours)
        thread.join()


@pytest.mark.parametrize("size", [0, 1, 3_000_017])
def test_a_pipe_is_spooled(size, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = random.Random(size).randbytes(size)
    with piped(data) as blob:
        assert (blob.name, blob.size, blob.bytes_read) == ("<stdin>", size, size)
        assert blob.read(0, size) == data
        assert list(tmp_path.iterdir()) == []


def test_a_redirected_file_is_read_in_place(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"0123456789")
    descriptor = os.open(path, os.O_RDONLY)
    with stdin_blob(descriptor) as blob:
        assert (blob.size, blob.bytes_read) == (10, 0)
        assert os.fstat(blob.fileno()).st_ino == path.stat().st_ino
    os.lseek(descriptor, 4, os.SEEK_SET)
    with stdin_blob(descriptor) as blob:  # what a pipe would have given: the rest
        assert blob.read(0, blob.size) == b"456789"
    os.close(descriptor)


def test_a_terminal_is_refused():
    leader, follower = os.openpty()
    with pytest.raises(BadArgument, match="terminal"):
        stdin_blob(follower)
    os.close(leader)
    os.close(follower)


def test_no_standard_input_at_all():
    with pytest.raises(StoreError, match="<stdin>"):
        stdin_blob(987654)


def test_a_folder_as_standard_input(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(StoreError, match="<stdin>"):
        stdin_blob(descriptor)
    os.close(descriptor)


def test_a_spool_that_does_not_fit(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(NoSpace, match="TMPDIR"):
        piped(b"x" * 1000)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


SPOOL = """
from tensorkeep.stores.streams import stdin_blob
blob = stdin_blob()
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(blob.size, peak.split()[1])
"""


def test_a_long_pipe_takes_little_memory(root):
    block = bytes(1 << 20)
    child = subprocess.Popen(
        [sys.executable, "-c", SPOOL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root / "src")},
    )
    for _ in range(100):
        child.stdin.write(block)
    out, _ = child.communicate()
    size, kilobytes = map(int, out.split())
    assert size == 100 << 20
    assert kilobytes < 40_000


def test_no_descriptor_leaks(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"abc")
    before = open_descriptors()
    with path.open("rb") as file, plain_file_blob(file) as blob:
        assert isinstance(blob, DescriptorBlob)
    with piped(b"abc"):
        pass
    assert open_descriptors() == before
