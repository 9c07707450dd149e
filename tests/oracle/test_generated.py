"""Composed programs that are safe keep the law: a few here, as many as an hour has in the long run.

What was found so stands in `docs/campaigns.md`, and in the tests of the rules that came of it.
"""

from __future__ import annotations

import os

import pytest
from hunting import Hunt, pickles_of

PROGRAMS = 700
LONG_SECONDS = float(os.environ.get("HUNT_SECONDS", "1800"))


def hunt(oracle, honest, folder, seed, programs, seconds):
    hunted = Hunt(oracle, folder, pickles_of(honest.values()), seed)
    hunted.go(programs, seconds)
    return hunted


def told(hunted):
    """What broke the law, with the file in hexadecimal: it is gone when the test ends."""
    return [(outcome.broken[:5], data.hex()) for data, outcome in hunted.found.items()]


def test_a_composed_program_that_is_safe_keeps_the_law(oracle, honest, tmp_path):
    hunted = hunt(oracle, honest, tmp_path, 20, PROGRAMS, 10_000)
    assert told(hunted) == []
    # A generator of nothing but refused programs, or of none that load, would find nothing.
    assert hunted.counts["safe"] >= PROGRAMS // 8
    assert hunted.counts["dangerous"] and hunted.counts["suspicious"]
    assert hunted.loaded >= hunted.counts["safe"] * 0.8


@pytest.mark.long
def test_many_composed_programs_keep_the_law(oracle, honest, tmp_path):
    hunted = hunt(oracle, honest, tmp_path, os.getpid(), 10**9, LONG_SECONDS)
    print(dict(hunted.counts), "loaded:", hunted.loaded)
    assert told(hunted) == []
