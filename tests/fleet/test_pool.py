"""The process pool: order, deaths, signals, and when it is not used at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import tensorkeep as tk
from tensorkeep.facts import Limits
from tensorkeep.fleet import _wire, pool
from tensorkeep.scanning.walking import Job


@pytest.fixture
def eager(monkeypatch):
    """Processes from the first file on."""
    monkeypatch.setattr(pool, "_ALONE_SECONDS", -1)


@pytest.fixture
def folder(tmp_path, digits, hostile_digits):
    for at in range(30):
        source = hostile_digits if at % 7 == 3 else digits
        (tmp_path / f"{at:02}.pth").write_bytes(source.read_bytes())
    (tmp_path / "notes.txt").write_text("words")
    return tmp_path


@pytest.fixture
def children():
    """What this process has started since; other tests may have left it a resource tracker."""
    before = psutil.Process().children(recursive=True)
    return lambda: [p for p in psutil.Process().children(recursive=True) if p not in before]


def test_reports_are_those_of_one_process_in_the_same_order(eager, folder, children):
    options = {"explain": True, "digests": True}
    alone = tk.scan(folder, **options)
    spread = tk.scan(folder, mapper=pool.processes(2), **options)
    assert spread == alone
    assert spread.skipped == 1
    assert children() == []


def test_small_folders_start_no_process(folder, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(pool, "_ALONE_SECONDS", 60)
    assert len(tk.scan(folder, mapper=pool.processes(2)).files) == 30
    assert len(tk.scan(folder, mapper=pool.processes(1)).files) == 30


def test_a_large_file_is_never_read_by_the_process_that_has_the_results(folder, monkeypatch):
    started = []
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a) or real(*a, **k))
    monkeypatch.setattr(pool, "_ALONE_SECONDS", 60)
    with (folder / "00.pth").open("r+b") as file:
        file.truncate(pool._ALONE_BYTES + 1)
    tk.scan(folder, mapper=pool.processes(2))
    assert started


def test_a_worker_that_dies_makes_its_file_unknown_and_no_other(eager, folder, monkeypatch):
    # A worker that is killed when it opens one file, as the kernel does when memory runs out.
    deadly = pool._PROGRAM.replace(
        "main()",
        "import os, tensorkeep.scanning.walking as w; real = w.open_blob; "
        "w.open_blob = lambda p: os.kill(os.getpid(), 9) if '05' in str(p) else real(p); main()",
    )
    monkeypatch.setattr(pool, "_PROGRAM", deadly)
    report = tk.scan(folder, mapper=pool.processes(2))
    assert [file.path[-6:-4] for file in report.files] == [f"{at:02}" for at in range(30)]
    assert [file.path[-6:] for file in report.files if file.verdict == "unknown"] == ["05.pth"]
    (found,) = report.files[5].findings
    assert (found.rule, "SIGKILL" in found.what) == ("read/failed", True)


def test_where_no_process_can_start_the_work_is_done_here(eager, folder, monkeypatch):
    monkeypatch.setattr(pool, "_PROGRAM", "raise SystemExit(3)")
    assert tk.scan(folder, mapper=pool.processes(2)) == tk.scan(folder)


def test_results_that_nobody_takes_end_the_processes(eager, folder, children):
    paths = sorted(folder.glob("*.pth"))
    results = pool.processes(2)(Job(False, Limits()), paths)
    assert next(results).verdict == "safe"
    assert children()
    results.close()
    assert children() == []


def test_an_error_in_a_worker_is_a_report(eager, folder, tmp_path):
    paths = [*sorted(folder.glob("*.pth")), tmp_path / "gone.pth"]
    reports = list(pool.processes(2)(Job(False, Limits()), paths))
    assert reports[-1].verdict == "unknown"


def test_paths_that_are_no_text_come_through(eager, tmp_path, digits):
    names = [b"\xff\xfe.pth", "ünïcode\n.pth".encode(), b"plain.pth"]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(digits.read_bytes())
    report = tk.scan(tmp_path, mapper=pool.processes(2))
    assert [file.verdict for file in report.files] == ["safe"] * 3
    assert report == tk.scan(tmp_path)


def test_jobs_and_reports_cross_unchanged(hostile_digits):
    job = Job(True, Limits(max_depth=7), explain=True, digests=True)
    assert _wire.job_of(_wire.pack_job(job)) == job
    report = tk.scan(hostile_digits, explain=True).files[0]
    report.allowed[0] = "why"
    assert _wire.report_of(_wire.pack_report(report)) == report
    assert _wire.report_of(_wire.pack_report(None)) is None


SCRIPT = """
import sys
import tensorkeep as tk
from tensorkeep.fleet import pool
print("main module", flush=True)
pool._ALONE_SECONDS = -1
print(len(tk.scan(sys.argv[1], mapper=pool.processes(2)).files), flush=True)
"""


def test_the_callers_main_module_is_not_imported_again_nor_the_current_folder(folder, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    # A folder that is scanned may hold a module of any name.
    (folder / "json.py").write_text("raise SystemExit('imported from the scanned folder')")
    (folder / "tensorkeep").mkdir()
    (folder / "tensorkeep" / "__init__.py").write_text("raise SystemExit('imported')")
    safe = tmp_path.parent / f"{tmp_path.name}-script.py"
    safe.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(safe), str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["main", "module", "30"]), done.stderr


SLOW = """
import sys
from tensorkeep.fleet import pool
pool._ALONE_SECONDS = -1
pool._PROGRAM = "import time; " + pool._PROGRAM.replace(
    "main()",
    "import tensorkeep.scanning.walking as w; w.open_blob = lambda p: time.sleep(60); main()",
)
from tensorkeep.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_processes_at_once(folder, number):
    command = [sys.executable, "-c", SLOW, "scan", "--jobs", "2", str(folder)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    workers = wait_for(lambda: len(w := psutil.Process(child.pid).children()) == 2 and w)
    began = time.monotonic()
    child.send_signal(number)
    out, err = child.communicate(timeout=20)
    assert time.monotonic() - began < 5
    assert (child.returncode, out) == (2, "")
    assert "stopped" in err
    assert not any(worker.is_running() for worker in workers)


def test_workers_end_when_their_parent_is_killed(folder):
    command = [sys.executable, "-c", SLOW.replace("sleep(60)", "sleep(1)"), "scan", str(folder)]
    child = subprocess.Popen([*command, "--jobs", "2"], stdout=subprocess.DEVNULL)
    workers = wait_for(lambda: len(w := psutil.Process(child.pid).children()) == 2 and w)
    child.kill()
    child.wait()
    wait_for(lambda: not any(alive(worker) for worker in workers))


def alive(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")
