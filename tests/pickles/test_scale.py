"""How much time and memory big and hostile programs take."""

from __future__ import annotations

import collections
import io
import struct
import time
import tracemalloc

import pytest
import torch

from tensorkeep.errors import LimitExceeded, ReadError
from tensorkeep.pickles import load, run

TENSORS = 20_000


def data_pickle(tensors: int) -> bytes:
    """The data.pkl of so many tensors, each with a storage of its own."""
    tensor = torch.zeros(2)
    named = ((f"layers.{n // 10}.block.{n % 10}.weight", tensor.clone()) for n in range(tensors))
    buffer = io.BytesIO()
    torch.save(collections.OrderedDict(named), buffer)
    reader = torch._C.PyTorchFileReader(io.BytesIO(buffer.getvalue()))
    return reader.get_record("data.pkl")


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    return data_pickle(TENSORS)


def test_time_for_many_tensors(checkpoint):
    best = min(measure(checkpoint) for _ in range(3))
    assert best < 0.8, f"{best:.2f} s for {TENSORS} tensors"


def measure(data: bytes) -> float:
    started = time.process_time()
    program = load(data)
    taken = time.process_time() - started
    assert len(program.persistents) == TENSORS
    return taken


def test_memory_for_many_tensors():
    data = data_pickle(4_000)
    tracemalloc.start()
    program = load(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert program.error is None
    assert peak / len(program.persistents) < 3_000


DEEP = 200_000
HOSTILE = {
    "tuples in tuples": b"N" + b"\x85" * DEEP + b".",
    "lists in lists": b"]" * DEEP + b"a" * (DEEP - 1) + b".",
    "dicts in dicts": b"}" * DEEP + b"K\x01K\x02s" + b"K\x01K\x02s0" * 10 + b".",
    "sets": b"(" * DEEP + b"\x91" * DEEP + b".",
    "calls of calls": b"ca\nB\n" + b")R" * DEEP + b".",
    "arguments in arguments": b"(ca\nB\n" * DEEP + b"o" * DEEP + b".",
    "states of states": b"ca\nB\n" * DEEP + b"b" * (DEEP - 1) + b".",
    "memo graph": b"]q\x00" + b"(h\x00h\x00h\x00lq\x00" * DEEP + b".",
    "a far memo": b"Nr\xff\xff\xff\x7f" * DEEP + b".",
    "far memo entries": b"N" + b"".join(b"r" + struct.pack("<I", n * 7919) for n in range(DEEP)),
    "digits": b"I" + b"1" * 3_000_000 + b"\n.",
    "long digits": b"L" + b"1" * 3_000_000 + b"L\n.",
    "memo digits": b"Np" + b"1" * 3_000_000 + b"\n.",
    "hex digits": b"I0x" + b"1" * 3_000_000 + b"\n.",
    "float digits": b"F" + b"1" * 300 + b"." + b"1" * 3_000_000 + b"\n.",
    "exponent": b"F1e-" + b"9" * 3_000_000 + b"\n.",
    "escapes": b"S'" + b"\\x41" * 300_000 + b"'\n.",
    "no newline": b"I" * 3_000_000,
    "frames": b"N" + b"\x95" + bytes(8) + (b"\x95" + bytes(8)) * 200_000 + b".",
    "protocols": b"\x80\x02" * DEEP + b"N.",
    "late frames": b"N\x95\x09" + bytes(7) + (b"\x95\x09" + bytes(7)) * 100_000 + b".........",
    "computed names": b"ca\nB\n\x94" + b"h\x00h\x00\x930" * DEEP + b".",
    "junk": b"N0" * 2_000_000 + b"N.",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs(name):
    data = HOSTILE[name]
    started = time.process_time()
    program = run(data)
    assert program.error is None or isinstance(program.error, ReadError)
    repr(program)
    del program
    assert time.process_time() - started < 8


def test_five_million_dicts():
    program = run(b"}" * 5_000_000 + b".")
    assert isinstance(program.error, LimitExceeded)
    assert program.opcodes < 4_100_000
