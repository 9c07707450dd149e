"""Hostile files: none is safe, none runs anything, and reading them costs little."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import tensorkeep as tk
from tensorkeep import errors

HERE = Path(__file__).resolve().parent
CASES = sorted(path.parent for path in HERE.glob("*/expected.json"))
SOURCE = str(Path(tk.__file__).resolve().parent)
LIBRARIES = (
    SOURCE,
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
)
KINDS = set("ABCDEFGHIJKL")
WEIGHT = struct.pack("<4f", 1, 2, 3, 4)
SLOWEST = 20  # seconds of processor time for one verb

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def expected(case):
    return json.loads((case / "expected.json").read_text(encoding="ascii"))


def target(case):
    """The one file that is scanned, or the one folder."""
    (path,) = (path for path in case.iterdir() if path.name != "expected.json")
    return path


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What the child process found in all files, and what it did meanwhile."""
    out = tmp_path_factory.mktemp("converted")
    command = [sys.executable, "-X", "utf8", str(HERE / "child.py"), str(out)]
    command += [str(target(case)) for case in CASES]
    env = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(out)}
    ended = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    # The payloads that print are among what must not happen.
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    report = json.loads((out / "report.json").read_text())
    (out / "report.json").unlink()
    return report, out


@every_case
def test_the_verdict_is_what_a_loader_would_do(case, outcome):
    wanted = expected(case)
    results = outcome[0]["results"][str(target(case))]
    verdict, rules = results["deep"][0]
    assert verdict != "safe"
    assert verdict == wanted["verdict"]
    assert set(wanted["rules"]) <= set(rules)
    if not wanted["deep"]:
        assert results["scan"][0] == verdict


@every_case
def test_every_verb_answers_or_gives_an_error_of_ours(case, outcome):
    results = outcome[0]["results"][str(target(case))]
    for verb in ("inspect", "verify", "convert"):
        answer, _ = results[verb]
        if type(answer) is str and answer != "written":
            assert issubclass(getattr(errors, answer), errors.TensorkeepError), verb


@every_case
def test_it_takes_seconds_at_most(case, outcome):
    results = outcome[0]["results"][str(target(case))]
    assert {verb: spent for verb, (_, spent) in results.items() if spent > SLOWEST} == {}


def converted(out, path):
    """Names to bytes of what was written, read without any help of tensorkeep."""
    data = (out / (str(path).replace("/", "_") + ".safetensors")).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    header.pop("__metadata__", None)
    spans = {name: entry["data_offsets"] for name, entry in header.items()}
    return {name: body[begin:end] for name, (begin, end) in spans.items()}


@every_case
def test_what_was_converted_is_right(case, outcome):
    report, out = outcome
    path = target(case)
    written = report["results"][str(path)]["convert"][0] == "written"
    if not written:
        assert not (out / (str(path).replace("/", "_") + ".safetensors")).exists()
        return
    tensors = converted(out, path)
    # In these the tensor's bytes themselves are the payload.
    itself = case.name in ("pickle_in_storage", "opcodes_in_an_array")
    honest = path.read_bytes()[-4000:] if itself else WEIGHT
    assert all(tensor in honest for tensor in tensors.values())
    assert "weight" not in tensors or tensors["weight"] in honest


def harmless(event, name, about, flags, out):
    """Whether a hostile file may cause this: reading itself, writing its copy, importing ours."""
    if event in ("exec", "compile"):
        return name.startswith(("<frozen", "<string>", "<attrs", *LIBRARIES))
    if event != "open":
        # How a file that had no name while it was written gets one.
        return event == "os.link" and name.startswith("('/proc/self/fd/")
    writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or name.startswith(str(out)):
        return name == str(out) or name.startswith(f"{out}/")
    if name == about or name == str(Path(about).parent):
        return True
    if name.startswith(f"{about}/") and ".." not in name:  # a file of a folder that was named
        return True
    return name.endswith((".py", ".pyc", ".so")) and name.startswith(LIBRARIES)


def test_nothing_was_run_opened_or_sent(outcome):
    report, out = outcome
    odd = [
        (Path(about).parent.name, event, name)
        for about, event, name, flags in report["events"]
        if not harmless(event, name, about, flags, out)
    ]
    assert odd == []


def test_nothing_of_the_files_was_imported(outcome):
    imported = {name.partition(".")[0] for name in outcome[0]["modules"]}
    assert not imported & {"torch", "numpy", "models", "pickle", "_pickle", "argparse"}


def test_the_hook_sees_what_would_happen(tmp_path):
    # Were the hook deaf, the tests above could not fail.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import child, os, pickle\n"
        "sys.addaudithook(child.watch); child.now = 'x'\n"
        "os.system('true'); open(sys.argv[2]).close(); pickle.loads(b'cos\\ngetpid\\n.')\n"
        "import socket; socket.socket().close(); child.now = ''\n"
        "print([event for _, event, *_ in child.events])"
    )
    path = tmp_path / "file"
    path.write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-c", code, str(HERE), str(path)], capture_output=True, text=True
    )
    for event in ("os.system", "open", "pickle.find_class", "socket.__new__"):
        assert event in done.stdout, done.stderr


def test_every_kind_has_tricks():
    assert {expected(case)["kind"] for case in CASES} == KINDS
    assert len(CASES) >= 70
