"""Running whole programs: where they begin and end, limits, and any bytes whatever."""

from __future__ import annotations

import collections
import io
import pickle
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tensorkeep.errors import BadArgument, Damaged, LimitExceeded, ReadError
from tensorkeep.facts import Limits
from tensorkeep.pickles import Call, Program, load, run


def test_stacked_pickles_are_read_one_after_the_other():
    data = b"junk" + pickle.dumps([1], 2) + pickle.dumps({"a": 2}, 4) + b"rest"
    first = load(data, 4)
    second = load(data, first.end)
    assert (first.value, second.value) == ([1], {"a": 2})
    assert (first.start, first.protocol, second.protocol) == (4, 2, 4)
    assert data[second.end :] == b"rest"
    assert first.anomalies == second.anomalies == []


def test_each_program_has_a_memo_of_its_own():
    data = b"Nq\x00.h\x00."
    assert isinstance(run(data, 4).error, Damaged)


def test_errors_say_what_where_and_what_to_do():
    program = run(b"N" * 20 + b"\xff", where="archive/data.pkl")
    assert str(program.error) == (
        "archive/data.pkl: expected an opcode, got the byte 0xff (at byte 20). "
        "Get the file again from where it came, or restore it from a backup."
    )
    assert (program.end, program.opcodes, program.value) == (20, 20, None)
    with pytest.raises(Damaged, match="byte 20"):
        load(b"N" * 20 + b"\xff")
    assert "byte 1, opcode BINGET" in str(run(b"Nh\x01").error)


@pytest.mark.parametrize("data", [b"", b"N", b"\x80", b"\x80\x02", b"(" * 10])
def test_no_stop(data):
    assert isinstance(run(data).error, Damaged)
    assert "end of the data" in run(data).error.got


@pytest.mark.parametrize("start", [-1, 3])
def test_a_start_outside_the_data(start):
    with pytest.raises(BadArgument):
        run(b"N.", start)


@pytest.mark.parametrize("encoding", ["none-such", "hex", "rot13", "a\0b"])
def test_an_encoding_that_is_none(encoding):
    with pytest.raises(BadArgument, match="encoding"):
        run(b"N.", encoding=encoding)


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        (b"}" * 300_000 + b".", Limits(max_stack=200_000)),
        (b"(" * 300_000 + b".", Limits(max_stack=200_000)),
        (b"(N" * 150_000 + b".", Limits(max_stack=200_000)),
        (b"N" + b"\x94" * 300_000 + b".", Limits(max_memo=200_000)),
        (b"N" + b"r\xff\xff\xff\xffr\0\0\0\xff" + b"\x94" * 300_000, Limits(max_memo=200_000)),
        (b"N" + b"N0" * 150_000 + b".", Limits(max_pickle_bytes=200_000)),
    ],
)
def test_limits(data, limits):
    error = run(data, limits=limits).error
    assert isinstance(error, LimitExceeded)
    assert "at most 200,000" in error.expected
    assert "Limits" in error.remedy


def test_marks_taken_away_do_not_count():
    data = b"N" + b"(NN1" * 100_000 + b"(NNt0" * 100_000 + b"(0" * 100_000 + b"."
    assert load(data, limits=Limits(max_stack=70_000)).value is None


def real_pickles() -> list[bytes]:
    tensors = collections.OrderedDict(a=torch.zeros(2, 3), b=torch.ones(4, dtype=torch.bfloat16))
    tensors["c"] = tensors["a"].t()
    buffer = io.BytesIO()
    torch.save({"state": tensors, "epoch": 3, "lr": [0.1, {"x": None}]}, buffer)
    reader = torch._C.PyTorchFileReader(io.BytesIO(buffer.getvalue()))
    values = {"a": [1.5, (2, 3), "x" * 300], "é": {1, 2}, b"b": bytearray(b"z"), None: 1 << 80}
    values["self"] = values
    return [reader.get_record("data.pkl")] + [pickle.dumps(values, p) for p in range(6)]


PICKLES = real_pickles()


def test_what_torch_writes():
    program = load(PICKLES[0])
    state = program.value["state"]
    assert isinstance(state, Call)
    assert state.func.qualified == "collections.OrderedDict"
    key, tensor = state.effects[0].args[:2]
    assert key == "a"
    assert tensor.func.qualified == "torch._utils._rebuild_tensor_v2"
    assert tensor.args[0].pid[0] == "storage"
    assert program.value["lr"] == [0.1, {"x": None}]
    assert len(program.persistents) == 3


def accept(data: bytes) -> Program:
    """Any bytes give a program with a value, or with one of our errors."""
    program = run(data)
    assert program.error is None or isinstance(program.error, ReadError)
    assert 0 <= program.end <= len(data)
    return program


@pytest.mark.parametrize("number", range(len(PICKLES)))
def test_truncated_anywhere(number):
    data = PICKLES[number]
    for end in range(len(data)):
        assert isinstance(accept(data[:end]).error, Damaged)


@given(st.integers(0, 2**64))
def test_bytes_flipped_anywhere(seed):
    rng = random.Random(seed)
    for data in PICKLES:
        changed = bytearray(data)
        for _ in range(rng.choice([1, 1, 1, 3, 10])):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        program = accept(bytes(changed))
        assert len(repr(program.trace)) < 1_000_000


@given(st.binary(max_size=60))
def test_any_bytes(data):
    accept(data)


@given(
    st.lists(
        st.sampled_from(list(b"().012]}NK)\x85\x86\x87ltdaesuRobQ\x81\x8f\x90\x91\x92\x93\x94\x98"))
    )
)
def test_any_opcodes(codes):
    accept(bytes(codes) + b".")
