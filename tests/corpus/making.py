"""How golden files are made: once. Run a folder's make.py to add a case; old ones stay.

What a file holds is taken from the program that wrote it, compared bit for bit with what
tensorkeep reads, and only then written down.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

CORPUS = Path(__file__).resolve().parent
SUMS = CORPUS / "SHA256SUMS"
# What depends on where the file lies and on the words of the day.
PASSING = ("path", "bytes_read", "notes", "anomalies")


def facts_of(target):
    """What `inspect --format json` says for ever, and the digest of every tensor."""
    import tensorkeep as tk  # not needed for hostile files, which the standard library makes

    facts = tk.inspect(target).to_dict()
    for key in PASSING:
        del facts[key]
    with tk.open(target) as ckpt:
        facts["digests"] = {name: ckpt[name].digest() for name in ckpt}
    return json.loads(json.dumps(facts))


def lines(facts):
    """JSON with a line for each fact, and for each item of a list."""
    parts = []
    for key, value in facts.items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def keep(folder, write, expected, target="", check=None):
    """Make a case unless it is there. `write` gets its folder; `expected` maps names to bytes.

    `target` is the file in it that is opened, or "" for the folder itself.
    """
    if folder.exists():
        print(f"kept as it is: {folder.name}")
        return
    folder.mkdir(parents=True)
    try:
        _make(folder, write, expected, target, check)
    except BaseException:
        shutil.rmtree(folder)  # half a case would be kept for ever
        raise


def _make(folder, write, expected, target, check):
    import tensorkeep as tk

    write(folder)
    path = folder / target
    if check is not None:
        check(path)
    with tk.open(path) as ckpt:
        got = {name: ckpt[name].read() for name in ckpt}
    assert got == expected, f"{folder.name}: {sorted(got)} is not what was written"
    (folder / "facts.json").write_text(lines(facts_of(path)), encoding="ascii")
    write_down(folder)


def is_data(path):
    """A file of a case; a link leads to what is none of ours."""
    return path.is_file() and not path.is_symlink()


def write_down(folder):
    """Add the files of a new case to SHA256SUMS."""
    with SUMS.open("a", encoding="utf-8") as sums:
        for path in sorted(found for found in folder.rglob("*") if is_data(found)):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            sums.write(f"{digest}  {path.relative_to(CORPUS).as_posix()}\n")
    print(f"made: {folder.name}")
