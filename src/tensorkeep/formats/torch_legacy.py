"""What `torch.save` wrote before torch 1.6, and writes when asked for the old serialization.

Five pickles one after another (a magic number, a protocol, the writer's machine, the object, the
keys of the storages), then each storage: eight bytes of count, and its elements. Every one of
the five is a program that a loader runs. Source: `_legacy_save` and `_legacy_load` in
`torch/serialization.py` (2.13). Before its loader looks at the pickles it tries to read the file
as a tar archive.
"""

from __future__ import annotations

from tensorkeep.errors import Damaged, TensorkeepError
from tensorkeep.facts import Anomaly, Limits
from tensorkeep.formats import _hidden, _nested
from tensorkeep.formats._legacy_storages import LegacyStorages, container_class
from tensorkeep.formats._programs import Stream
from tensorkeep.formats._tensors import Interpreter
from tensorkeep.formats.contents import Contents, Parts
from tensorkeep.pickles import Program, run
from tensorkeep.stores import Blob

NAME = "torch_legacy"
SUFFIXES: tuple[str, ...] = (".pth", ".pt", ".bin", ".ckpt")
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_NAMES = ("magic number", "protocol version", "system", "object", "storage keys")


def identify(blob: Blob, head: bytes) -> bool:
    """Whether the first pickle gives torch's magic number, or the second its version.

    A first pickle that computes its value could give the magic number, too.
    """
    first = run(head)
    if first.error is not None:
        return False
    if type(first.value) is int:
        return first.value == _MAGIC
    second = run(head, first.end)
    return second.error is None and type(second.value) is int and second.value == _PROTOCOL


def read(blob: Blob, limits: Limits, parts: Parts) -> Contents:
    """The checkpoint in `blob`, without its tensor bytes."""
    stream = Stream(blob, limits)
    programs = _five(stream)
    last = programs[-1][1]
    table = LegacyStorages(blob)
    main = programs[3][1] if len(programs) > 3 else last
    table.register(main.persistents)
    anomalies = table.anomalies
    error: TensorkeepError | None = last.error
    behind = _hidden.Hidden()
    if error is None:
        end, error = _place(table, programs, blob)
        if end < blob.size:
            behind = _hidden.behind(blob, end, limits)
    files: dict[bytes, Contents] = {}
    nested, unreadable = _nested.collect([*programs, *behind.programs], parts, anomalies, files)
    anomalies += behind.anomalies
    return Contents(
        format=NAME,
        container="torch before 1.6",
        root=main.value if len(programs) > 3 else None,
        lens=Interpreter(main, table.of, anomalies, files),
        storages=table.by_key,
        facts=_facts(programs),
        programs=[*programs, *behind.programs],
        anomalies=anomalies,
        error=error,
        nested=nested,
        unreadable=unreadable + behind.unreadable,
    )


def _five(stream: Stream) -> list[tuple[str, Program]]:
    """The programs, up to the first that a loader could not run to its end."""
    programs: list[tuple[str, Program]] = []
    start = 0
    for name in _NAMES:
        resolve = container_class if name == "object" else None
        program = stream.run(start, f"pickle of the {name}", resolve=resolve)
        programs.append((f"pickle of the {name}", program))
        if program.error is not None:
            break
        start = program.end
    return programs


def _place(
    table: LegacyStorages, programs: list[tuple[str, Program]], blob: Blob
) -> tuple[int, TensorkeepError | None]:
    """Find the storages behind the pickles, and say what is odd about their frame; their end."""
    magic, version, _, _, keys = (program for _, program in programs)
    for program, wanted, what in ((magic, _MAGIC, "magic number"), (version, _PROTOCOL, "version")):
        if program.value is not wanted and program.value != wanted:
            said = f"the {what} is computed or is another: no writer of torch's does that"
            table.anomalies.append(Anomaly("odd-number", said, "", program.start))
    try:
        end = table.place(keys.value, keys.end)
    except Damaged as error:
        return blob.size, error
    if end < blob.size:
        what = f"{blob.size - end} bytes behind the last storage"
        table.anomalies.append(Anomaly("trailing-bytes", what, "", end))
    return end, None


def _facts(programs: list[tuple[str, Program]]) -> dict[str, str]:
    """What the writer said of its machine."""
    system = programs[2][1].value if len(programs) > 2 else None
    if not isinstance(system, dict) or type(system.get("little_endian")) is not bool:
        return {}
    return {"byteorder": "little" if system["little_endian"] else "big"}
