"""Changes: made on native values as CPython makes them, recorded on nodes."""

from __future__ import annotations

import pytest

from tensorkeep.errors import Damaged, Unsupported
from tensorkeep.pickles import Effect, Global, describe, load, run

BYTES = b"\x96\x03" + bytes(7) + b"abc"


@pytest.mark.parametrize(
    "state", [b"N", b"NN\x86", b"N}\x86", b"}", b"}}\x86", b"K\x01", b"N}K\x01Ns\x86", b"()t", b"]"]
)
@pytest.mark.parametrize("target", [b"]", b"}", b"K\x01", b")", b"N", b"\x8f"])
def test_build_on_native_values(target, state, oracle):
    data = target + state + b"b."
    accepted = oracle.same(data)
    assert accepted == (state in (b"N", b"N}\x86"))
    effect = run(data).trace[-1]
    assert isinstance(effect, Effect)
    assert effect.kind == "BUILD"


def test_build_with_an_opaque_state_on_a_native_value():
    for state in (b"ca\nB\n", b"Nca\nB\n\x86"):
        with pytest.raises(Unsupported):
            load(b"]" + state + b"b.")


def test_build_on_a_global_with_slot_state():
    program = load(b"ctorch.nn.functional\nrelu\n(N}S'__defaults__'\n\x88stb.")
    assert isinstance(program.value, Global)
    assert program.value.effects[0].args == ((None, {"__defaults__": True}),)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (BYTES + b"(K\x41K\x42e", bytearray(b"abcAB")),
        (BYTES + b"\x88a", bytearray(b"abc\x01")),
        (BYTES + b"K\x00K\x41s", bytearray(b"Abc")),
        (b"](NNNeK\x01K\x07s", [None, 7, None]),
        (b"](NNe(K\x00K\x01J\xff\xff\xff\xffK\x02u", [1, 2]),
        (b"C\x01a\x98", b"a"),
    ],
)
def test_changes_of_native_values(data, expected, oracle):
    assert load(data + b".").value == expected
    assert oracle.same(data + b".")


@pytest.mark.parametrize(
    "data",
    [
        BYTES + b"M\x00\x01a",
        BYTES + b"Na",
        BYTES + b"K\x09K\x01s",
        BYTES + b"K\x00Ns",
        BYTES + b"2\x98K\x01K\x00\x86" + b"0K\x00K\x41s",  # the view is readonly
        BYTES + b"q\x00\x98h\x00K\x01a",  # a view holds its size
        b"K\x01\x98",
        b"X\x01\0\0\0a\x98",
        b"\x98",
    ],
)
def test_changes_refused(data, oracle):
    with pytest.raises(Damaged):
        load(data + b".")
    assert not oracle.same(data + b".")


def test_readonly_buffer_of_a_bytearray(oracle):
    value = load(BYTES + b"\x98.").value
    assert (type(value), bytes(value), value.readonly) == (memoryview, b"abc", True)
    assert oracle.same(BYTES + b"\x98.")


@pytest.mark.parametrize(
    "data",
    [b"]ca\nB\nNs", BYTES + b"ca\nB\na", BYTES + b"K\x00ca\nB\ns", b"ca\nB\n\x98"],
)
def test_what_would_call_into_an_opaque_object_stops_the_reading(data):
    program = run(data + b".")
    assert isinstance(program.error, Unsupported)


def test_late_changes_are_known():
    # [] goes to a call, and is filled after it: the call saw it empty.
    program = load(b"]q\x00(ca\nB\nh\x00\x85Rh\x00K\x01a0t.")
    call = program.value[0]
    held = call.args[0]
    assert held == [1]
    assert program.changed[id(held)] > call.offset
    early = load(b"]q\x00K\x01aca\nB\nh\x00\x85R.")
    assert early.changed == {}


@pytest.mark.parametrize(
    ("data", "kinds"),
    [
        (b"\x80\x02N.", []),
        (b"N\x80\x020N\x86.".replace(b"0N\x86", b""), ["proto-late"]),
        (b"\x80\x02\x80\x02N.", ["proto-twice"]),
        (b"\x95\x01" + bytes(7) + b"K\x01.", ["frame-crosses-value"]),
        (b"\x95\x0a" + bytes(7) + b"N\x95\x01" + bytes(7) + b".", ["frame-crosses-value"]),
        (b"\x95\x03" + bytes(7) + b"N.NN", ["frame-crosses-stop"]),
        (b"\x95\x02" + bytes(7) + b"N.NN", []),
        (b"\x95\x01" + bytes(7) + b"N\x95\x01" + bytes(7) + b".", []),
    ],
)
def test_anomalies(data, kinds, oracle):
    program = load(data)
    assert [anomaly.kind for anomaly in program.anomalies] == kinds
    assert oracle.same(data)


def test_an_index_that_is_an_object_is_recorded_with_its_value():
    # Found by the fuzzer: the value was lost, and describing the effect failed.
    program = run(b"]ca\nB\n]s.")
    assert isinstance(program.error, Unsupported)
    assert describe(program.trace[-1]) == "[][a.B] = []"


def test_an_unknown_protocol():
    with pytest.raises(Unsupported, match="protocol"):
        load(b"\x80\x06N.")
