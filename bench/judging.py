"""Asks one scanner about many files, one process per file. Runs in that scanner's environment.

    python -P judging.py ENTRY LIMIT_S LIMIT_MB < questions > answers

A question is a line of JSON: the arguments of its command. The answer is a line too: the exit
code (null if it was stopped) and the last of what it said. The first question is about an honest
file and gets no answer: it warms the process, which is then forked for each file, so that
hundreds of files do not cost hundreds of start-ups. What a file did to one process cannot reach
the next.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import resource
import select
import signal
import sys
import tempfile
from pathlib import Path

SAID = 200_000
HERE = Path(__file__).resolve().parent


def main() -> None:
    entry = found(*sys.argv[1].split(":"))
    limit_s, limit_mb = float(sys.argv[2]), int(sys.argv[3])
    warm(entry, json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        arguments = json.loads(line)
        with tempfile.TemporaryFile() as out:
            code = ask(entry, arguments, out.fileno(), limit_s, limit_mb << 20)
            out.seek(max(0, out.seek(0, os.SEEK_END) - SAID))
            said = out.read().decode(errors="replace")
        print(json.dumps([code, said]), flush=True)


def found(module: str, name: str):
    """The command: the function of an installed module, or of a file beside this one."""
    if not module.endswith(".py"):
        return getattr(importlib.import_module(module), name)
    spec = importlib.util.spec_from_file_location("command", HERE / module)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return getattr(loaded, name)


def warm(entry, arguments: list[str]) -> None:
    """Ask about an honest file in this process: what is imported late is imported then."""
    sys.argv = ["scanner", *arguments]
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
        with contextlib.suppress(SystemExit):
            entry()
        sys.stdout.flush()
        sys.stderr.flush()
    os.dup2(kept[0], 1)
    os.dup2(kept[1], 2)


def ask(entry, arguments: list[str], out: int, limit_s: float, memory: int) -> int | None:
    """The exit code of one run; None where it took longer than it may."""
    pid = os.fork()
    if pid == 0:
        child(entry, arguments, out, memory)
    watch = os.pidfd_open(pid)
    ended, _, _ = select.select([watch], [], [], limit_s)
    if not ended:
        os.killpg(pid, signal.SIGKILL)
    os.close(watch)
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status) if ended else None


def child(entry, arguments: list[str], out: int, memory: int) -> None:
    """Become the command; never returns."""
    code = 70
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.argv = ["scanner", *arguments]
        code = entry() or 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
