"""What a user may name, and what each name means."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tensorkeep.errors import BadArgument, NotFound, UnknownScheme
from tensorkeep.stores.local import LocalBlob
from tensorkeep.stores.memory import MemoryBlob
from tensorkeep.stores.opening import SCHEMES, open_blob, path_of, target_path
from tensorkeep.stores.streams import FileObjectBlob


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a b#1%.pth"
    path.write_bytes(b"data")
    return path


def test_every_kind_of_source(path):
    url = "file://" + str(path).replace("%", "%25").replace(" ", "%20")
    for source in (path, str(path), url, url.replace("file://", "FILE://localhost"), b"data"):
        with open_blob(source) as blob:
            assert blob.read(0, blob.size) == b"data"
    assert type(open_blob(bytearray(b"x"))) is MemoryBlob
    assert type(open_blob(memoryview(b"x"))) is MemoryBlob
    assert type(open_blob(io.BytesIO(b"x"))) is FileObjectBlob
    with path.open("rb") as file, open_blob(file) as blob:
        assert blob.read(0, 4) == b"data"


def test_paths_that_are_no_text():
    class Odd:
        def __fspath__(self):
            return "/dev/null/x"

    with pytest.raises(NotFound):
        open_blob(Odd())


@pytest.mark.parametrize("source", [None, 3, object(), ["a"]])
def test_what_is_no_source(source):
    with pytest.raises(BadArgument, match="expected a path"):
        open_blob(source)


@pytest.mark.parametrize("scheme", ["s3", "gs", "az", "http", "https", "hf", "abc+d.e-f", "S3"])
def test_unknown_schemes_are_refused_in_words(scheme, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{scheme}:").mkdir()
    (tmp_path / f"{scheme}:" / "model.pth").write_bytes(b"local")
    url = f"{scheme}://model.pth"
    for ask in (open_blob, path_of, target_path):
        with pytest.raises(UnknownScheme, match="copy the file here first") as caught:
            ask(url)
        assert caught.value.got == f"{scheme.lower()}://"
    # What the text means must not depend on the files that lie around; a Path means a path.
    for local in (f"./{url}", Path(url)):
        with open_blob(local) as blob:
            assert blob.read(0, 5) == b"local"


def test_a_new_scheme_is_one_line(monkeypatch):
    monkeypatch.setitem(SCHEMES, "memory", lambda url: MemoryBlob(url.encode(), url))
    with open_blob("memory://x") as blob:
        assert blob.read(0, blob.size) == b"memory://x"
    assert path_of("memory://x") is None
    with pytest.raises(UnknownScheme):
        target_path("memory://x")


@pytest.mark.parametrize("url", ["file://server/share/m.pth", "file://", "file://model.pth"])
def test_other_hosts_are_not_here(url):
    with pytest.raises(BadArgument, match="file:///path"):
        open_blob(url)


@pytest.mark.parametrize("bad", ["file:///a%00b", "a\0b", "", "\ud800"])
def test_what_no_path_can_be(bad):
    for ask in (open_blob, path_of, target_path):
        with pytest.raises(BadArgument):
            ask(bad)


def test_path_of():
    assert path_of("a/b") == Path("a/b")
    assert path_of(Path("a")) == Path("a")
    assert path_of("file:///a%20b") == Path("/a b")
    assert path_of("file:///caf%E9") == Path("/caf\udce9")
    assert path_of("-") is None
    assert path_of(b"x") is None
    assert path_of(io.BytesIO()) is None
    assert path_of("C://x".replace("//", "/")) == Path("C:/x")


def test_target_path_keeps_the_slash_of_a_folder():
    assert target_path("out/") == "out/"
    assert target_path("file:///out/") == "/out/"
    assert target_path(Path("out")) == "out"
    with pytest.raises(BadArgument, match="standard output"):
        target_path("-")


def test_a_dash_is_standard_input(path, root):
    program = (
        "from tensorkeep.stores.opening import open_blob; b = open_blob('-'); print(b.read(0, 4))"
    )
    with path.open("rb") as file:
        out = subprocess.run(
            [sys.executable, "-c", program],
            stdin=file,
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(root / "src")},
        ).stdout
    assert out == b"b'data'\n"


def test_a_local_file_opens_as_one(path):
    with open_blob(str(path)) as blob:
        assert type(blob) is LocalBlob
        assert blob.name == str(path)
