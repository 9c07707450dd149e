"""The hunt: many composed programs, those that are `safe` loaded by the oracle.

python tests/oracle/hunting.py SEED SECONDS prints what it found; `make test-long` runs it too.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "benign"), str(HERE.parent / "corpus" / "hostile")]
from asking import Oracle  # noqa: E402
from generating import Composer, Seeds  # noqa: E402
from tricks import Member, archive  # noqa: E402

import tensorkeep as tk  # noqa: E402

_LARGEST = 20_000
BATCH = 100


def write_honest(folder):
    """The file, or the folder, of every case of the catalogue."""
    from catalogue import CASES

    paths = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, (name, write) in enumerate(CASES.items()):
            place = Path(folder, str(number))
            place.mkdir()
            write(place)
            files = list(place.iterdir())
            paths[name] = files[0] if len(files) == 1 else place
    return paths


def pickles_of(paths):
    """The pickles in these files with the storages beside them, once each."""
    found = {}
    for path in paths:
        for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
            found |= _pickles(file) if file.is_file() else {}
    return [pair for pair in found.items() if len(pair[0]) < _LARGEST]


def _pickles(file):
    data = file.read_bytes()
    if not zipfile.is_zipfile(file):
        return {data: {}} if data[:1] == b"\x80" and data[-1:] == b"." else {}
    with zipfile.ZipFile(file) as zipped:
        read = {name: zipped.read(name) for name in zipped.namelist()}
    storages = {name.rpartition("/data/")[2]: part for name, part in read.items()}
    return {part: storages for name, part in read.items() if name.endswith("/data.pkl")}


def zipped(pickle, records):
    """A torch zip around the pickle and its storages."""
    members = [Member("archive/data.pkl", pickle), Member("archive/byteorder", b"little")]
    members += [Member(f"archive/data/{key}", data) for key, data in records.items()]
    return archive([*members, Member("archive/version", b"3\n")])


class Hunt:
    """Programs composed from one seed, until a number of them or of seconds is reached."""

    def __init__(self, oracle, folder, pickles, seed):
        self.oracle, self.folder = oracle, Path(folder)
        self.composer = Composer(random.Random(seed), Seeds(pickles))
        self.counts, self.loaded, self.found = Counter(), 0, {}
        self._safe = []

    def go(self, programs, seconds):
        end = time.monotonic() + seconds
        while self.counts.total() < programs and time.monotonic() < end:
            self.one(*self.composer.program())
        self.ask()

    def one(self, program, records):
        data = zipped(program, records)
        verdict = tk.scan(data).verdict
        self.counts[verdict] += 1
        if verdict == "safe":
            self._safe.append(data)
            if len(self._safe) == BATCH:
                self.ask()

    def ask(self):
        paths = {}
        for number, data in enumerate(self._safe):
            path = self.folder / f"program-{number}.pth"
            path.write_bytes(data)
            paths[str(path)] = data
        self._safe = []
        for name, outcome in self.oracle.files(paths).items():
            self.loaded += outcome.loaded
            if outcome.broken:
                self.found[paths.get(name, b"")] = outcome


def main(seed, seconds):
    with tempfile.TemporaryDirectory() as folder, Oracle() as oracle:
        pickles = pickles_of(write_honest(folder).values())
        hunt = Hunt(oracle, folder, pickles, seed)
        started = time.monotonic()
        hunt.go(10**9, seconds)
        took = round(time.monotonic() - started)
        print(json.dumps({"seconds": took, **hunt.counts, "loaded": hunt.loaded}))
        kept = Path(tempfile.gettempdir(), f"hunt-{seed}")
        kept.mkdir(exist_ok=True)
        for number, (data, outcome) in enumerate(hunt.found.items()):
            (kept / f"{number}.pth").write_bytes(data)
            print(number, len(data), outcome.broken[:3], dict(list(outcome.loads.items())[:1]))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
