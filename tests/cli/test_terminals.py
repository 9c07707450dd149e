"""What people see: colour on a terminal only, hostile text harmless everywhere."""

from __future__ import annotations

import json
import os
import re

import pytest

# Colours, and nothing else, are what the command itself sends to a terminal.
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CURSOR = re.compile(r"\x1b\[(\?25[lh]|\d*[AK]|2K|1A)")


def plain(text):
    return COLOUR.sub("", text)


def test_colour_on_a_terminal_and_nowhere_else(terminal, child, digits):
    coloured = terminal("inspect", digits, columns=120).out
    assert COLOUR.search(coloured)
    quiet = child("inspect", digits).out
    assert "\x1b" not in quiet
    assert [line.rstrip() for line in plain(coloured).splitlines()] == quiet.splitlines()
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in terminal("inspect", digits, env=env).out


@pytest.mark.parametrize("columns", [20, 40, 80, 140])
def test_narrow_and_wide_terminals(terminal, hostile_digits, digits, columns):
    done = terminal("scan", hostile_digits, digits, columns=columns)
    assert done.code == 1
    joined = "".join(plain(done.out).split())
    assert "os.system('echothislinewasprintedbythecheckpoint')" in joined
    assert "pickle/dangerous-call" in joined
    assert terminal("inspect", digits, columns=columns).code == 0


def test_a_long_sentence_goes_on_below_itself(terminal, hostile_digits):
    lines = plain(terminal("scan", hostile_digits, columns=80).out).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("    do      "))
    assert lines[at + 1].startswith("            ")
    assert all(len(line) <= 80 for line in lines[1:])


@pytest.mark.parametrize("verb", [["inspect"], ["inspect", "--tensors"], ["scan"], ["verify"]])
def test_hostile_names_on_a_terminal(terminal, named, verb):
    done = terminal(*verb, named, columns=140)
    assert done.code == 0
    shown = plain(done.out)
    assert_harmless(shown)
    if verb[0] == "inspect":
        assert_all_shown(shown)


@pytest.mark.parametrize("verb", [["inspect"], ["inspect", "--tensors"], ["scan"], ["verify"]])
def test_hostile_names_in_plain_text(cli, named, verb):
    done = cli(*verb, named)
    assert done.code == 0
    assert_harmless(done.out + done.err)
    if verb[0] == "inspect":
        assert_all_shown(done.out)
        rows = [line for line in done.out.splitlines() if "int64" in line]
        assert len(rows) == 13
        assert max(map(len, rows)) < 200  # a name of 10,000 characters loses its middle


def assert_harmless(text):
    # Nothing but printable characters and ends of lines.
    assert [char for char in text if not (char.isprintable() or char == "\n")] == []


def assert_all_shown(text):
    for words in (
        "x[/bold]",
        "[link=http://evil.example]click[/link]",
        "\\x1b]0;owned\\x07title",
        "\\x1b[31mred\\x1b[0m",
        "\\x9b31mcsi",
        "a\\u202egpj.exe",
        "new\\x0aline\\x0d\\x09and more",
        "\\ud800surrogate",
        "nul\\x00inside",
        "LLLL...LLLL",
        "日本語.weight",
        ":smile:",
    ):
        assert words in text, words


def test_hostile_names_in_convert(cli, terminal, named, tmp_path):
    planned = cli("convert", "--dry-run", named, tmp_path / "a.pth")
    assert_harmless(planned.out + planned.err)
    refused = cli("convert", named, tmp_path / "a.safetensors")
    assert "\\ud800surrogate" in refused.sentence()
    assert_harmless(refused.err)
    done = terminal(
        "convert", "--drop-unsupported", "--skip", "x*", named, tmp_path / "a.safetensors"
    )
    assert done.code == 0
    assert_harmless(plain(done.out))
    assert "\\ud800surrogate" in done.out


@pytest.mark.parametrize(
    "name", ["x[bold]\x1b]0;owned\x07.pth", "a\u202eb.pth", "n\nl.pth", b"\xff.pth"]
)
def test_hostile_file_names(cli, terminal, tmp_path, digits, name):
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(digits.read_bytes())
    for verb in ("inspect", "scan", "verify"):
        done = cli(verb, path)
        assert done.code == 0
        assert_harmless(done.out + done.err)
    missing = cli("inspect", f"{path}.no")
    assert_harmless(missing.sentence())
    assert_harmless(plain(terminal("scan", tmp_path).out))
    json.loads(cli("scan", "--format", "json", path).out)


@pytest.mark.parametrize("words", ["\x1b[2J", "[/bold]", "\u202e", "\n\n\n", "\ud800", "\0"])
def test_hostile_arguments_in_errors(cli, digits, tmp_path, words):
    for arguments in (
        ["inspect", words],
        ["convert", "--section", words, digits, tmp_path / "a.pth"],
        ["convert", "--dtype", words, digits, tmp_path / "a.pth"],
        ["convert", "--shard-size", words, digits, f"{tmp_path}/a/"],
        ["convert", "--to", words, digits, tmp_path / "a.pth"],
        ["convert", "--only", words, digits, tmp_path / "a.pth"],
        [words],
    ):
        done = cli(*arguments)
        assert done.code == 2
        assert_harmless(done.err)
        assert "Traceback" not in done.err


def test_the_progress_bar_is_for_terminals(terminal, child, digits, tmp_path):
    made = tmp_path / "x[bold]\x1b[31m.pth"
    done = terminal("convert", digits, made, impatient=True, columns=300)
    assert done.code == 0
    shown = plain(done.out)
    assert "writing x[bold]\\x1b[31m.pth" in shown
    assert "wrote " in shown
    assert_harmless(CURSOR.sub("", shown).replace("\r", ""))
    made.unlink()
    quiet = child("convert", digits, made)
    assert quiet.out.startswith("wrote ")
    assert "writing" not in quiet.err


@pytest.mark.parametrize("verb", ["scan", "verify"])
def test_a_bar_is_taken_away_when_the_work_is_done(terminal, digits, verb):
    done = terminal(verb, digits.parent if verb == "scan" else digits, impatient=True)
    assert ("scanning" if verb == "scan" else "verifying") in done.out
    # The cursor that a bar hides comes back.
    assert "\x1b[?25l" in done.out
    assert done.out.rfind("\x1b[?25h") > done.out.rfind("\x1b[?25l")


def test_a_bar_is_taken_away_when_the_work_fails(terminal, tmp_path, digits):
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "a.pth").write_bytes(digits.read_bytes())
    (folder / "cut.pth").write_bytes(digits.read_bytes()[:9000])
    done = terminal("scan", folder, impatient=True)
    assert done.code == 2
    assert "\x1b[?25l" in done.out
    assert done.out.rfind("\x1b[?25h") > done.out.rfind("\x1b[?25l")


def test_a_bar_counts_files_and_bytes(terminal, tmp_path, digits):
    folder = tmp_path / "parts"
    folder.mkdir()
    for at in range(12):
        (folder / f"{at:02}.pth").write_bytes(digits.read_bytes())
    done = terminal("scan", folder, impatient=True, columns=140)
    assert done.code == 0
    assert "scanning 12 of 12 files" in plain(done.out)
    assert "MB" in plain(done.out)
