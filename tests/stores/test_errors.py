"""Every errno becomes an error of ours, and the known ones the right one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tensorkeep import errors
from tensorkeep.stores._errors import file_name, mapped, translated

KNOWN = {
    "ENOENT": errors.NotFound,
    "ENOTDIR": errors.NotFound,
    "ELOOP": errors.NotFound,
    "EACCES": errors.AccessDenied,
    "EPERM": errors.AccessDenied,
    "EROFS": errors.AccessDenied,
    "EEXIST": errors.AlreadyExists,
    "ENOTEMPTY": errors.AlreadyExists,
    "ENOSPC": errors.NoSpace,
    "EDQUOT": errors.NoSpace,
    "EFBIG": errors.NoSpace,
    "ENAMETOOLONG": errors.BadArgument,
    "ESTALE": errors.ChangedWhileRead,
}


@pytest.mark.parametrize("number", sorted(errno.errorcode), ids=errno.errorcode.get)
def test_every_errno_is_ours(number):
    with pytest.raises(errors.TensorkeepError) as caught, mapped("model.pth", "offset 7"):
        raise OSError(number, os.strerror(number), "/somewhere")
    assert type(caught.value) is KNOWN.get(errno.errorcode[number], errors.StoreError)
    assert caught.value.subject == "model.pth"
    assert caught.value.got == os.strerror(number)
    assert caught.value.where == "offset 7"
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_errno_has_a_remedy(name):
    number = getattr(errno, name)
    assert translated(OSError(number, "x"), "model.pth").remedy


def test_an_os_error_without_a_number_keeps_its_text():
    error = translated(OSError("the bucket is on fire"), "model.pth")
    assert type(error) is errors.StoreError
    assert "the bucket is on fire" in error.got


def test_other_exceptions_pass():
    with pytest.raises(ZeroDivisionError), mapped("model.pth"):
        raise ZeroDivisionError
    with pytest.raises(errors.Damaged), mapped("model.pth"):
        raise errors.Damaged("model.pth")


def test_what_a_path_can_be():
    assert file_name("a b") == "a b"
    assert file_name(Path("x") / "y") == "x/y"
    assert file_name("caf\udce9") == "caf\udce9"  # bytes that are not UTF-8, as the OS gives them


@pytest.mark.parametrize("text", ["", "a\0b", "a\ud800b"])
def test_what_a_path_cannot_be(text):
    with pytest.raises(errors.BadArgument):
        file_name(text)
