"""The order of verdicts."""

from __future__ import annotations

import itertools

import pytest

from tensorkeep.scanning.verdicts import ORDER, verdict, worst
from tensorkeep.scanning.words import RULES, finding

_ONE = {"suspicious": "pickle/unknown-call", "unknown": "read/damaged"}
_ONE["dangerous"] = "pickle/dangerous-call"


def test_nothing_found_is_safe():
    assert verdict([]) == "safe"


@pytest.mark.parametrize("first", _ONE)
def test_one_finding_decides(first):
    assert verdict([finding(_ONE[first], "x", "y")]) == first


def test_the_worst_wins_in_any_order():
    for some in itertools.permutations(_ONE, 2):
        found = [finding(_ONE[severity], "x", "y") for severity in some]
        assert verdict(found) == max(some, key=ORDER.index)
    assert ORDER == ("safe", "suspicious", "unknown", "dangerous")


def test_several_verdicts_make_one():
    assert worst(["safe", "suspicious"]) == "suspicious"
    assert worst([]) == "safe"


def test_every_rule_has_a_severity_that_counts():
    assert {text.severity for text in RULES.values()} == {"suspicious", "unknown", "dangerous"}
