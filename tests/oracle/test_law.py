"""The law: a file that is safe calls nothing outside the list, and changes nothing but itself.

And its other half: what is called dangerous because of a payload has one that works.
"""

from __future__ import annotations

import json
from pathlib import Path

import tensorkeep as tk

HOSTILE = Path(__file__).resolve().parent.parent / "corpus" / "hostile"
BATCH = 30
# Kinds whose payload lies in a pickle that a loader runs.
RUNS = frozenset("ABCDKL")
LAWS = ("pickle/dangerous-call", "pickle/dangerous-import", "pickle/changes-global")

# Dangerous all the same, but not in the loaders that the oracle has: each with the reason.
ELSEWHERE = {
    "stack_global_computed": "needs the module that it names",
    "pickle_after_stop": "torch stops at STOP; whoever loads on runs the next pickle",
    "name_pyrepl": "Python 3.13 and later have it",
    "way_kept_as_a_factory": "called later, when a key is missing",
}


# What pickle.load takes for a name in the bytes of an honest array of joblib's: there is none such.
ACCIDENTS = {"joblib/objects": "name NumpyArrayWrapper.dtype"}


def test_what_is_safe_does_nothing(honest, oracle):
    honest = {name: path for name, path in honest.items() if tk.scan(path).verdict == "safe"}
    names, paths = list(honest), list(honest.values())
    broken, idle = {}, []
    for start in range(0, len(paths), BATCH):
        outcomes = oracle.files(paths[start : start + BATCH])
        for name, path in zip(names[start:], paths[start : start + BATCH], strict=False):
            outcome = outcomes[str(path)]
            found = [what for what in outcome.broken if what != ACCIDENTS.get(name)]
            if found:
                broken[name] = found[:5]
            if not outcome.loaded:
                idle.append(name)
        assert "" not in outcomes
    assert broken == {}
    # Where nothing was loaded nothing was proven. Safetensors are not unpickled, torch 2.13 cannot
    # load the untyped storage that it pickles, and exported programs have a loader of their own.
    unloaded = ("safetensors", "untyped-storage", "export/")
    assert [name for name in idle if not any(part in name for part in unloaded)] == []
    assert len(paths) >= 150


def hostile():
    """The file of each case that has a payload, and the rules that say so."""
    for path in sorted(HOSTILE.glob("*/expected.json")):
        expected = json.loads(path.read_text())
        rules = set(expected["rules"]) & set(LAWS)
        if expected["kind"] in RUNS and rules:
            (file,) = (each for each in path.parent.iterdir() if each != path)
            yield path.parent.name, file, "pickle/changes-global" in rules


def test_what_is_dangerous_has_a_payload_that_works(oracle):
    cases = list(hostile())
    outcomes = oracle.together([file for _, file, changes in cases if not changes])
    outcomes |= {str(file): oracle.file(file) for _, file, changes in cases if changes}
    tame = {name for name, file, _ in cases if not outcomes[str(file)].works}
    assert tame == set(ELSEWHERE)
    assert len(cases) >= 100
