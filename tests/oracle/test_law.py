"""The law: a file that is safe calls nothing outside the list, and changes nothing but itself.

And its other half: what is called dangerous because of a payload has one that works.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from catalogue import CASES

import tensorkeep as tk

HOSTILE = Path(__file__).resolve().parent.parent / "corpus" / "hostile"
BATCH = 30
# Kinds whose payload lies in a pickle that a loader runs.
RUNS = frozenset("ABCDL")
LAWS = ("pickle/dangerous-call", "pickle/dangerous-import", "pickle/changes-global")

# Dangerous all the same, but not for the loaders that the oracle has, each with the reason.
ELSEWHERE: dict[str, str] = {}


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """Every honest file that is safe, by its case."""
    folder = tmp_path_factory.mktemp("honest")
    paths = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, (name, write) in enumerate(CASES.items()):
            place = folder / str(number)
            place.mkdir()
            write(place)
            files = list(place.iterdir())
            path = files[0] if len(files) == 1 else place
            if tk.scan(path).verdict == "safe":
                paths[name] = path
    return paths


def test_what_is_safe_does_nothing(honest, oracle):
    names, paths = list(honest), list(honest.values())
    broken, idle = {}, []
    for start in range(0, len(paths), BATCH):
        outcomes = oracle.files(paths[start : start + BATCH])
        for name, path in zip(names[start:], paths[start : start + BATCH], strict=False):
            outcome = outcomes[str(path)]
            if outcome.broken:
                broken[name] = outcome.broken[:5]
            if not outcome.loaded:
                idle.append(name)
        assert "" not in outcomes
    assert broken == {}
    # Where nothing was loaded nothing was proven: only safetensors are not unpickled.
    assert [name for name in idle if "safetensors" not in name] == []
    assert len(paths) >= 100


def hostile():
    for path in sorted(HOSTILE.glob("*/expected.json")):
        expected = json.loads(path.read_text())
        if expected["kind"] in RUNS and set(expected["rules"]) & set(LAWS):
            (file,) = (each for each in path.parent.iterdir() if each != path)
            yield path.parent.name, file


def test_what_is_dangerous_has_a_payload_that_works(oracle):
    cases = dict(hostile())
    outcomes = oracle.together(cases.values())
    tame = {name for name, file in cases.items() if not outcomes[str(file)].broken}
    assert tame == set(ELSEWHERE)
    assert len(cases) >= 15
