"""Keys that would be slow, or deadly, to hash and to compare."""

from __future__ import annotations

import time

import pytest

from tensorkeep.errors import Amplified, LimitExceeded
from tensorkeep.facts import Limits
from tensorkeep.pickles import Node, load, run


def long_int(value: int) -> bytes:
    return b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)


def test_ordinary_keys_are_stored():
    data = (
        b"}(NK\x01\x88K\x02G"
        + bytes(8)
        + b"K\x03K\x07K\x08\x86K\x04C\x01aK\x05ca\nB\nK\x06(K\x01\x91K\x07u."
    )
    value = load(data).value
    assert value[None] == 1
    assert value[True] == 2
    assert value[0.0] == 3
    assert value[(7, 8)] == 4
    assert value[b"a"] == 5
    assert value[frozenset({1})] == 7
    assert [v for k, v in value.items() if isinstance(k, Node)] == [6]


@pytest.mark.parametrize("wrap", [b"\x85", b"K\x01\x86", b"K\x01K\x02\x87"])
def test_tuples_nested_too_deep_for_a_key(wrap):
    """CPython's own process would die of the first of these."""
    for use in (b"}", b"\x8f", b"("):
        finish = {b"}": b"Ns.", b"\x8f": b"(h\x00\x90.", b"(": b"\x91."}[use]
        deep = b"N" + wrap * 200_000
        data = deep + b"q\x000\x8f" + finish if use == b"\x8f" else use + deep + finish
        error = run(data).error
        assert isinstance(error, LimitExceeded)
        assert "deep" in error.expected


def test_keys_as_deep_as_honest_ones():
    assert len(load(b"}N" + b"\x85" * 60 + b"Ns.").value) == 1


def test_frozensets_in_frozensets():
    assert isinstance(run(b"}" + b"(" * 200 + b"N" + b"\x91" * 200 + b"Ns.").error, LimitExceeded)


def test_a_key_that_shares_its_parts():
    # 2**50 leaves: each opcode pair doubles the tuple.
    error = run(b"}N" + b"2\x86" * 50 + b"Ns.", limits=Limits(max_expansion=100_000)).error
    assert isinstance(error, Amplified)
    assert "max_expansion" in error.expected


@pytest.mark.parametrize("times", [25, 63, 64, 65, 100_000])
def test_doubling_is_amplification_however_deep(times):
    started = time.process_time()
    for use in (b"}%bNs.", b"\x8f(%b\x90.", b"(%b\x91."):
        error = run(use % (b"N" + b"2\x86" * times)).error
        assert isinstance(error, LimitExceeded)
        # A file of 200 kilobytes may ask for 20 million parts; past that, depth comes second.
        assert isinstance(error, Amplified)
    assert time.process_time() - started < 5


def test_a_wide_key_that_holds_a_wide_key_many_times():
    """Each part is looked at once: a million million looks otherwise."""
    wide = b"(" + b"N" * 100_000 + b"tq\x00"
    started = time.process_time()
    error = run(wide + b"0}(" + b"h\x00" * 100_000 + b"tNs.").error
    assert isinstance(error, Amplified)
    assert time.process_time() - started < 5


def test_many_honest_keys_are_no_amplification():
    """One key of a thousand parts in dict after dict, in a file of some size: no attack."""
    key = b"(" + b"N" * 1000 + b"tq\x00"
    used = b"}h\x00Ns"
    error = run(b"]" + key + b"0" + used * 1100 + b"N0" * 10_000 + b"N.").error
    assert isinstance(error, LimitExceeded)
    assert not isinstance(error, Amplified)


def test_work_on_big_keys_is_charged_for():
    text = b"X" + (2_000_000).to_bytes(4, "little") + b"a" * 2_000_000
    number = b"\x8b" + (2_000_000).to_bytes(4, "little") + b"\x01" * 2_000_000
    for big in (text, number):
        data = big + b"q\x000" + big + b"q\x010}(" + b"h\x00Nh\x01N" * 5_000 + b"u."
        started = time.process_time()
        assert isinstance(run(data).error, LimitExceeded)
        assert time.process_time() - started < 5


def test_integers_with_one_hash():
    prime = (1 << 61) - 1
    data = b"}(" + b"".join(long_int(prime * n + 5) + b"N" for n in range(1, 5000)) + b"u."
    assert isinstance(run(data).error, Amplified)


def test_many_honest_big_integers_and_tuples():
    ints = b"".join(long_int((1 << 62) + (n << 22)) + b"N" for n in range(20_000))
    assert len(load(b"}(" + ints + b"u.").value) == 20_000
    pairs = b"".join(b"M" + n.to_bytes(2, "little") + b"K\x01\x86N" for n in range(20_000))
    assert len(load(b"}(" + pairs + b"u.").value) == 20_000


def test_one_key_in_many_dicts():
    keys = b"".join(b"K" + bytes([n]) + b"\x85N" for n in range(100))
    data = b"(" + (b"}(" + keys + b"u") * 200 + b"l."
    assert len(load(data).value) == 200
