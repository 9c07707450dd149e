"""Every verb: what it prints, in which stream, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys

import pytest
import torch

import tensorkeep as tk

VERBS = ("scan", "inspect", "diff", "convert", "quantize", "match", "verify")
VERBS += ("runs", "prove-resume", "guard")


def closed_json(text):
    """Parsed strictly: NaN and Infinity are no JSON."""

    def refuse(word):
        raise AssertionError(f"bare {word}")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def damaged(tmp_path, digits):
    """One byte of a tensor flipped."""
    data = bytearray(digits.read_bytes())
    with tk.open(digits) as ckpt:
        at = ckpt["model.8.weight"].record.storage.offset
    data[at + 100] ^= 1
    path = tmp_path / "damaged.pth"
    path.write_bytes(data)
    return path


@pytest.fixture
def trailing(tmp_path):
    """A safetensors file with bytes that belong to nothing: suspicious."""
    header = json.dumps({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    path = tmp_path / "trailing.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0hidden")
    return path


@pytest.fixture
def cut(tmp_path, digits):
    path = tmp_path / "cut.pth"
    path.write_bytes(digits.read_bytes()[:5000])
    return path


def test_scan_exit_codes(cli, digits, hostile_digits, trailing, cut):
    for targets, normal, lenient in (
        ([digits], 0, 0),
        ([hostile_digits], 1, 1),
        ([trailing], 1, 0),
        ([digits, trailing], 1, 0),
        ([cut], 2, 2),
        ([digits, hostile_digits, cut], 2, 2),
    ):
        assert cli("scan", *targets).code == normal
        assert cli("scan", "--fail-on", "suspicious", *targets).code == normal
        assert cli("scan", "--fail-on", "dangerous", *targets).code == lenient
        assert cli("scan", "--format", "json", *targets).code == normal


def test_scan_human(cli, hostile_digits, digits):
    done = cli("scan", hostile_digits, digits)
    lines = done.out.splitlines()
    assert lines[0].split() == ["dangerous", str(hostile_digits)]
    assert "would call os.system('echo this line was printed by the checkpoint')" in lines[1]
    assert lines[-1].startswith("2 files: 1 dangerous, 1 safe; ")
    assert done.err == ""


def test_scan_json(cli, hostile_digits, digits):
    report = closed_json(cli("scan", "--format", "json", hostile_digits, digits).out)
    head = ["schema", "verdict", "counted", "depth", "bytes_not_read", "skipped", "excluded"]
    assert list(report) == [*head, "allowed", "files"]
    assert report["schema"] == 1
    assert (report["verdict"], report["depth"], report["skipped"]) == ("dangerous", "default", 0)
    first, second = report["files"]
    assert list(first) == ["path", "verdict", "format", "findings"]
    keys = ["rule", "severity", "where", "what", "why", "remedy", "member", "offset", "subject"]
    keys.append("allowed")
    assert list(first["findings"][0]) == keys
    assert (second["verdict"], second["findings"]) == ("safe", [])
    deep = closed_json(cli("scan", "--deep", "--format", "json", digits).out)
    assert deep["depth"] == "deep"
    assert deep["bytes_not_read"] < report["bytes_not_read"]


def test_a_target_that_is_not_there_hides_nothing(cli, hostile_digits, tmp_path):
    for order in ([hostile_digits, tmp_path / "no"], [tmp_path / "no", hostile_digits]):
        done = cli("scan", "--format", "json", *order)
        report = closed_json(done.out)
        assert done.code == 2
        assert report["verdict"] == "dangerous"
        assert {f["verdict"] for f in report["files"]} == {"dangerous", "unknown"}
    assert "No such file" in cli("scan", tmp_path / "no").sentence()


def test_inspect_json(cli, digits):
    done = cli("inspect", "--format", "json", digits)
    assert (done.code, done.err) == (0, "")
    report = closed_json(done.out)
    contract = ("schema path format container kind writer bytes sections tensors dead_bytes "
                "metadata globals bytes_read")  # fmt: skip
    assert set(contract.split()) <= set(report)
    assert list(report["sections"][0]) == ["name", "tensors", "parameters", "bytes"]
    keys = ["name", "dtype", "shape", "bytes", "section", "storage", "offset", "stride", "tied_to"]
    assert set(keys) <= set(report["tensors"][0])
    assert report["kind"] == "training_checkpoint"
    assert [s["name"] for s in report["sections"]] == ["model", "optimizer"]
    state = torch.load(digits, weights_only=True)
    names = {f"model.{n}": list(t.shape) for n, t in state["model"].items()}
    assert names.items() <= {t["name"]: t["shape"] for t in report["tensors"]}.items()
    assert report["values"]["epoch"] == state["epoch"]


def test_inspect_human(cli, digits):
    done = cli("inspect", digits)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("digits.pth  training checkpoint")
    for words in ("weights", "[10, 512]", "epoch", "exp_avg", "and 2 more: --values"):
        assert words in done.out
    listed = cli("inspect", "--tensors", "--values", digits).out
    assert listed.count("optimizer.state.") == 30
    assert "--values" not in listed


def test_odd_values_are_words_in_json_and_escaped_for_people(cli, odd_values):
    report = closed_json(cli("inspect", "--format", "json", odd_values).out)
    extra = report["values"]["extra"]
    assert (extra["nan"], extra["inf"], extra["less"]) == ("nan", "inf", "-inf")
    assert extra["bytes"] == "<5 bytes>"
    shown = cli("inspect", "--values", odd_values).out
    assert "\x1b" not in shown
    assert "\\x1b]0;owned\\x07" in shown
    assert "\\x1b[5mkey" in shown


def test_verify_exit_codes_and_json(cli, digits, damaged, cut, trailing, tmp_path):
    report = closed_json(cli("verify", "--format", "json", digits).out)
    assert {"schema": 1, "ok": True, "checked": "digests", "damaged": []}.items() <= report.items()
    done = cli("verify", "--format", "json", damaged)
    assert done.code == 1
    (damage,) = closed_json(done.out)["damaged"]
    assert set(damage) == {"file", "tensor", "expected", "got"}
    assert damage["tensor"] == "model.8.weight"
    assert damage["expected"].startswith("crc32:")
    assert "model.8.weight" in cli("verify", damaged).out
    for path in (cut, trailing):
        done = cli("verify", "--format", "json", path)
        assert (done.code, closed_json(done.out)["ok"]) == (1, False)
    (tmp_path / "page.pth").write_text("<html>")
    assert cli("verify", tmp_path / "page.pth").code == 2
    assert cli("verify", tmp_path).code == 2


def test_verify_says_when_it_checked_structure_only(cli, tmp_path, digits):
    tk.convert(digits, tmp_path / "a.safetensors")
    done = cli("verify", tmp_path / "a.safetensors")
    assert done.code == 0
    assert done.out.startswith("whole")
    assert "no checksums" in done.err


def test_convert_talks_on_stderr_and_answers_on_stdout(cli, digits, tmp_path):
    done = cli("convert", digits, tmp_path / "a.safetensors")
    assert done.code == 0
    assert done.out.startswith("wrote ")
    assert done.out.count("\n") == 1
    assert "section 'model' taken as the weights" in done.err
    assert "left out: optimizer" in done.err
    assert "epoch" in done.err


def test_convert_json(cli, digits, tmp_path):
    dst = tmp_path / "a.safetensors"
    planned = closed_json(cli("convert", "--dry-run", "--format", "json", digits, dst).out)
    assert not dst.exists()
    done = cli("convert", "--verify", "--format", "json", digits, dst)
    report = closed_json(done.out)
    assert done.err == ""
    assert report["schema"] == 1
    assert (planned.pop("dry_run"), report.pop("dry_run")) == (True, False)
    assert (planned.pop("verified"), report.pop("verified")) == (None, 16)
    assert planned == report
    assert {"name": "optimizer", "why": "section of 30 tensors"} in report["left_out"]


def test_convert_dry_run_lists_what_would_be_written(cli, digits, tmp_path):
    done = cli("convert", "--dry-run", "--section", "all", digits, tmp_path / "a.pth")
    assert done.out.startswith("would write ")
    assert "model.8.weight  float32 [10, 512]" in done.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_two_examples(cli, verb):
    done = cli(verb, "--help")
    assert done.code == 0
    examples = done.out.partition("Examples:")[2].partition("Options:")[0]
    assert examples.count(f"tensorkeep {verb} ") == 2
    assert cli(verb, "-h").out == done.out


def test_the_examples_name_options_that_exist(cli):
    for verb in VERBS:
        text = cli(verb, "--help").out
        examples, _, options = text.partition("Examples:")[2].partition("\n\n")
        for word in examples.split():
            if word.startswith("--"):
                assert f"  {word}" in options, (verb, word)


def test_help_of_the_group_lists_the_verbs(cli):
    done = cli("--help")
    assert [line.split()[0] for line in done.out.partition("Commands:")[2].split("\n")[1:-1]] == [
        *VERBS
    ]
    assert cli().out == done.out
    assert tk.__version__ in cli("--version").out


@pytest.mark.parametrize(
    "arguments",
    [
        ["scan"],
        ["inspect", "a", "b"],
        ["inspect", "--nonsense\x1b[31m", "x"],
        ["verify", "--signature", "key", "x"],
        ["convert", "a"],
        ["convert", "--edits", "r.toml", "a", "b"],
        ["convert", "--on-overflow", "maybe", "a", "b"],
        ["convert", "--require", "maybe", "a", "b"],
        ["diff", "a"],
        ["--nonsense"],
    ],
)
def test_what_this_version_does_not_have_is_refused(cli, arguments):
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "See tensorkeep" in done.sentence()
    assert done.err.rstrip().endswith("--help.")
    assert "\x1b" not in done.err


def test_debug_shows_the_traceback_wherever_it_stands(cli, tmp_path):
    for arguments in (["--debug", "inspect", tmp_path], ["inspect", tmp_path, "--debug"]):
        done = cli(*arguments)
        assert done.code == 2
        assert "Traceback" in done.err
        assert done.err.splitlines()[-1].startswith("tensorkeep: ")
    assert cli("inspect", "--", "--debug").sentence().startswith("tensorkeep: --debug")


def test_run_as_a_module(child, digits):
    assert child("scan", digits).out == f"safe       {digits}\n"
    script = os.path.join(os.path.dirname(sys.executable), "tensorkeep")  # noqa: PTH118, PTH120
    done = subprocess.run([script, "scan", digits], capture_output=True, text=True, check=True)
    assert done.stdout == f"safe       {digits}\n"


def test_dangerous_source_is_converted_with_a_warning(cli, hostile_digits, tmp_path):
    done = cli("convert", hostile_digits, tmp_path / "a.safetensors")
    assert done.code == 0
    assert "the source is dangerous: would call os.system" in done.err
    refused = cli("convert", "--require", "safe", hostile_digits, tmp_path / "b.safetensors")
    assert refused.code == 2
    assert "os.system" in refused.sentence()
    assert not (tmp_path / "b.safetensors").exists()


def test_edits_apply_in_the_order_of_their_flags(cli, digits, tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text('schema = 1\n[[edit]]\nop = "rename"\npattern = "z"\nto = "last"\n')
    flags = "--rename 8=a --add-prefix p --strip p.a --rename p=q --drop q.{n} --add-prefix z"
    done = cli(
        "convert", "--dry-run", *flags.split(), "--recipe", recipe, digits, tmp_path / "o.pth"
    )
    assert done.code == 0
    assert "edits: 2 renamed, 14 dropped of 16 tensors" in done.err
    assert "\n  last.weight  float32 [10, 512]  from model.8.weight\n" in done.out
    rows = closed_json(
        cli("convert", "--dry-run", "--format", "json", "--rename=8=a", digits, "o.pth").out
    )
    assert rows["edits"] == [{"op": "rename", "pattern": "8", "to": "a"}]


def test_flags_of_edits_are_refused_in_a_sentence(cli, digits, tmp_path):
    for flags, says in (
        (("--rename", "a"), "FROM=TO"),
        (("--rename", "{=a"), "placeholders"),
        (("--strip", "."), "a prefix"),
        (("--rename", "0=9", "--rename", "9=0"), "in a circle"),
        (("--recipe", "none.toml"), "none.toml"),
    ):
        done = cli("convert", *flags, digits, tmp_path / "o.pth")
        assert (done.code, done.out) == (2, "")
        assert says in done.sentence()
