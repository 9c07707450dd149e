"""A written folder: all of its files under its name, or none."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from tensorkeep.errors import AlreadyExists, BadArgument, NoSpace, NotFound, StoreError
from tensorkeep.stores.local import LocalFolderSink, kernel


def listed(folder):
    return sorted(entry.name for entry in Path(folder).iterdir())


def ours(names):
    return all(name.startswith("part") for name in names)


@pytest.fixture(params=["exchange", "aside"])
def system(request, monkeypatch):
    """With and without the call that swaps two folders at once."""
    if request.param == "aside":
        monkeypatch.setattr(kernel, "rename", lambda *a: False)
    return request.param


def write(path, names=("part1", "part2"), data=b"new", **options):
    with LocalFolderSink(path, **options) as folder:
        for name in names:
            folder.create(name, size=len(data)).write_at(0, data)
        folder.commit()
        return folder


def old_folder(path, *names):
    path.mkdir()
    for name in names:
        (path / name).write_bytes(b"old")
    return path


def contents(path):
    return {entry.name: entry.read_bytes() for entry in path.iterdir()}


def test_it_appears_at_once(tmp_path):
    path = tmp_path / "out"
    with LocalFolderSink(path) as folder:
        part = folder.create("part1")
        part.write_at(0, b"abc")
        part.commit()
        folder.create("part2", size=1).write_at(0, b"d")
        assert not path.exists()
        assert part.name == str(path / "part1")
        folder.commit()
        folder.commit()
        folder.abort()
    assert contents(path) == {"part1": b"abc", "part2": b"d"}
    assert listed(tmp_path) == ["out"]
    with pytest.raises(StoreError, match="closed"):
        folder.create("part3")


def test_a_slash_at_the_end_and_an_empty_folder_are_fine(tmp_path):
    write(f"{tmp_path}/out/")
    (tmp_path / "empty").mkdir(mode=0o700)
    write(tmp_path / "empty")
    assert contents(tmp_path / "empty") == {"part1": b"new", "part2": b"new"}
    assert stat.S_IMODE((tmp_path / "empty").stat().st_mode) == 0o700
    assert listed(tmp_path) == ["empty", "out"]


def test_nothing_stays_without_a_commit(tmp_path):
    with pytest.raises(ZeroDivisionError), LocalFolderSink(tmp_path / "out") as folder:
        folder.create("part1").write_at(0, b"x")
        done = folder.create("part2")
        done.commit()
        raise ZeroDivisionError
    folder.abort()
    assert listed(tmp_path) == []
    with pytest.raises(StoreError, match="closed"):
        folder.commit()


def test_a_full_folder_is_refused(tmp_path):
    path = old_folder(tmp_path / "out", "part1")
    with pytest.raises(AlreadyExists, match="'part1' in it"):
        LocalFolderSink(path)
    with pytest.raises(AlreadyExists):
        LocalFolderSink(path, replaceable=ours)  # not asked to overwrite
    with pytest.raises(AlreadyExists):
        LocalFolderSink(path, overwrite=True)  # and nobody says what may go
    assert contents(path) == {"part1": b"old"}
    assert listed(tmp_path) == ["out"]


def test_overwriting_replaces_all_of_it(tmp_path, system):
    path = old_folder(tmp_path / "out", "part1", "part7")
    folder = write(path, overwrite=True, replaceable=ours)
    assert contents(path) == {"part1": b"new", "part2": b"new"}
    assert listed(tmp_path) == ["out"]
    assert folder.left_behind is None


def test_a_stranger_is_protected(tmp_path, system):
    path = old_folder(tmp_path / "out", "part1", "thesis.tex")
    with pytest.raises(AlreadyExists, match=r"'thesis.tex' in it.*move that away"):
        LocalFolderSink(path, overwrite=True, replaceable=ours)
    inner = old_folder(tmp_path / "other", "part1")
    (inner / "part2").mkdir()
    with pytest.raises(AlreadyExists, match="'part2' in it"):
        LocalFolderSink(inner, overwrite=True, replaceable=ours)
    assert listed(tmp_path) == ["other", "out"]


def test_a_stranger_that_came_meanwhile_is_protected(tmp_path, system):
    path = old_folder(tmp_path / "out", "part1")
    with LocalFolderSink(path, overwrite=True, replaceable=ours) as folder:
        (path / "thesis.tex").write_bytes(b"years")
        with pytest.raises(AlreadyExists, match=r"thesis.tex"):
            folder.commit()
    assert contents(path) == {"part1": b"old", "thesis.tex": b"years"}
    assert listed(tmp_path) == ["out"]


def test_a_folder_filled_meanwhile_is_protected(tmp_path, system):
    with LocalFolderSink(tmp_path / "out") as folder:
        old_folder(tmp_path / "out", "part1")
        with pytest.raises(AlreadyExists):
            folder.commit()
    assert contents(tmp_path / "out") == {"part1": b"old"}


def test_two_writers_and_one_winner(tmp_path):
    first, second = LocalFolderSink(tmp_path / "out"), LocalFolderSink(tmp_path / "out")
    for number, folder in enumerate((first, second)):
        folder.create(f"part{number}").write_at(0, b"x")
    first.commit()
    with pytest.raises(AlreadyExists):
        second.commit()
    assert contents(tmp_path / "out") == {"part0": b"x"}
    assert listed(tmp_path) == ["out"]


def test_the_old_folder_comes_back_when_the_new_cannot_be_put(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel, "rename", lambda *a: False)
    path = old_folder(tmp_path / "out", "part1")
    rename, calls = Path.rename, []

    def second_fails(self, target):
        calls.append(self)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    with LocalFolderSink(path, overwrite=True, replaceable=ours) as folder:
        folder.create("part9")
        monkeypatch.setattr(Path, "rename", second_fails)
        with pytest.raises(StoreError, match="check the disk"):
            folder.commit()
    assert contents(path) == {"part1": b"old"}
    assert listed(tmp_path) == ["out"]
    assert len(calls) == 3


def test_what_cannot_be_deleted_is_named(tmp_path, system, monkeypatch):
    path = old_folder(tmp_path / "out", "part1")
    with LocalFolderSink(path, overwrite=True, replaceable=ours) as folder:
        folder.create("part9")

        def stuck(self, missing_ok=False):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(Path, "unlink", stuck)
        folder.commit()
    assert contents(path) == {"part9": b""}
    assert folder.left_behind is not None
    assert folder.left_behind.name.startswith(".out.")
    assert contents(folder.left_behind) == {"part1": b"old"}


def test_a_part_that_fails_takes_the_folder_with_it(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(NoSpace) as caught, LocalFolderSink(tmp_path / "out") as folder:
        folder.create("part1").write_at(0, b"fine")
        monkeypatch.setattr(os, "pwrite", full)
        folder.create("part2").write_at(0, b"x")
    assert caught.value.subject == str(tmp_path / "out" / "part2")
    assert listed(tmp_path) == []


def test_an_unfinished_part_stops_the_commit(tmp_path):
    with LocalFolderSink(tmp_path / "out") as folder:
        folder.create("part1", size=10).write_at(0, b"short")
        with pytest.raises(StoreError, match="expected 10 bytes"):
            folder.commit()
    assert listed(tmp_path) == []


def test_a_name_twice_is_refused(tmp_path):
    with LocalFolderSink(tmp_path / "out") as folder:
        folder.create("part1").commit()
        with pytest.raises(AlreadyExists):
            folder.create("part1")


@pytest.mark.parametrize("name", ["", ".", "..", "/etc/passwd", "a/b", "a\\b", "a\0b"])
def test_a_name_cannot_lead_out_of_the_folder(tmp_path, name):
    with LocalFolderSink(tmp_path / "out") as folder, pytest.raises(BadArgument, match="plain"):
        folder.create(name)


def test_places_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AlreadyExists, match="got a file"):
        LocalFolderSink(tmp_path / "file", overwrite=True, replaceable=ours)
    with pytest.raises(NotFound):
        LocalFolderSink(tmp_path / "file" / "out")
    with pytest.raises(NotFound):
        LocalFolderSink(tmp_path / "no" / "out")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(NotFound, match="circle"):
        LocalFolderSink(tmp_path / "loop")
    assert listed(tmp_path) == ["file", "loop"]


def test_a_link_to_a_folder_stays(tmp_path, system):
    old_folder(tmp_path / "real", "part1")
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", overwrite=True, replaceable=ours)
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "real") == {"part1": b"new", "part2": b"new"}


def test_files_and_folder_are_synced_before_it_appears(tmp_path, monkeypatch):
    path, seen, fsync = tmp_path / "out", [], os.fsync

    def noted(descriptor):
        seen.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    write(path, names=["part1"])
    assert seen == [(False, False), (True, False), (True, True)]
