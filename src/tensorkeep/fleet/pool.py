"""Files spread over processes, their reports in the order of the files.

The processes are plain children that run `worker.main`, with a pipe in and a pipe out. A pool of
`multiprocessing` would import the caller's main module in each of them, be broken as a whole when
one of them dies, and send its results as pickles.

A worker that dies (killed for memory, say) makes the file that it had in hand "unknown", and
another one takes its place. When the caller stops, for a signal too, all of them are killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tensorkeep.errors import Interrupted, TensorkeepError
from tensorkeep.fleet._wire import line, pack_job, report_of
from tensorkeep.scanning.reports import FileReport, failure
from tensorkeep.scanning.walking import Job, Mapper

# Most folders are done sooner than a process has started.
_ALONE_SECONDS = 0.3
# A file that could take the whole memory is never read by the process that has the results.
_ALONE_BYTES = 64 << 20
_PATIENCE = 5.0  # for a thread whose process was killed
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from tensorkeep.fleet.worker import main; main()"
)

Function = Callable[[Path], FileReport | None]


def cores() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processes(jobs: int | None = None) -> Mapper:
    """A mapper for `scan` that uses up to `jobs` processes, one for each core by default.

    Work that is over in a moment starts none.
    """
    most = jobs or cores()

    def mapper(job: Function, paths: Iterable[Path]) -> Iterator[FileReport | None]:
        todo = list(paths)
        if most > 1 and isinstance(job, Job) and sys.executable:
            return _spread(job, todo, most)
        return map(job, todo)

    return mapper


def _spread(job: Job, paths: list[Path], most: int) -> Iterator[FileReport | None]:
    began, done = time.monotonic(), 0
    while done < len(paths) and time.monotonic() - began < _ALONE_SECONDS and _small(paths[done]):
        yield job(paths[done])
        done += 1
    rest = paths[done:]
    if rest:
        pool = _Pool(job, rest)
        try:
            pool.start(min(most, len(rest)))
            yield from pool.results()
        finally:
            pool.stop()


def _small(path: Path) -> bool:
    try:
        return path.stat().st_size <= _ALONE_BYTES
    except OSError:
        return True


class _Worker:
    """A child process, and one thread's talk with it."""

    def __init__(self, job: Job) -> None:
        import subprocess  # the files of one scan are seldom worth a process

        # -I: the current folder may be the very one that is scanned, and nothing is imported
        # from there; nor from where an environment variable says.
        places = [place for place in sys.path if place]
        command = [sys.executable, "-I", "-c", _PROGRAM, json.dumps(places)]
        if sys.flags.utf8_mode:
            command[1:1] = ["-X", "utf8"]
        self._process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C reaches the parent only, which then ends its children.
            process_group=0 if os.name == "posix" else None,
        )
        self.ready = self._ask(pack_job(job)) == "ready"

    def _ask(self, value: object) -> object:
        """The answer, or an `EOFError` worth of nothing: ""."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line(value))
            self._process.stdin.flush()
            text = self._process.stdout.readline()
        except OSError:
            return ""
        return json.loads(text) if text.endswith(b"\n") else ""

    def scan(self, path: Path) -> FileReport | None:
        """The report on `path`. Raises `Interrupted` if the process died of it."""
        answer = self._ask(os.fspath(path))
        if answer == "":
            self.ready = False
            raise Interrupted(
                path,
                expected="a scan to its end",
                got=f"a process that {self._ending()}",
                remedy="Scan the file alone, where there is more memory.",
            )
        return report_of(answer)  # type: ignore[arg-type]

    def _ending(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return f"ended with code {code}"
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"

    def stop(self) -> None:
        """Kill it; a second time does nothing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was written and not taken
                    continue


class _Pool:
    """Threads that each feed a worker, and the results by the place of their file."""

    def __init__(self, job: Job, paths: list[Path]) -> None:
        self._job = job
        self._paths = paths
        self._next = 0
        self._done: dict[int, FileReport | None] = {}
        self._error: BaseException | None = None
        self._stopped = False
        self._alone = False
        self._changed = threading.Condition()
        self._workers: list[_Worker] = []
        self._threads: list[threading.Thread] = []

    def start(self, count: int) -> None:
        """Let `count` processes work."""
        for _ in range(count):
            thread = threading.Thread(target=self._feed, daemon=True)
            self._threads.append(thread)
            thread.start()

    def results(self) -> Iterator[FileReport | None]:
        """The reports in order, each as soon as it and those before it are there."""
        for at in range(len(self._paths)):
            with self._changed:
                while at not in self._done:
                    if self._error is not None:
                        raise self._error
                    # With a timeout, so that a signal is noticed on every system.
                    self._changed.wait(0.5)
                found = self._done.pop(at)
            yield found

    def stop(self) -> None:
        """Kill all workers and wait until their threads have seen it."""
        with self._changed:
            self._stopped = True
            self._next = len(self._paths)
            workers = list(self._workers)
        for worker in workers:
            worker.stop()
        for thread in self._threads:
            thread.join(_PATIENCE)

    def _feed(self) -> None:
        worker: _Worker | None = None
        try:
            while (at := self._take()) is not None:
                if (worker is None or not worker.ready) and not self._alone:
                    worker = self._worker()
                if self._stopped:
                    return
                self._put(at, self._scan(worker, self._paths[at]))
        except BaseException as error:  # it is raised where the results are taken
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _scan(self, worker: _Worker | None, path: Path) -> FileReport | None:
        try:
            if worker is None or not worker.ready:
                # Processes cannot even begin here, which is not this file's fault.
                self._alone = True
                return self._job(path)
            return worker.scan(path)
        except TensorkeepError as error:
            return failure(os.fspath(path), error)

    def _worker(self) -> _Worker:
        worker = _Worker(self._job)
        with self._changed:
            self._workers.append(worker)
            stopped = self._stopped
        if stopped:
            worker.stop()
        return worker

    def _take(self) -> int | None:
        with self._changed:
            if self._next >= len(self._paths):
                return None
            self._next += 1
            return self._next - 1

    def _put(self, at: int, found: FileReport | None) -> None:
        with self._changed:
            self._done[at] = found
            self._changed.notify_all()
