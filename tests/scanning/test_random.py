"""numpy's generators: safe as numpy writes them; a position outside a buffer is not taken."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from tensorkeep.pickles import run
from tensorkeep.scanning.rules import judge_program


def rules(value, protocol=4):
    return {f.rule for f in judge_program(run(pickle.dumps(value, protocol)), "data.pkl")}


class Given:
    """Pickles as a bit generator with a state of the test's choosing."""

    def __init__(self, generator, state):
        self.call = generator.__reduce__()
        self.state = state

    def __reduce__(self):
        return self.call[0], self.call[1], self.state


def changed(generator, **changes):
    state = generator.state
    inner = {key: changes.pop(key) for key in list(changes) if key in state["state"]}
    return Given(generator, {**state, **changes, "state": {**state["state"], **inner}})


@pytest.mark.parametrize(
    "value",
    [
        changed(np.random.MT19937(1)),
        changed(np.random.Philox(1), buffer_pos=4),
        changed(np.random.PCG64(1), has_uint32=1),
        (changed(np.random.SFC64(1)), None),
    ],
)
def test_a_state_within_its_bounds_is_safe(value):
    # numpy before 1.24 wrote the dictionary alone.
    assert rules(value) == set()


@pytest.mark.parametrize(
    "value",
    [
        changed(np.random.MT19937(1), pos=625),
        changed(np.random.MT19937(1), pos=-1),
        changed(np.random.MT19937(1), pos=True),
        changed(np.random.MT19937(1), key=[1]),
        changed(np.random.Philox(1), buffer_pos=5),
        changed(np.random.Philox(1), buffer_pos=-3),
        changed(np.random.PCG64(1), unheard=1),
        changed(np.random.PCG64(1), has_uint32="1"),
        Given(np.random.PCG64(1), {"bit_generator": "PCG64"}),
        Given(np.random.PCG64(1), (np.random.PCG64(1).state, "seed")),
    ],
)
def test_a_state_beyond_them_is_not(value):
    assert rules(value) == {"pickle/odd-effect"}
