"""A written file: whole under its name, or nothing at all."""

from __future__ import annotations

import errno
import os
import random
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from tensorkeep.errors import (
    AccessDenied,
    AlreadyExists,
    BadArgument,
    NoSpace,
    NotFound,
    StoreError,
)
from tensorkeep.stores.local import LocalSink, kernel

MISSING = {
    "everything": [],
    "no-tmpfile": ["O_TMPFILE"],
    "no-fallocate": ["kernel"],
    "bare": ["O_TMPFILE", "kernel", "posix_fadvise", "O_CLOEXEC"],
    "no-links": ["O_TMPFILE", "kernel", "link"],
}


@pytest.fixture(params=MISSING)
def system(request, monkeypatch):
    """A system that lacks some of what Linux has."""
    for name in MISSING[request.param]:
        if name == "kernel":
            monkeypatch.setattr(kernel, "_function", lambda name: None)
        elif name == "link":
            monkeypatch.setattr(os, "link", failing(errno.EPERM))
        else:
            monkeypatch.delattr(os, name)
    return request.param


def failing(number):
    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number))

    return fail


def listed(folder):
    return sorted(entry.name for entry in Path(folder).iterdir())


def write(path, data=b"data", **options):
    with LocalSink(path, **options) as sink:
        sink.write_at(0, data)
        sink.commit()


def test_nothing_is_there_until_commit(tmp_path, system):
    path = tmp_path / "out.bin"
    with LocalSink(path, size=3) as sink:
        sink.write_at(1, b"bc")
        sink.write_at(0, memoryview(b"a"))
        assert not path.exists()
        sink.commit()
        assert path.read_bytes() == b"abc"
        sink.commit()
        sink.abort()
    assert listed(tmp_path) == ["out.bin"]
    assert sink.name == str(path)


def test_leaving_without_a_commit_leaves_nothing(tmp_path, system):
    with LocalSink(tmp_path / "out", size=2 << 20) as sink:
        sink.write_at(0, b"x")
    with pytest.raises(ZeroDivisionError), LocalSink(tmp_path / "out") as sink:
        raise ZeroDivisionError
    sink.abort()
    assert listed(tmp_path) == []
    for use in (lambda: sink.write_at(0, b"x"), sink.commit, sink.reader):
        with pytest.raises(StoreError, match="closed"):
            use()


def test_it_does_not_overwrite_unasked(tmp_path, system):
    path = tmp_path / "out"
    path.write_bytes(b"precious")
    with pytest.raises(AlreadyExists, match="overwrite"):
        LocalSink(path)
    late = tmp_path / "late"
    with LocalSink(late) as sink:
        late.write_bytes(b"faster")
        with pytest.raises(AlreadyExists):
            sink.commit()
    assert listed(tmp_path) == ["late", "out"]
    assert (path.read_bytes(), late.read_bytes()) == (b"precious", b"faster")


def test_overwriting_swaps_at_commit(tmp_path, system):
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with LocalSink(path, overwrite=True) as sink:
        sink.write_at(0, b"new")
        assert path.read_bytes() == b"old"
        sink.commit()
    assert path.read_bytes() == b"new"
    write(tmp_path / "fresh", overwrite=True)
    assert listed(tmp_path) == ["fresh", "out"]


def test_one_of_many_writers_wins(tmp_path, system):
    path, outcomes = tmp_path / "out", []
    barrier = threading.Barrier(8)

    def work(me):
        with LocalSink(path) as sink:
            sink.write_at(0, bytes([me]) * 1000)
            barrier.wait()
            try:
                sink.commit()
                outcomes.append(me)
            except AlreadyExists:
                outcomes.append(None)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [me for me in outcomes if me is not None]
    assert len(outcomes) == 8
    assert len(winners) == 1
    assert path.read_bytes() == bytes(winners) * 1000
    assert listed(tmp_path) == ["out"]


def test_threads_write_their_parts(tmp_path):
    data = random.Random(3).randbytes(1_000_003)
    step = 70_001
    with LocalSink(tmp_path / "out", size=len(data)) as sink:

        def work(first):
            for at in range(first * step, len(data), 4 * step):
                sink.write_at(at, data[at : at + step])

        threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sink.commit()
    assert (tmp_path / "out").read_bytes() == data


def test_short_writes_are_finished(tmp_path, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:7], at))
    write(tmp_path / "out", bytes(range(100)))
    assert (tmp_path / "out").read_bytes() == bytes(range(100))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: 0)
    with pytest.raises(StoreError, match="check the disk"):
        write(tmp_path / "other")


def test_any_buffer_is_written(tmp_path):
    with LocalSink(tmp_path / "out") as sink:
        sink.write_at(0, memoryview(bytearray(range(12))).cast("B", (3, 4)))
        sink.write_at(12, memoryview(np.zeros((0, 3))))
        sink.write_at(12, bytearray(b"!"))
        sink.commit()
    assert (tmp_path / "out").read_bytes() == bytes(range(12)) + b"!"


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o000])
def test_permissions_obey_the_umask(tmp_path, system, umask):
    before = os.umask(umask)
    try:
        write(tmp_path / "out")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o666 & ~umask


def test_permissions_of_a_replaced_file_stay(tmp_path, system):
    path = tmp_path / "out"
    path.touch(mode=0o600)
    write(path, overwrite=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_read_only_file_is_protected(tmp_path, monkeypatch):
    path = tmp_path / "out"
    path.touch()
    monkeypatch.setattr(os, "access", lambda *a: False)  # root may write anything
    with pytest.raises(AccessDenied, match="read-only"):
        LocalSink(path, overwrite=True)


def test_a_link_stays_and_its_file_is_replaced(tmp_path, system):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to("real/file")
    with pytest.raises(AlreadyExists):
        LocalSink(link)
    write(link, b"new", overwrite=True)
    assert link.is_symlink()
    assert (tmp_path / "real" / "file").read_bytes() == b"new"
    assert listed(tmp_path / "real") == ["file"]


def test_links_that_lead_nowhere(tmp_path):
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(AlreadyExists):
        LocalSink(tmp_path / "dangling")
    write(tmp_path / "dangling", overwrite=True)
    assert (tmp_path / "nowhere").read_bytes() == b"data"
    (tmp_path / "far").symlink_to("no/folder")
    with pytest.raises(NotFound):
        LocalSink(tmp_path / "far", overwrite=True)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(NotFound, match="circle"):
        LocalSink(tmp_path / "loop", overwrite=True)


def test_what_is_no_file_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "null").symlink_to("/dev/null")
    for name, what in [("pipe", "a pipe"), ("folder", "a folder"), ("null", "a device")]:
        with pytest.raises(AlreadyExists, match=f"got {what}"):
            LocalSink(tmp_path / name, overwrite=True)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    late = tmp_path / "late"
    with LocalSink(late, overwrite=True) as sink:
        os.mkfifo(late)
        with pytest.raises(AlreadyExists):
            sink.commit()


def test_there_must_be_a_folder(tmp_path):
    with pytest.raises(NotFound) as caught:
        LocalSink(tmp_path / "no" / "out")
    assert caught.value.subject == str(tmp_path / "no")
    (tmp_path / "file").touch()
    with pytest.raises(NotFound, match="got a file"):
        LocalSink(tmp_path / "file" / "out")
    with pytest.raises(BadArgument, match="folder"):
        LocalSink(f"{tmp_path}/out/")
    with pytest.raises(BadArgument):
        LocalSink("")
    assert listed(tmp_path) == ["file"]


def test_the_longest_name_that_fits_is_written(tmp_path, system):
    name = "ü" * 125 + "abcde"  # 255 bytes
    write(tmp_path / name)
    assert listed(tmp_path) == [name]
    with pytest.raises(BadArgument, match="shorter"):
        write(tmp_path / (name + "f"))


def test_a_relative_path_means_the_folder_of_that_moment(tmp_path, monkeypatch, system):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    with LocalSink("out") as sink:
        monkeypatch.chdir(tmp_path / "b")
        sink.commit()
    assert (listed(tmp_path / "a"), listed(tmp_path / "b")) == (["out"], [])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG], ids=str)
@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_full_disk_leaves_nothing(tmp_path, system, monkeypatch, number, call):
    monkeypatch.setattr(os, call, failing(number))
    with pytest.raises(NoSpace, match="nothing was left behind"):
        write(tmp_path / "out")
    assert listed(tmp_path) == []


def test_a_full_disk_is_known_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel, "fallocate", failing(errno.ENOSPC))
    with pytest.raises(NoSpace):
        LocalSink(tmp_path / "out", size=1 << 40)
    assert listed(tmp_path) == []


def test_more_than_the_device_holds_is_refused_untried(tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(kernel, "fallocate", lambda *arguments: tried.append(arguments))
    with pytest.raises(NoSpace):
        LocalSink(tmp_path / "out", size=1 << 60)
    assert tried == []
    assert listed(tmp_path) == []
    monkeypatch.delattr(os, "fstatvfs")
    LocalSink(tmp_path / "out", size=1 << 60).abort()
    assert len(tried) == 1


def test_a_failed_write_cannot_be_committed(tmp_path, monkeypatch):
    with LocalSink(tmp_path / "out") as sink:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", failing(errno.EIO))
            with pytest.raises(StoreError, match="offset 5"):
                sink.write_at(5, b"x")
        sink.write_at(0, b"fine")
        with pytest.raises(StoreError, match="failed"):
            sink.commit()
    assert listed(tmp_path) == []


@pytest.mark.parametrize("written", [b"", b"123", b"12345"])
def test_a_size_that_was_promised_is_held(tmp_path, written):
    with LocalSink(tmp_path / "out", size=4) as sink:
        sink.write_at(0, written)
        with pytest.raises(StoreError, match=f"expected 4 bytes.*got {len(written)}"):
            sink.commit()
    assert listed(tmp_path) == []


@pytest.mark.parametrize("step", ["place", "replace"])
def test_a_commit_that_fails_late_leaves_the_old(tmp_path, system, monkeypatch, step):
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with LocalSink(path, overwrite=True) as sink:
        sink.write_at(0, b"new")
        target = (
            "tensorkeep.stores.local.writing.place" if step == "place" else "pathlib.Path.replace"
        )
        monkeypatch.setattr(target, failing(errno.EIO))
        with pytest.raises(StoreError):
            sink.commit()
    assert listed(tmp_path) == ["out"]
    assert path.read_bytes() == b"old"


def test_what_was_written_can_be_read_before_it_appears(tmp_path, system):
    data = random.Random(5).randbytes(2_000_000)
    with LocalSink(tmp_path / "out", size=len(data)) as sink:
        sink.write_at(0, data)
        with sink.reader() as blob:
            assert blob.size == len(data)
            assert blob.read(0, len(data)) == data
        assert not (tmp_path / "out").exists()
        sink.commit()
    assert (tmp_path / "out").read_bytes() == data


def test_everything_is_synced_before_it_appears(tmp_path, monkeypatch, system):
    path, seen = tmp_path / "out", []
    fsync = os.fsync

    def noted(descriptor):
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        seen.append((kind, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    write(path)
    assert seen == [("file", False), ("folder", True)]


def test_a_file_system_that_cannot_sync_folders_is_no_failure(tmp_path, monkeypatch):
    def picky(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", picky)
    write(tmp_path / "out")
    assert (tmp_path / "out").exists()


def test_without_proc_the_file_gets_a_hidden_name(tmp_path, monkeypatch):
    monkeypatch.setattr("tensorkeep.stores.local.placing._PROC", str(tmp_path / "no-proc"))
    with LocalSink(tmp_path / "out") as sink:
        names = listed(tmp_path)
        assert len(names) == 1
        assert names[0].startswith(".out.")
        assert names[0].endswith(".tmp")
        sink.commit()
    assert listed(tmp_path) == ["out"]


def test_no_descriptor_leaks(tmp_path, system):
    def count():
        return len(listed("/proc/self/fd"))

    before = count()
    write(tmp_path / "out")
    write(tmp_path / "out", overwrite=True)
    with pytest.raises(AlreadyExists):
        write(tmp_path / "out")
    LocalSink(tmp_path / "other").abort()
    assert count() == before
