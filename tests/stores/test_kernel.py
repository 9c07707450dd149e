"""The two calls that Python lacks: right where they exist, False where they do not."""

from __future__ import annotations

import ctypes
import errno
import os
import sys

import pytest

from tensorkeep.stores.local import kernel


@pytest.fixture(autouse=True)
def fresh():
    kernel._function.cache_clear()
    yield
    kernel._function.cache_clear()


def answering(monkeypatch, *numbers):
    """Make the C function fail with each of `numbers` in turn, then succeed."""
    left = list(numbers)

    def function(*arguments):
        if not left:
            return 0
        ctypes.set_errno(left.pop(0))
        return -1

    monkeypatch.setattr(kernel, "_function", lambda name: function)


def test_fallocate_reserves(tmp_path):
    path = tmp_path / "file"
    with path.open("w+b") as file:
        if kernel.fallocate(file.fileno(), 5 << 20):  # not every file system can
            assert os.fstat(file.fileno()).st_blocks * 512 >= 5 << 20
            assert os.fstat(file.fileno()).st_size == 5 << 20


def test_sizes_beyond_32_bits_arrive_whole(monkeypatch):
    seen = []
    monkeypatch.setattr(kernel, "_function", lambda name: lambda *a: seen.append(a) or 0)
    assert kernel.fallocate(3, (1 << 40) + 7)
    assert [each.value for each in seen[0]] == [3, 0, 0, (1 << 40) + 7]


def test_exchange_and_noreplace(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.write_bytes(b"2")
    if kernel.rename(one, two, kernel.EXCHANGE):
        assert two.is_dir()
        assert one.read_bytes() == b"2"
        with pytest.raises(FileExistsError):
            kernel.rename(one, two, kernel.NOREPLACE)
        assert kernel.rename(one, tmp_path / "three", kernel.NOREPLACE)


@pytest.mark.parametrize("name", ["ENOSYS", "EOPNOTSUPP", "EINVAL", "EPERM"])
def test_what_the_kernel_does_not_do_is_false(monkeypatch, name):
    answering(monkeypatch, getattr(errno, name))
    assert kernel.fallocate(3, 10) is False


def test_a_signal_is_tried_again(monkeypatch):
    answering(monkeypatch, errno.EINTR, errno.EINTR)
    assert kernel.fallocate(3, 10) is True


def test_a_full_disk_is_an_error(monkeypatch):
    answering(monkeypatch, errno.ENOSPC)
    with pytest.raises(OSError, match="space") as caught:
        kernel.fallocate(3, 10)
    assert caught.value.errno == errno.ENOSPC


def test_away_from_linux_there_is_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert kernel.fallocate(3, 10) is False
    assert kernel.rename(tmp_path / "a", tmp_path / "b", kernel.NOREPLACE) is False


def test_a_c_library_without_them(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda *a, **k: object())
    assert kernel.fallocate(3, 10) is False


def test_a_python_without_ctypes(monkeypatch):
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert kernel.fallocate(3, 10) is False
