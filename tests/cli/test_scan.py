"""`scan` in CI: settings, baseline, SARIF, exit codes, and reports of many files."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

import tensorkeep as tk
from tensorkeep.cli.verdicts import Verdicts


class Thing:
    """A class that no list knows."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, program):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data.pkl", program)
    return path


def suspicious(path, name="app.Thing"):
    module, _, leaf = name.rpartition(".")
    return write(path, b"\x80\x02c%s\n%s\n)R." % (module.encode(), leaf.encode()))


def dangerous(path):
    return write(path, b"\x80\x02cos\nsystem\nU\x02hi\x85R.")


def digest(path):
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


ALLOW = '[[scan.allow]]\nglobal = "app.Thing"\nreason = "our own class"\n'


def test_settings_of_the_current_folder_hold_unless_refused(place, cli):
    suspicious(place / "a.pth")
    assert cli("scan", "a.pth").code == 1
    (place / "tensorkeep.toml").write_text(ALLOW)
    done = cli("scan", "a.pth")
    assert done.code == 0
    assert "allowed     would call app.Thing()" in done.out
    assert "because our own class" in done.out
    assert done.out.startswith("suspicious a.pth")  # the verdict is what it is
    assert cli("scan", "--no-config", "a.pth").code == 1
    (place / "tensorkeep.toml").rename(place / "other.toml")
    assert cli("scan", "a.pth").code == 1
    assert cli("scan", "--config", "other.toml", "a.pth").code == 0


def test_the_json_says_what_is_allowed_and_what_counts(place, cli):
    suspicious(place / "a.pth")
    (place / "tensorkeep.toml").write_text(ALLOW)
    report = json.loads(cli("scan", "--format", "json", "a.pth").out)
    assert (report["verdict"], report["counted"], report["allowed"]) == ("suspicious", "safe", 1)
    assert report["files"][0]["findings"][0]["allowed"] == "our own class"


def test_a_path_is_relative_to_the_settings(place, cli, monkeypatch):
    suspicious(place / "models" / "a.pth")
    suspicious(place / "models" / "sub" / "b.pth")
    (place / "tensorkeep.toml").write_text(ALLOW + 'path = "models/*.pth"\n')
    assert cli("scan", "models/a.pth").code == 0
    assert cli("scan", place / "models" / "a.pth").code == 0
    assert cli("scan", "models").code == 1
    monkeypatch.chdir(place / "models")
    assert cli("scan", "--config", "../tensorkeep.toml", "a.pth").code == 0
    assert cli("scan", "a.pth").code == 1


def test_a_dangerous_file_is_let_through_by_its_digest_only(place, cli):
    path = dangerous(place / "bad.pth")
    settings = place / "tensorkeep.toml"
    settings.write_text('[[scan.allow]]\nglobal = "os.system"\nreason = "x"\npath = "bad.pth"\n')
    assert "a digest for os.system" in cli("scan", "bad.pth").sentence()
    settings.write_text(
        f'[[scan.allow]]\nglobal = "os.system"\nreason = "a sample"\ndigest = "{digest(path)}"\n'
    )
    done = cli("scan", "bad.pth")
    assert (done.code, done.out.split()[0]) == (0, "dangerous")
    with path.open("ab") as file:
        file.write(b"\0")
    assert cli("scan", "bad.pth").code == 1
    settings.write_text(f'[[scan.accept]]\ndigest = "{digest(path)}"\nreason = "a sample"\n')
    assert cli("scan", "bad.pth").code == 0


def test_command_line_before_settings(place, cli):
    suspicious(place / "a.pth")
    (place / "tensorkeep.toml").write_text('[scan]\nfail_on = "dangerous"\ndeep = true\njobs = 1\n')
    done = cli("scan", "--format", "json", "a.pth")
    assert (done.code, json.loads(done.out)["depth"]) == (0, "deep")
    assert cli("scan", "--fail-on", "suspicious", "a.pth").code == 1


def test_excluded_files_of_a_folder_are_counted(place, cli, digits):
    dangerous(place / "old" / "bad.pth")
    (place / "good.pth").write_bytes(digits.read_bytes())
    (place / "tensorkeep.toml").write_text('[scan]\nexclude = ["old/**"]\n')
    done = cli("scan", ".")
    assert (done.code, "1 excluded" in done.out) == (0, True)
    assert cli("scan", "old/bad.pth").code == 1  # named, it is scanned


def test_a_baseline(place, cli):
    suspicious(place / "m" / "a.pth")
    dangerous(place / "m" / "b.pth")
    done = cli("scan", "--write-baseline", "known.json", "m")
    assert done.code == 0
    assert cli("scan", "m").code == 1
    done = cli("scan", "--baseline", "known.json", "m")
    assert (done.code, "2 findings allowed" in done.out) == (0, True)
    (place / "m" / "a.pth").rename(place / "m" / "renamed.pth")
    assert cli("scan", "--baseline", "known.json", "m").code == 0
    (place / "tensorkeep.toml").write_text('[scan]\nbaseline = "known.json"\n')
    assert cli("scan", "m").code == 0
    suspicious(place / "m" / "renamed.pth", "app.Other")
    assert cli("scan", "m").code == 1


def test_a_baseline_does_not_cover_what_cannot_be_read(place, cli):
    (place / "cut.pth").write_bytes(b"PK\x03\x04" + bytes(60))
    done = cli("scan", "--write-baseline", "known.json", "cut.pth")
    assert (done.code, "always counts" in done.err) == (2, True)
    assert cli("scan", "--baseline", "known.json", "cut.pth").code == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config", "gone.toml"], "gone.toml"),
        (["--baseline", "gone.json"], "gone.json"),
        (["--config", "a.toml", "--no-config"], "both"),
        (["--baseline", "b", "--write-baseline", "b"], "both"),
        (["--config", "bad.toml"], "bad.toml: [scan]: expected fail_on"),
        (["--config", "latin.toml"], "text in UTF-8"),
        (["--baseline", "bad.toml"], "a baseline of schema 1"),
        (["--jobs", "0"], "--jobs"),
    ],
)
def test_mistakes_end_with_2_and_a_sentence(place, cli, digits, arguments, says):
    (place / "a.toml").touch()
    (place / "bad.toml").write_text("[scan]\nfailon = 1\n")
    (place / "latin.toml").write_bytes(b"# \xfc\n")
    done = cli("scan", *arguments, digits)
    assert done.code == 2
    assert says in done.sentence()


def test_sarif_on_standard_output(place, cli):
    dangerous(place / "sub dir" / "bad.pth")
    done = cli("scan", "--format", "sarif", ".")
    assert done.code == 1
    (run,) = json.loads(done.out)["runs"]
    (result,) = run["results"]
    assert result["ruleId"] == "pickle/dangerous-call"
    place_ = result["locations"][0]["physicalLocation"]["artifactLocation"]
    assert place_["uri"] == "sub%20dir/bad.pth"
    assert run["tool"]["driver"]["version"]


def odd_places(folder):
    """What a walk may meet that is no readable file."""
    folder.mkdir()
    (folder / "gone.pth").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.pth")
    (folder / "circle.pt").symlink_to("circle.pt")
    (folder / "device.bin").symlink_to("/dev/null")
    return folder


def test_what_could_not_be_read_is_counted_and_never_passes(place, cli, digits):
    folder = odd_places(place / "odd")
    (folder / "good.pth").write_bytes(digits.read_bytes())
    for jobs in ("1", "2"):
        report = cli("scan", "--jobs", jobs, "--format", "json", folder)
        verdicts = {
            Path(file["path"]).name: file["verdict"] for file in json.loads(report.out)["files"]
        }
        assert report.code == 2
        assert verdicts.pop("good.pth") == "safe"
        assert set(verdicts.values()) == {"unknown"}
        assert len(verdicts) == 4


AS_NOBODY = """
import os, sys
from tensorkeep.cli import main
try:
    main(["scan", "--format", "json", sys.argv[1]])  # imports all that is needed
except SystemExit as ended:
    assert ended.code == 0
print("---", flush=True)
if os.geteuid() == 0:
    os.setuid(65534)
main(sys.argv[2:])
"""


def test_closed_files_and_folders(digits):
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        folder = Path(made)
        folder.chmod(0o755)
        (folder / "closed").mkdir()
        for name in ("good.pth", "mine.pth", "closed/inner.pth"):
            (folder / name).write_bytes(digits.read_bytes())
            (folder / name).chmod(0o644)
        (folder / "mine.pth").chmod(0)
        (folder / "closed").chmod(0)
        command = [sys.executable, "-c", AS_NOBODY, digits, "scan", "--format", "json", folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        (folder / "closed").chmod(0o755)
    assert done.returncode == 2, done.stderr
    report = json.loads(done.stdout.partition("---\n")[2])
    verdicts = {Path(file["path"]).name: file["verdict"] for file in report["files"]}
    assert verdicts == {"good.pth": "safe", "mine.pth": "unknown", "closed": "unknown"}


def test_many_files_are_a_short_report(place, cli, digits):
    for at in range(120):
        path = place / "m" / f"{at:03}.pth"
        if at % 40 == 7:
            suspicious(path)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(digits.read_bytes())
    done = cli("scan", "m")
    lines = done.out.splitlines()
    assert len(lines) < 20
    assert "120 files: 117 safe, 3 suspicious" in lines[-1]
    assert sum(line.startswith("    why ") for line in lines) == 1
    assert len(cli("scan", "--verbose", "m").out.splitlines()) > 120


def test_many_findings_in_one_file_are_a_short_report(place, cli):
    calls = b"".join(b"capp\nf%d\n)R0" % at for at in range(30))
    write(place / "a.pth", b"\x80\x02" + calls + b"N.")
    done = cli("scan", "a.pth")
    assert "25 more like it" in done.out
    assert "app.f29" in cli("scan", "--verbose", "a.pth").out


def test_an_explanation_on_a_terminal(terminal, hostile_digits):
    done = terminal("scan", "--explain", hostile_digits, columns=100)
    assert done.code == 1
    assert "what an attacker gains" in done.out


def test_a_class_of_this_module_is_really_unknown(place, cli):
    write(place / "b.pth", pickle.dumps(Thing(), 2))
    assert cli("scan", "b.pth").code == 1


def test_what_torch_would_need(place, cli, digits, hostile_digits):
    assert cli("scan", "--safe-globals", digits).out.startswith("loads ")
    suspicious(place / "a.pth")
    done = cli("scan", "--safe-globals", "a.pth")
    assert done.code == 0
    assert "torch.serialization.add_safe_globals([" in done.out
    assert "    app.Thing," in done.out
    done = cli("scan", "--safe-globals", "a.pth", hostile_digits)
    assert done.code == 1
    assert "Allow nothing" in done.out
    report = json.loads(cli("scan", "--safe-globals", "--format", "json", "a.pth").out)
    assert (report["schema"], report["files"][0]["needed"][0]["name"]) == (1, "app.Thing")
    assert cli("scan", "--safe-globals", "--format", "sarif", "a.pth").code == 2
    assert cli("scan", "--safe-globals", "gone.pth").code == 2


def test_a_rule_is_linked_where_the_documentation_is_published(hostile_digits):
    report = tk.scan(hostile_digits)
    lines = list(Verdicts(report, documentation="https://example.org/docs/").lines())
    shown = "".join(text for line in lines for text, _ in line)
    assert "https://example.org/docs/rules/pickle-dangerous-call.html" in shown
