"""Standard input, pipes that close, streams that are full or missing, locales."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

RUN = [sys.executable, "-m", "tensorkeep"]


@pytest.mark.parametrize("verb", ["scan", "inspect", "verify"])
def test_stdin_as_a_pipe_and_as_a_file(child, digits, verb):
    piped = child(verb, "-", input=digits.read_bytes())
    with digits.open("rb") as file:
        redirected = child(verb, "-", stdin=file)
    assert (piped.code, redirected.code) == (0, 0)
    assert "<stdin>" in piped.out
    assert redirected.out.splitlines()[0] == piped.out.splitlines()[0]


def test_convert_from_stdin(child, digits, tmp_path):
    done = child("convert", "-", tmp_path / "a.safetensors", input=digits.read_bytes())
    assert done.code == 0
    child("convert", digits, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_empty_and_foreign_stdin(child):
    assert "an empty file" in child("inspect", "-", input=b"").sentence()
    done = child("scan", "-", input=b"hello, world, hello")
    assert done.code == 2
    assert done.out.startswith("unknown")


@pytest.mark.parametrize("form", ["human", "json"])
@pytest.mark.parametrize("verb", ["scan", "inspect"])
def test_a_reader_that_stops_reading(hostile_digits, named, verb, form):
    """`| head`: quiet, and the exit code is still the verdict's."""
    reading, writing = os.pipe()
    os.close(reading)
    target = hostile_digits if verb == "scan" else named
    done = subprocess.run(
        [*RUN, verb, "--format", form, target], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode == (1 if verb == "scan" else 0)


@pytest.mark.parametrize("form", ["human", "json"])
def test_a_full_stdout(digits, form):
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            [*RUN, "scan", "--format", form, digits],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        "tensorkeep: standard output: expected room for the result, got No space left on device\n"
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(digits, hostile_digits, tmp_path, closed):
    for target, code in ((digits, 0), (hostile_digits, 1), (tmp_path / "no", 2)):
        script = f'"$@" {closed}'
        done = subprocess.run(
            ["/bin/sh", "-c", script, "sh", *RUN, "scan", str(target)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code
        assert "Traceback" not in done.stderr
    # A file that got the number of a closed stream must not receive what is printed.
    script = f'"$@" {closed}'
    made = tmp_path / "out.pth"
    arguments = [*RUN, "convert", str(digits), str(made)]
    subprocess.run(["/bin/sh", "-c", script, "sh", *arguments], check=True, capture_output=True)
    assert made.read_bytes().startswith(b"PK\x03\x04")
    assert b"wrote" not in made.read_bytes()


@pytest.mark.parametrize(
    "env",
    [
        {"LC_ALL": "C", "LANG": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
)
def test_locales_that_cannot_write_every_name(child, named, odd_values, env):
    for arguments in (["inspect", named], ["inspect", "--values", odd_values], ["scan", named]):
        done = child(*arguments, env=env)
        assert done.code == 0, done.err
        assert done.err == ""
    shown = child("inspect", named, env={"PYTHONIOENCODING": "ascii"}).out
    assert "|- x[/bold]" in shown
    assert "???.weight" in shown
    report = child("inspect", "--format", "json", named, env=env)
    names = [tensor["name"] for tensor in json.loads(report.out)["tensors"]]
    assert "日本語.weight" in names


def test_json_is_ascii_and_names_come_back_whole(cli, named, hostile_names):
    done = cli("inspect", "--format", "json", named)
    assert done.out.isascii()
    assert [tensor["name"] for tensor in json.loads(done.out)["tensors"]] == hostile_names
