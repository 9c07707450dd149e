"""Torch's files before 1.6: five pickles one after another, then the storages."""

from __future__ import annotations

import pickle
import random
import struct

import fuzz_pickles
import seeds as samples
from promises import every_verb, format_of

from tensorkeep import pickles

tricks = samples.module("corpus/hostile/tricks")
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4, "long": 4}}
WORDS = [
    *fuzz_pickles.WORDS,
    *(b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"M\xe9\x03.", b"storage", b"ctorch\nFloatStorage\n"),
    *(struct.pack("<q", 4), struct.pack("<q", -1), b"ctorch._utils\n_rebuild_parameter\n"),
]


def storage(key: str, kind: str = "FloatStorage", numel: int = 4, view: bytes = b"N") -> bytes:
    g, u, i = tricks.g, tricks.u, tricks.i
    return b"(" + u("storage") + g("torch", kind) + u(key) + u("cpu") + i(numel) + view + b"tQ"


def tensor(key: str, **options) -> bytes:
    kept = tricks.storage
    try:
        tricks.storage = lambda *_: storage(key, **options)
        return tricks.tensor()
    finally:
        tricks.storage = kept


def legacy(value: bytes, keys: list[str], body: bytes) -> bytes:
    head = [pickle.dumps(part, 2) for part in (MAGIC, PROTOCOL, SYSTEM)]
    return b"".join([*head, b"\x80\x02" + value + b".", pickle.dumps(keys, 2), body])


def seeds() -> list[bytes]:
    u = tricks.u
    body = struct.pack("<q", 4) + tricks.WEIGHT
    view = b"(" + u("5") + tricks.i(1) + tricks.i(2) + b"t"
    one_, two = u("weight") + tensor("0") + b"s", u("bias") + tensor("1") + b"s"
    values = [
        legacy(b"}" + one_, ["0"], body),
        legacy(b"}" + one_ + two, ["0", "1"], body + body),
        legacy(b"}" + u("v") + tensor("0", view=view) + b"s", ["0"], body),
        legacy(b"}" + u("l") + tensor("0", kind="LongStorage", numel=2) + b"s", ["0"], body),
        legacy(tricks.CALL, [], b""),
        legacy(b"}" + one_ + u("epoch") + b"K\x03s", ["0"], body),
        legacy(b"N", [], b""),
    ]
    return [*values, *samples.samples(lambda data: format_of(data) == "torch_legacy")]


def one(data: bytes) -> None:
    if format_of(data) in ("torch_legacy", "pickle"):
        every_verb(data)


def mutate(data: bytes, longest: int, seed: int) -> bytes:
    """One of the pickles, or what follows them."""
    rng = random.Random(seed)
    ends = [0]
    while len(ends) < 6 and ends[-1] < len(data):
        program = pickles.run(data, ends[-1])
        if program.error is not None:
            break
        ends.append(program.end)
    at = rng.randrange(len(ends))
    start, end = ends[at], [*ends, len(data)][at + 1]
    changed = fuzz_pickles.mutate(data[start:end], max(end - start + 40, 60), seed)
    return (data[:start] + changed + data[end:])[:longest]
