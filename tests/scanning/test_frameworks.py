"""Plain classes of frameworks: safe as holders of values, and nothing more."""

from __future__ import annotations

import pickle

import pytest

from tensorkeep.pickles import run
from tensorkeep.scanning.rules import judge_program

SAMPLER = b"\x80\x02caccelerate.data_loader\nSeedableRandomSampler\n)\x81"
DICTIONARY = b"\x80\x02clightning.fabric.utilities.data\nAttributeDict\n)\x81"


def rules(program):
    return {f.rule for f in judge_program(run(program), "data.pkl")}


def state(value):
    return pickle.dumps(value, 2)[2:-1] + b"b."


def test_values_are_what_they_hold():
    assert rules(SAMPLER + state({"epoch": 1, "generator": None, "_num_samples": 4})) == set()
    assert rules(DICTIONARY + b"X\x02\x00\x00\x00lrK\x01s.") == set()


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"set_epoch": 1}, "pickle/shadowing-key"),
        ({"__iter__": 1}, "pickle/shadowing-key"),
        ({"extend": 1}, "pickle/shadowing-key"),
        ({"generator": {"manual_seed": 1}}, "pickle/odd-effect"),
        ({"epoch": int}, "pickle/odd-effect"),
        ([1], "pickle/odd-effect"),
    ],
)
def test_what_its_class_would_call_is_not_taken(given, rule):
    assert rules(SAMPLER + state(given)) == {rule}


def test_a_dictionary_takes_no_state():
    # Its __getattr__ would find a __setstate__ among its own items.
    assert rules(DICTIONARY + state({"a": 1})) == {"pickle/odd-effect"}
    assert rules(DICTIONARY + b"K\x01a.") == {"pickle/odd-effect"}
