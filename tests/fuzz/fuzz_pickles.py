"""The pickle machine: never an exception, the same twice, and CPython's own reading of it."""

from __future__ import annotations

import pickle
import pickletools
import random
import sys

import seeds as samples
from promises import LIMITS

from tensorkeep import pickles
from tensorkeep.errors import LimitExceeded, ReadError
from tensorkeep.pickles.explain import explain
from tensorkeep.scanning.rules import RULES, judge_program

ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8", "ASCII", "latin1", "bytes", "utf-8")
WORDS = [
    *(op.code.encode("latin1") for op in pickletools.opcodes),
    *(b"cos\nsystem\n", b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n"),
    *(b"\x8c\x02os\x8c\x06system\x93", b"\x80\x02", b"\x80\x04\x95", b"q\x00h\x00", b"(tR", b")R"),
    *(b"\x82\x01", b"\x85R", b"\x86R", b")\x81", b"}b", b"N}\x86b", b"\x94h\x00", b"C\x01a\x98"),
]
_SHOWN = 40  # of the trace
_LINE = 200
_MOST_TEXT = 400_000
# Where its tuple of the values that hold it would be as deep as the file is long.
sys.setrecursionlimit(20_000)

oracle = samples.module("pickles/conftest").Oracle()
canonical = samples.module("pickles/conftest").canonical
_pieces = samples.module("pickles/test_differential")


# CPython hashes a key of pairs of pairs by visiting each of its 2**n places; the machine does not.
_DOUBLING = b"2\x86" * 18


def seeds() -> list[bytes]:
    return [*samples.pickles_inside(), *samples.programs(400)]


def one(data: bytes) -> None:
    encoding = ENCODINGS[len(data) % len(ENCODINGS)]
    program = _run(data, 0, encoding)
    if program.error is None:
        _run(data, program.end, encoding)  # what is stacked behind it
    _compare(data, program, encoding)


def _run(data: bytes, start: int, encoding: str) -> pickles.Program:
    """Both readings are the same in every word, and judged the same."""
    program, again = (
        pickles.run(data, start, limits=LIMITS, encoding=encoding, where="x") for _ in range(2)
    )
    assert _account(program) == _account(again)
    assert start <= program.end <= len(data)
    assert program.error is None or isinstance(program.error, ReadError)
    return program


def _account(program: pickles.Program) -> tuple:
    shown = [program.value, *program.trace[:_SHOWN], *program.persistents[:_SHOWN]]
    lines = [pickles.describe(value, _LINE) for value in shown]
    assert all(len(line) <= _LINE for line in lines), "a line that is too long"
    lines += [line.text for line in explain(program, lambda event: len(repr(event)) % 3)]
    assert all(line.isprintable() for line in lines), "a line that is not printable"
    assert sum(map(len, lines)) < _MOST_TEXT, "an explanation without end"
    findings = judge_program(program, "data.pkl")
    assert all(found.rule in RULES for found in findings)
    error = str(program.error)
    return lines, findings, error, program.end, program.opcodes, program.anomalies


def _compare(data: bytes, program: pickles.Program, encoding: str) -> None:
    """CPython reads the same value or refuses it too.

    The oracle's unpickler imports nothing: a name gives it a fresh class that records what is
    done to it. `pickle.loads` itself sees only what the machine proved to be plain data.
    """
    costly = any(anomaly.kind == "memo-index" for anomaly in program.anomalies)
    costly = costly or _DOUBLING in data
    if isinstance(program.error, LimitExceeded) or costly:
        return
    oracle.same(data, encoding=encoding)
    if program.error is None and not program.trace and not program.persistents:
        assert canonical(pickle.loads(data, encoding=encoding)) == canonical(program.value)


def mutate(data: bytes, longest: int, seed: int) -> bytes:
    """Bytes as libFuzzer changes them; every third time whole opcodes, where one begins."""
    import atheris

    rng = random.Random(seed)
    if rng.random() < 0.65:
        return atheris.Mutate(data, longest)
    places = [*_boundaries(data), len(data)]
    at, end = sorted(rng.choice(places) for _ in range(2))
    piece = _opcodes(rng) if rng.random() < 0.7 else data[at:end]
    at = rng.choice(places)
    gone = 0 if rng.random() < 0.6 else max(end - at, 0)
    return (data[:at] + piece + data[at + gone :])[:longest]


def _opcodes(rng: random.Random) -> bytes:
    make = rng.choice([_pieces.atom, _pieces.memo, _any, _pieces.atom, _any])
    return b"".join(make(rng) for _ in range(rng.randrange(1, 4)))


def _any(rng: random.Random) -> bytes:
    return rng.choice(_pieces.OPTIONS)[1](rng)


def _boundaries(data: bytes) -> list[int]:
    places = []
    try:
        for _, _, place in pickletools.genops(data):
            places.append(place)
    except (ValueError, IndexError, UnicodeError, SyntaxError, OverflowError, MemoryError):
        pass
    return places or [0]
