"""The files that the scanners are compared on: the hostile corpus, and the honest catalogue.

Every file lies in a folder of its own under `samples/hostile/` or `samples/honest/`, so that a
scanner can be given one of them or all at once. Made once in the folder of the figure, by
children.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from common import HERE, Bench, environment

TESTS = HERE.parent / "tests"
# Writes every case of the catalogue; one that cannot be written here is named and left out.
HONEST = """
import json, sys, warnings
from pathlib import Path
sys.path.insert(0, sys.argv[1])
warnings.simplefilter("ignore")
from catalogue import CASES
found, failed = {}, {}
for number, (name, case) in enumerate(CASES.items()):
    folder = Path(sys.argv[2]) / f"{number:03}"
    folder.mkdir()
    try:
        found[name] = str(case(folder))
    except Exception as error:
        failed[name] = f"{type(error).__name__}: {error}"[:300]
        for part in folder.iterdir():
            part.unlink()
Path(sys.argv[3]).write_text(json.dumps([found, failed]))
"""

# 40 MB of opcodes that a zip packs into 40 kB: None is pushed and dropped, then a call.
BOMB = """
import sys, zipfile
payload = b"cos\\ngetpid\\n(tR."
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
    archive.writestr("bomb/data.pkl", b"\\x80\\x02" + b"N0" * 20_000_000 + payload)
    archive.writestr("bomb/byteorder", b"little")
    archive.writestr("bomb/version", b"3\\n")
"""
GZIPPED = """
import gzip, sys
with gzip.open(sys.argv[1], "wb", compresslevel=9) as out:
    out.write(b"\\x80\\x02" + b"N0" * 20_000_000 + b"cos\\ngetpid\\n(tR.")
"""


def hostile(bench: Bench) -> dict[str, Path]:
    """By their names: a copy of each case, a file or a folder of them."""
    home = bench.folder / "samples" / "hostile"
    found = {}
    for expected in sorted((TESTS / "corpus" / "hostile").glob("*/expected.json")):
        case = expected.parent
        if not (home / case.name).exists():
            shutil.copytree(case, home / case.name, symlinks=True)
            (home / case.name / "expected.json").unlink()
        inside = list((home / case.name).iterdir())
        found[case.name] = inside[0] if len(inside) == 1 else home / case.name
    return found


def honest(bench: Bench) -> dict[str, Path]:
    """By their names: what the writers wrote."""
    home, listing = bench.folder / "samples" / "honest", bench.folder / "honest.json"
    if not listing.exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        arguments = [TESTS / "benign", home, listing]
        command = [sys.executable, "-c", HONEST, *map(str, arguments)]
        subprocess.run(command, check=True, env=environment(), stdout=subprocess.DEVNULL)
    found, failed = json.loads(listing.read_text())
    for name, why in failed.items():
        print(f"  could not be written: {name}: {why}", file=sys.stderr)
    return {name: Path(path) for name, path in found.items()}


def made(path: Path, code: str) -> Path:
    """A file that a small program writes."""
    if not path.exists():
        subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    return path


def small_files(bench: Bench, count: int) -> Path:
    """A folder of `count` checkpoints of a hundred tensors."""
    folder = bench.folder / f"small{count}"
    if not folder.exists():
        folder.mkdir()
        code = """
import sys, torch
for number in range(int(sys.argv[2])):
    state = {f"layer{i}.weight": torch.full((8, 8), float(number + i)) for i in range(100)}
    torch.save(state, f"{sys.argv[1]}/{number:04}.pth")
"""
        command = [sys.executable, "-c", code, str(folder), str(count)]
        subprocess.run(command, check=True, env=environment())
    return folder
