"""The sandboxed process that really loads files. It forks for each one, and says what happened.

python oracle_child.py reads a line of JSON for each job from stdin, {"file": path} or
{"pickle": hex}, several in a list share one child; it answers each job with a line.
Nothing here is a model loader: whoever calls it wants to see what a loader would do.
"""

from __future__ import annotations

import contextlib
import ctypes
import gzip
import io
import json
import os
import pickle
import resource
import signal
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import using  # noqa: E402
from snapshots import Snapshot  # noqa: E402
from unpickling import Allowed, Log, logging_module  # noqa: E402
from watching import Watch  # noqa: E402

MEMORY = 2 << 30  # bytes of address space above what is in use when a file is loaded
SECONDS = 60
LARGE = 1 << 22
_NEW_NETWORK = 0x40000000


def confine():
    """No network, an empty folder, nothing inherited."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).unshare(_NEW_NETWORK)
    os.chdir(tempfile.mkdtemp(prefix="oracle-"))


def limit():
    """For the child that loads: memory, time, and no file of any length."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def warm():
    """Import and use once whatever loading honest files imports and uses."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    stream = io.BytesIO()
    value = {
        "a": torch.ones(2, requires_grad=True),
        "n": np.arange(3),
        "d": np.dtype("f4"),
    }
    torch.save(value, stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=False)
    using.use(loaded)
    linear = torch.nn.Sequential(torch.nn.Linear(4, 2))
    using.use({"m": linear, "o": torch.optim.SGD(linear.parameters(), 0.1)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jagged = torch.nested.nested_tensor([torch.ones(1)], layout=torch.jagged)
    using.use(pickle.loads(pickle.dumps(jagged)))  # imports what its operators need


class Session:
    """One forked child: its watch, its snapshot of the world, and the jobs."""

    def __init__(self, allowed, watch, snapshot):
        self.allowed, self.watch, self.snapshot = allowed, watch, snapshot

    def do(self, job):
        log = Log(self.allowed)
        outcome = {"loads": {}, "later": [], "used": False}
        for how, load in self._ways(job, log):
            outcome["loads"][how] = self._attempt(how, load, job, outcome)
        for module, name in self.watch.classes:  # of the C unpickler, in nested loads too
            log.asked(module, name)
        outcome["violations"] = sorted(set(log.violations))
        outcome["names"] = sorted({".".join(name) for name in log.names})
        outcome["calls"] = len(log.calls)
        outcome["events"] = self.watch.events[:50]
        outcome["later"] = sorted(set(outcome["later"]))
        self.watch.events.clear()
        self.watch.classes.clear()
        return outcome

    def _attempt(self, how, load, job, outcome):
        target = job.get("file", "")
        self.watch.start(target)
        try:
            value = load()
        except BaseException as error:  # SystemExit is what some payloads raise
            return f"{type(error).__name__}: {str(error)[:160]}"
        finally:
            self.watch.stop()
        outcome["later"] += using.later_code(value)
        if "torch.load" in how:  # the stub of the other ways checks no sizes
            outcome["later"] += using.beyond(value)
        if not outcome["used"]:
            outcome["used"] = True
            self._use(value, target)
        return "loaded"

    def _use(self, value, target):
        import torch

        drawn = torch.get_rng_state()  # a dropout draws from it, which is no deed of the file
        self.watch.start(target)
        try:
            using.use(value)
        finally:
            self.watch.stop()
        torch.set_rng_state(drawn)

    def _ways(self, job, log):
        if "pickle" in job:
            yield from self._pickle_ways("", bytes.fromhex(job["pickle"]), log, {})
            return
        path = Path(job["file"])
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file():
                yield from self._file_ways(file, log)

    def _file_ways(self, file, log):
        import torch

        module = logging_module(log)
        yield (
            f"{file.name}: torch.load, watched",
            lambda: torch.load(file, "cpu", module, weights_only=False),
        )
        yield f"{file.name}: torch.load", lambda: torch.load(file, "cpu", weights_only=False)
        other = other_loader(file)
        if other is not None:
            yield f"{file.name}: its own loader", lambda: other(file)
        for name, data, storages in pickles_in(file):
            yield from self._pickle_ways(f"{file.name}/{name}: ", data, log, storages)

    def _pickle_ways(self, prefix, data, log, storages):
        def load(unpickler):
            made = unpickler(io.BytesIO(data))
            made.storages = storages
            return made.load()

        yield prefix + "pickle, watched", lambda: load(type("W", (Stub, watched(log)), {}))
        yield prefix + "pickle", lambda: load(type("C", (Stub, pickle.Unpickler), {}))


def watched(log):
    return logging_module(log).Unpickler


class Stub:
    """What torch.load gives an unpickler: a storage for a persistent id."""

    storages = {}

    def persistent_load(self, pid):
        import torch

        if type(pid) is not tuple or len(pid) < 5 or type(pid[4]) is not int:
            raise pickle.UnpicklingError("no persistent id of torch's")
        dtype = getattr(pid[1], "dtype", torch.uint8)
        size = max(min(pid[4], 1 << 16), 0) * dtype.itemsize
        data = self.storages.get(pid[2], b"")[:size].ljust(size, b"\0")
        untyped = torch.UntypedStorage(len(data))
        if data:
            untyped.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8).untyped_storage())
        return torch.storage.TypedStorage(wrap_storage=untyped, dtype=dtype, _internal=True)


def other_loader(file):
    """What loads a file that is neither torch's nor a plain pickle; it unpickles as well."""
    import joblib
    import numpy as np

    def packed(path):
        return pickle.loads(gzip.decompress(path.read_bytes()))

    def arrays(path):
        found = np.load(path, allow_pickle=True)
        return dict(found) if path.suffix == ".npz" else found

    loaders = {".npy": arrays, ".npz": arrays, ".joblib": joblib.load, ".gz": packed}
    return loaders.get(file.suffix)


def pickles_in(file):
    """The pickles that lie in a file with the storages beside them: the file, or members of it."""
    with contextlib.suppress(zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError):
        if not zipfile.is_zipfile(file):
            if file.stat().st_size < LARGE:
                yield "whole", file.read_bytes(), {}
            return
        with zipfile.ZipFile(file) as archive:
            read = {
                name: archive.read(name)
                for name in archive.namelist()
                if archive.getinfo(name).file_size < LARGE
            }
        if any(name.endswith("/constants.pkl") for name in read):
            return  # TorchScript: its pickles are for the reader in C++, which torch.load calls
        storages = {name.rpartition("/data/")[2]: data for name, data in read.items()}
        for name, data in read.items():
            if name.endswith(".pkl") or data[:1] == b"\x80":
                yield name, data, storages


def fork(session, jobs):
    """The answers of a child of its own; one that dies is told of, in the place of its job."""
    here, there = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(here)
        code = 1
        try:
            code = child(session, jobs, there)
        finally:
            os._exit(code)
    os.close(there)
    with os.fdopen(here) as stream:
        answers = [json.loads(line) for line in stream]
    _, status = os.waitpid(pid, 0)
    if status:
        died = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {status >> 8}"
        answers = answers[: len(jobs)] + [{"died": died}]
    return answers


def child(session, jobs, out):
    limit()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    session.snapshot.after_fork()
    for job in jobs:
        _tell(out, session.do(job))
    _tell(out, {"changed": session.snapshot.changes(), "modules": session.snapshot.new_modules()})
    return 0


def _tell(out, answer):
    data = memoryview((json.dumps(answer) + "\n").encode())
    while data:
        data = data[os.write(out, data) :]


def main():
    warnings.simplefilter("ignore")
    confine()
    warm()
    allowed, watch = Allowed(), Watch()
    watch.install()
    session = Session(allowed, watch, Snapshot())
    # What a fork changes by itself (locks, process ids) is no deed of a file's.
    session.snapshot.pardon(fork(session, [])[-1]["changed"])
    print(json.dumps({"ready": True, "absent": allowed.absent}), flush=True)
    for line in sys.stdin:
        jobs = json.loads(line)
        print(json.dumps(fork(session, jobs if isinstance(jobs, list) else [jobs])), flush=True)


if __name__ == "__main__":
    main()
