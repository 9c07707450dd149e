"""What a format tells the machine about the loader: bytes that objects read, ids that it knows."""

import struct

from tensorkeep.errors import Damaged
from tensorkeep.pickles import Call, Global, Persistent, run

WRAPPER = b"cpkg\nArray\n)\x81"


def reads(length):
    """Every object reads so many bytes once it has its state."""
    places = []

    def read(call, pos):
        assert isinstance(call, Call)
        places.append(pos)
        return pos + length

    return read, places


def test_an_object_reads_bytes_behind_its_state():
    data = b"\x80\x02](" + (WRAPPER + b"}b" + b"\xff\xff\xff") * 2 + b"K\x05e."
    read, places = reads(3)
    program = run(data, reads=read)
    assert program.error is None
    assert program.value[2] == 5
    assert [data[place : place + 3] for place in places] == [b"\xff\xff\xff"] * 2
    assert run(data).error is not None


def test_in_a_frame_it_reads_behind_the_frame():
    inside = b"](" + WRAPPER + b"}bK\x07"
    data = b"\x80\x04\x95" + struct.pack("<Q", len(inside)) + inside + b"\xff\xff" + b"e."
    read, places = reads(2)
    program = run(data, reads=read)
    assert program.error is None
    assert program.value[1] == 7
    assert places == [len(data) - 4]
    assert program.anomalies == []


def test_an_object_that_cannot_be_read_ends_the_program():
    def read(_call, _pos):
        raise Damaged("an array")

    program = run(WRAPPER + b"}b.", reads=read)
    assert isinstance(program.error, Damaged)
    assert len(program.trace) == 3


def test_known_ids_are_what_the_loader_gives():
    known = Global("pkg", "Class", 0)
    data = b"\x80\x02K\x01QK\x02Q\x86."
    program = run(data, resolve=lambda pid: known if pid == 1 else None)
    assert program.value[0] is known
    assert isinstance(program.value[1], Persistent)
    assert [node.pid for node in program.persistents] == [2]


def test_data_that_ends_early_is_told_from_a_broken_program():
    whole = b"\x80\x04\x95\x0b\0\0\0\0\0\0\0]\x94(X\x01\0\0\0aN\x89e."
    assert not run(whole).cut
    assert all(run(whole[:length]).cut for length in range(len(whole)))
    assert not run(b"\x80\x02N\xff").cut
    assert not run(b"\x80\x02).").cut


def test_constants_that_could_hold_a_pickle_are_kept_with_their_place():
    raw = b"x" * 20
    data = b"\x80\x04C\x14" + raw + b"0X\x12\0\0\0gASVKgAAAAAAAACMBX0X\x03\0\0\0abc."
    program = run(data)
    assert program.constants == [(4, raw), (30, "gASVKgAAAAAAAACMBX")]
