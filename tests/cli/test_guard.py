"""`tensorkeep guard`: every Python process below it is guarded, and nothing else is changed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch

LOAD = "import sys, torch; print(sorted(torch.load(sys.argv[1], weights_only=False)))"
PYTHON = sys.executable


@pytest.fixture
def program(tmp_path):
    """Write a program; gives its path."""

    def write(text, name="app.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write


def events(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_nothing_of_the_file_runs_and_the_program_goes_on(child, hostile_digits, tmp_path):
    log = tmp_path / "log.jsonl"
    done = child("guard", "--log", log, "--", PYTHON, "-c", LOAD, hostile_digits)
    assert done.code == 0
    assert done.out == "['epoch', 'model', 'optimizer', 'val_accuracy']\n"
    assert "NotSafeWarning" in done.err
    assert "guard: 1 load: 1 loaded" in done.err
    assert "dangerous: would call os.system" in done.err
    started, loaded = events(log)
    assert started["outcome"] == "started"
    assert (loaded["outcome"], loaded["verdict"]) == ("loaded", "dangerous")


def test_require_safe_refuses(child, digits, hostile_digits):
    done = child("guard", "--require", "safe", "--", PYTHON, "-c", LOAD, digits)
    assert (done.code, done.err) == (0, "guard: 1 load: 1 loaded\n")
    done = child("guard", "--require", "safe", "--", PYTHON, "-c", LOAD, hostile_digits)
    assert (done.code, done.out) == (1, "")
    assert "Refused" in done.err
    assert "guard: 1 load: 1 refused" in done.err


def test_arguments_input_and_exit_code_are_the_programs(child, program):
    path = program("import sys; print(sys.argv[1:], sys.stdin.read()); sys.exit(7)")
    done = child("guard", "--", PYTHON, path, "--require", "-x", "--", "y", input=b"given")
    assert done.code == 7
    assert done.out == "['--require', '-x', '--', 'y'] given\n"
    assert child("guard", PYTHON, path, input=b"").code == 7


def test_a_program_may_be_a_module(child, program, tmp_path):
    program("", "pkg/__init__.py")
    program("import sys; print(__name__, sys.argv[1:])", "pkg/__main__.py")
    done = child("guard", "--", PYTHON, "-m", "pkg", "a", cwd=tmp_path)
    assert (done.code, done.out) == (0, "__main__ ['a']\n")


def test_a_program_may_be_a_console_script(child, program, hostile_digits):
    script = program(f"#!{PYTHON}\n{LOAD}\n", "script")
    script.chmod(0o755)
    done = child("guard", "--require", "safe", "--", script, hostile_digits)
    assert done.code == 1
    assert "Refused" in done.err


def test_processes_that_the_program_starts_are_guarded(child, program, hostile_digits, tmp_path):
    path = program(
        f"""
        import multiprocessing, subprocess, sys

        def work(path, answers):
            import torch
            try:
                torch.load(path, weights_only=False)
            except Exception as error:
                answers.put(type(error).__name__)

        if __name__ == "__main__":
            for kind in ("spawn", "fork"):
                context = multiprocessing.get_context(kind)
                answers = context.Queue()
                process = context.Process(target=work, args=(sys.argv[1], answers))
                process.start()
                print(kind, answers.get(timeout=60))
                process.join()
            shell = [sys.executable, "-c", {LOAD!r}, sys.argv[1]]
            print("subprocess", subprocess.run(shell, stderr=subprocess.DEVNULL).returncode)
        """
    )
    log = tmp_path / "log.jsonl"
    command = ("guard", "--require", "safe", "--log", log, "--", PYTHON, path, hostile_digits)
    done = child(*command)
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        "spawn Refused",
        "fork Refused",
        "subprocess 1",
    ]
    refused = [event for event in events(log) if event["outcome"] == "refused"]
    assert len({event["process"] for event in refused}) == 3


def test_workers_of_a_loader_are_guarded(child, program, hostile_digits):
    path = program(
        """
        import sys, torch

        class Files(torch.utils.data.Dataset):
            def __len__(self):
                return 2
            def __getitem__(self, at):
                try:
                    return torch.load(sys.argv[1], weights_only=False)["epoch"]
                except Exception as error:
                    return type(error).__name__

        loader = torch.utils.data.DataLoader(Files(), num_workers=1, batch_size=None)
        print(list(loader))
        """
    )
    done = child("guard", "--require", "safe", "--", PYTHON, path, hostile_digits)
    assert (done.code, done.out) == (0, "['Refused', 'Refused']\n")


def test_trusted_classes_are_made(child, program, tmp_path):
    program("class Config:\n    width = 3\n", "mine.py")
    save = "import torch, mine; c = mine.Config(); c.width = 5; torch.save(c, 'c.pt')"
    subprocess.run([PYTHON, "-c", save], cwd=tmp_path, check=True)
    load = "import torch; print(torch.load('c.pt', weights_only=False).width)"
    done = child("guard", "--trust", "mine.Config", "--", PYTHON, "-c", load, cwd=tmp_path)
    assert (done.code, done.out) == (0, "5\n")
    done = child("guard", "--", PYTHON, "-c", load, cwd=tmp_path)
    assert done.code == 1
    assert "InertValue" in done.err
    assert "left inert: mine.Config" in done.err


def test_a_sitecustomize_of_somebody_else_still_runs(child, program, tmp_path, digits):
    program("import sys; sys.mine = True", "sitecustomize.py")
    code = f"import sys; print(sys.mine, sys.path[1:2]); {LOAD}"
    done = child("guard", "--", PYTHON, "-c", code, digits, env={"PYTHONPATH": str(tmp_path)})
    assert done.code == 0
    assert done.out.startswith(f"True ['{tmp_path}']")
    assert "guard: 1 load: 1 loaded" in done.err


def test_the_path_of_the_program_is_what_it_was(child):
    code = "import sys; print(sys.path, 'sitecustomize' in sys.modules and 0)"
    plain = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True)
    done = child("guard", "--", PYTHON, "-c", code)
    assert done.out.partition("]")[0] == plain.stdout.partition("]")[0]


def test_what_is_not_guarded_is_said(child):
    done = child("guard", "--", PYTHON, "-I", "-c", "pass")
    assert done.code == 0
    assert "nothing was guarded" in done.err
    assert "nothing was guarded" in child("guard", "--", "true").err


def test_a_guard_that_cannot_start_does_not_run_the_program(child):
    # As an environment of another version would have it.
    code = "import os, sys; os.environ['TENSORKEEP_GUARD'] = '{\"other\": 1}'; " + (
        "import subprocess; sys.exit(subprocess.run([sys.executable, '-c', 'print(1)']).returncode)"
    )
    done = child("guard", "--", PYTHON, "-c", code)
    assert (done.code, done.out) == (2, "")
    assert "the program was not run" in done.err


def test_files_that_the_shell_opened_are_the_programs(tmp_path):
    """`program <(other)`, `3<file`: they are open in the program, too."""
    (tmp_path / "given").write_text("read")
    code = "import os, sys; print(os.read(int(sys.argv[1]), 9))"
    with (tmp_path / "given").open("rb") as file:
        command = [PYTHON, "-m", "tensorkeep", "guard", "--", PYTHON, "-c", code]
        done = subprocess.run(
            [*command, str(file.fileno())],
            pass_fds=[file.fileno()],
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout == "b'read'\n"


def test_lines_of_the_log_that_are_not_ours(child, digits, tmp_path):
    log = tmp_path / "log.jsonl"
    odd = ["junk", "[]", '{"outcome": "loaded"}', '{"schema": 1, "call": "torch.lo']
    code = f"open(sys.argv[2], 'a').write({chr(10).join(odd)!r} + chr(10))"
    done = child("guard", "--log", log, "--", PYTHON, "-c", f"{LOAD}; {code}", digits, log)
    assert (done.code, done.err) == (0, "guard: 1 load: 1 loaded\n")


def test_signals_reach_the_program(program, tmp_path):
    path = program(
        """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
        print("ready", flush=True)
        time.sleep(60)
        """
    )
    command = [PYTHON, "-m", "tensorkeep", "guard", "--", PYTHON, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 9
    process.stdout.close()


def test_a_program_that_a_signal_ends(child):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert child("guard", "--", PYTHON, "-c", code).code == 128 + signal.SIGKILL


def test_what_cannot_be_run_or_written_is_a_sentence(cli, tmp_path):
    assert "no-such-program" in cli("guard", "--", tmp_path / "no-such-program").sentence()
    assert cli("guard", "--trust", "os.system", "--", "true").code == 2
    assert cli("guard", "--log", tmp_path / "a" / "b", "--", "true").code == 2
    assert cli("guard").code == 2


def test_a_program_without_torch_does_not_wait_for_it(child):
    code = "import sys; print(sorted({'torch', 'numpy', 'tensorkeep.scanning'} & set(sys.modules)))"
    started = time.monotonic()
    assert child("guard", "--", PYTHON, "-c", code).out == "[]\n"
    assert time.monotonic() - started < 30


def test_results_are_those_of_torch(child, tmp_path, digits):
    code = (
        "import sys, torch; v = torch.load(sys.argv[1], weights_only=True); "
        "torch.save(v['model'], sys.argv[2])"
    )
    assert child("guard", "--", PYTHON, "-c", code, digits, tmp_path / "x.pt").code == 0
    found, wanted = torch.load(tmp_path / "x.pt"), torch.load(digits)["model"]
    assert list(found) == list(wanted)
    assert all(torch.equal(found[name], wanted[name]) for name in found)
