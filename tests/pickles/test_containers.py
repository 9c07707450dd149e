"""Stack, marks, memo and plain containers."""

from __future__ import annotations

import pytest

from tensorkeep.errors import Damaged
from tensorkeep.pickles import load


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b")", ()),
        (b"N\x85", (None,)),
        (b"K\x01K\x02\x86", (1, 2)),
        (b"K\x01K\x02K\x03\x87", (1, 2, 3)),
        (b"(K\x01K\x02t", (1, 2)),
        (b"(t", ()),
        (b"(K\x01l", [1]),
        (b"]K\x01a", [1]),
        (b"](K\x01K\x02e", [1, 2]),
        (b"](e", []),
        (b"K\x05(e", 5),  # CPython looks at the target only where there are items
        (b"K\x05(u", 5),
        (b"K\x05(\x90", 5),
        (b"(K\x01K\x02d", {1: 2}),
        (b"}K\x01K\x02s", {1: 2}),
        (b"}(K\x01K\x02K\x03Nu", {1: 2, 3: None}),
        (b"\x8f(K\x01K\x01\x90", {1}),
        (b"(K\x01K\x02\x91", frozenset({1, 2})),
        (b"K\x01N0", 1),
        (b"K\x01(0", 1),  # POP takes a mark away
        (b"K\x01((NN10", 1),
        (b"K\x012\x86", (1, 1)),
        (b"K\x01q\x050h\x05", 1),
        (b"K\x01K\x02.", 2),  # what lies under the value is dropped
        (b"](K\x01K\x02eK\x00K\x09s", [9, 2]),
        (b"]K\x01aJ\xff\xff\xff\xffK\x07s", [7]),
        (b"](NNe\x88K\x07s", [None, 7]),
    ],
)
def test_container(data, expected, oracle):
    assert load(data + b".").value == expected
    assert type(load(data + b".").value) is type(expected)
    assert oracle.same(data + b".")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty stack"),
        (b"0", "empty stack"),
        (b"K\x01(.", "got a mark"),
        (b"K\x01(2", "got a mark"),
        (b"K\x01(\x85", "got a mark"),
        (b"K\x01K\x02(K\x03\x86", "got a mark"),
        (b"](K\x01a", "got a mark"),
        (b"}(K\x01K\x02s", "got a mark"),
        (b"K\x01(q\x00", "got a mark"),
        (b"K\x01(\x94", "got a mark"),
        (b"K\x01(Q", "got a mark"),
        (b"(K\x01e", "stack"),
        (b"(e", "stack"),
        (b"t", "expected a mark, got none"),
        (b"1", "expected a mark, got none"),
        (b"}(K\x01u", "as many values as keys"),
        (b"(K\x01d", "as many values as keys"),
        (b"K\x05K\x01a", "expected a list"),
        (b"K\x05(K\x01e", "expected a list"),
        (b"K\x05K\x01K\x02s", "dict or a list"),
        (b"](K\x01\x90", "expected a set"),
        (b"(t(K\x01\x91(K\x02\x90", "expected a set"),
        (b"}]Ns", "hashable"),
        (b"}}Ns", "hashable"),
        (b"}\x8fNs", "hashable"),
        (b"}]\x85Ns", "hashable"),
        (b"(]\x91", "hashable"),
        (b"\x8f(]\x90", "hashable"),
        (b"]K\x00Ns", "out of range"),
        (b"]NNs", "indices must be integers"),
        (b"h\x00", "memo entry 0"),
        (b"Nq\x01h\x00", "memo entry 0"),
    ],
)
def test_refused(data, message, oracle):
    with pytest.raises(Damaged, match=message):
        load(data + b".")
    assert not oracle.same(data + b".")


def test_memoize_counts_entries_and_may_overwrite(oracle):
    # PUT 1, then MEMOIZE: there is one entry, so its index is 1.
    data = b"K\x07q\x010K\x08\x940h\x01."
    assert load(data).value == 8
    assert oracle.same(data)


@pytest.mark.parametrize(
    "order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2), (2, 2, 0, 1), (5, 0, 9, 1)]
)
def test_memo_in_any_order(order, oracle):
    puts = b"".join(b"K" + bytes([n, 0x71, i]) + b"0" for n, i in enumerate(order))
    for index in order:
        data = puts + b"K\x63\x940h" + bytes([index]) + b"."
        assert oracle.same(data)


def test_sharing_and_cycles_stay():
    value = load(b"]q\x00h\x00a}h\x00h\x00s0.".replace(b"}h\x00h\x00s0", b"")).value
    assert value[0] is value
    both = load(b"]2\x86.").value
    assert both[0] is both[1]


def test_frames_and_protocols(oracle):
    assert load(b"\x80\x04\x95\x01" + bytes(7) + b"N.").value is None
    for data in (b"\x95\x02" + bytes(7) + b".", b"\x95" + b"\xff" * 8 + b"N."):
        with pytest.raises(Damaged, match="end of the data"):
            load(data)
        assert not oracle.same(data)
