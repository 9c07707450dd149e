"""Objects that lie in each other: as deep as anybody writes them, and deeper."""

from __future__ import annotations

import collections
import pickle
import struct
import sys
import time

import pytest

from tensorkeep.pickles import run
from tensorkeep.scanning._nesting import MOST
from tensorkeep.scanning.rules import judge_program

DICT = b"ccollections\ndefaultdict\nq\x010cbuiltins\nlist\n\x85q\x020"
NO_SIZE = b"J\xff\xff\xff\xff" * 2
DTYPE = b"cnumpy\ndtype\n\x8c\x02O8\x89\x88\x87R(K\x03\x8c\x01|NNN" + NO_SIZE + b"K?tb"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\nq\x010cnumpy\nndarray\nK\x00\x85C\x01b\x87q\x020"
NEW = b"h\x01h\x02R"
LAST = b"q\x030"


def rules(body):
    return {found.rule for found in judge_program(run(b"\x80\x04" + body + b"."), "data.pkl")}


def dictionaries(count):
    return DICT + b"NK\x000" + LAST + (NEW + b"K\x00h\x03s" + LAST) * count + b"h\x03"


def arrays(count):
    shape_and_dtype = b"K\x01\x85q\x040" + DTYPE + b"q\x050N" + LAST
    filled = b"(K\x01h\x04h\x05\x89]h\x03atb"
    return ARRAY + shape_and_dtype + (NEW + filled + LAST) * count + b"h\x03"


def outer_first(count):
    """Each is put into the one before it while it is empty: no call was deep when it was made."""
    first = DICT + NEW + b"q\x06q\x03"
    return first + (b"K\x00" + NEW + LAST.replace(b"0", b"") + b"s0h\x03") * count + b"0h\x06"


@pytest.mark.parametrize("chain", [dictionaries, arrays, outer_first])
def test_deeper_than_anybody_writes_is_an_attack(chain):
    assert rules(chain(MOST - 2)) == set()
    assert rules(chain(MOST + 2)) == {"pickle/amplification"}
    assert rules(chain(MOST + 2) + b"0N") == {"pickle/amplification"}


def test_a_ring_is_as_deep_as_it_is_long():
    ring = b"h\x06K\x01h\x03s"
    assert rules(dictionaries(0) + NEW + b"q\x06" + LAST + chain_from_last(MOST) + ring) == {
        "pickle/amplification"
    }


def chain_from_last(count):
    return (NEW + b"K\x00h\x03s" + LAST) * count


def test_what_python_writes_at_its_deepest_is_not():
    inner = None
    for _ in range(sys.getrecursionlimit() // 4):
        inner = collections.defaultdict(list, a=inner)
    assert judge_program(run(pickle.dumps(inner)), "x") == []


def test_many_objects_beside_each_other_cost_little():
    numbers = b"".join(b"J" + struct.pack("<i", n) + NEW for n in range(50_000))
    started = time.process_time()
    assert rules(DICT + b"}(" + numbers + b"u") == set()
    assert time.process_time() - started < 5
