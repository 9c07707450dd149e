"""What a file gives to a call and changes afterwards: judged as it was, however long it is."""

from __future__ import annotations

import struct
import time

from tensorkeep.pickles import run
from tensorkeep.scanning.rules import judge_program

PAIRS = b"](K\x01Ne"
ORDERED = b"ccollections\nOrderedDict\n"


def found(pickle):
    return {finding.rule for finding in judge_program(run(pickle), "data.pkl")}


def ordered(pairs, then=b""):
    """An OrderedDict of a list of pairs, the last of them memoized, and what happens then."""
    last = b"](K\x01Neq\x00"
    made = b"\x80\x02" + ORDERED + b"](" + PAIRS * pairs + last + b"e\x85R"
    return made + then + b"."


def test_an_honest_list_of_pairs_is_long():
    assert found(ordered(20_000)) == set()


def test_a_pair_that_is_changed_later_is_found_in_a_long_list():
    # CPython hashed another key than the one that is there at the end.
    late = b"h\x00K\x00K\x02s0"
    assert found(ordered(20_000, late)) == {"pickle/odd-structure"}
    assert found(ordered(1, late)) == {"pickle/odd-structure"}


def test_a_long_list_that_is_given_again_and_again_costs_little():
    again = b"".join(ORDERED + b"h\x01\x85R0" for _ in range(2_000))
    body = b"](" + PAIRS * 20_000 + b"eq\x010" + again + b"]q\x02K\x01a."
    started = time.process_time()
    found(b"\x80\x02" + body)
    assert time.process_time() - started < 5


def test_a_long_tuple_does_not_hide_what_is_changed():
    late = b"j" + struct.pack("<I", 0) + b"K\x00K\x02s0"
    pickle = b"\x80\x02cmodels\nmake\n(" + b"K\x01" * 20_000 + b"](K\x01Neq\x00tR" + late + b"."
    assert "pickle/odd-structure" in found(pickle)
