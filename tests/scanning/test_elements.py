"""Arrays whose elements fill no bytes: nothing in the file bounds how many there are."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from tensorkeep.pickles import run
from tensorkeep.scanning.rules import judge_program


def found(array, protocol):
    return judge_program(run(pickle.dumps(array, protocol=protocol)), "data.pkl")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_few_are_honest_and_a_billion_are_not(protocol):
    assert found(np.zeros(3, "V0"), protocol) == []
    many = found(np.zeros(1 << 30, "V0"), protocol)
    assert [finding.rule for finding in many] == ["pickle/odd-effect"]
