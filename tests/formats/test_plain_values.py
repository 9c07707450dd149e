"""Values of known classes around the tensors: shown as what they are, never run."""

from __future__ import annotations

import argparse
import math
import pathlib
import types
from collections import Counter, OrderedDict, defaultdict, deque
from enum import Enum

import numpy as np
import pytest
import torch

import tensorkeep as tk
from tensorkeep.formats.contents import Inert, Items


class Colour(Enum):
    RED = 1


class Config(argparse.Namespace):
    pass


def values_of(save, value, **options):
    with tk.open(save({"model": {"w": torch.ones(1)}, "v": value}, **options)) as ckpt:
        return ckpt.values["v"], tk.inspect(save({"v": value}, **options)).to_dict()["values"]["v"]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    "value",
    [None, True, False, 0, -1, 2**31, -(2**63), 10**40, 1.5, "", "text ü", b"", b"\x80\xff"],
    ids=repr,
)
def test_atoms(save, value, protocol):
    found, shown = values_of(save, value, pickle_protocol=protocol)
    assert found == value and type(found) is type(value)
    assert shown == (f"<{len(value)} bytes>" if isinstance(value, bytes) else value)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_numbers_that_json_has_not(save, value):
    found, shown = values_of(save, value)
    assert repr(found) == repr(value) == shown


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, x=[1]), {"x": [1]}),
        (Counter("aab"), {"a": 2, "b": 1}),
        ({"a": {"b": [1, (2, 3)]}}, {"a": {"b": [1, [2, 3]]}}),
        (deque([1, 2]), [1, 2]),
        (frozenset([7]), [7]),
        ({8}, [8]),
        (argparse.Namespace(lr=0.1, name="x"), {"lr": 0.1, "name": "x"}),
        (types.SimpleNamespace(a=1), {"a": 1}),
        (torch.Size([2, 3]), [2, 3]),
        (torch.device("cuda", 1), "cuda:1"),
        (torch.device("cpu"), "cpu"),
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(-3), -3),
        (np.uint8(200), 200),
        (np.bool_(True), True),
        ({1: "int", "1": "text", None: 0.5}, {1: "int", "1": "text", None: 0.5}),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_known_classes(save, value, expected, protocol):
    found, _ = values_of(save, value, pickle_protocol=protocol)
    assert found == expected


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Colour.RED, "Colour"),
        (torch.float16, "torch.float16"),
        (pathlib.PurePosixPath("a/b"), "a/b"),
        (Config(a=1), "Config"),
        (np.zeros(3), "array float64 [3]"),
        (slice(1, 2), "slice"),
        (len, "len"),
    ],
    ids=str,
)
def test_other_objects_are_shown_in_words(save, value, words):
    found, shown = values_of(save, value)
    assert isinstance(found, Inert)
    assert words in shown and len(shown) < 400
    assert not found.unread


def test_tensors_are_found_inside_known_classes(save, agree):
    value = {
        "ordered": OrderedDict(a=torch.ones(2)),
        "default": defaultdict(dict, b={"c": torch.zeros(3)}),
        "list": [torch.ones(1), {"deep": (torch.ones(4), None)}],
        5: torch.ones(5),
    }
    agree(save(value))
    with tk.open(
        save({"n": argparse.Namespace(weights=torch.ones(3)), "d": deque([torch.ones(2)])})
    ) as ckpt:
        assert list(ckpt) == ["n.weights", "d.0"]


def test_attributes_of_a_state_dict(save):
    state = torch.nn.BatchNorm1d(3).state_dict()
    with tk.open(save(state)) as ckpt:
        versions = ckpt.index.attributes[()]["_metadata"]
        assert isinstance(versions, Items)
        assert versions.pairs == [("", {"version": 2})]
