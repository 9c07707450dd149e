"""Jagged nested tensors: what torch writes has no finding, and nothing else passes for one."""

from __future__ import annotations

import io
import warnings
import zipfile

import pytest
import torch

from tensorkeep.pickles import run
from tensorkeep.scanning.rules import judge_program


@pytest.fixture(scope="module")
def honest() -> bytes:
    """The pickle of one, at protocol 2."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = [torch.ones(2, 3), torch.ones(1, 3)]
        tensor = torch.nested.nested_tensor(parts, layout=torch.jagged)
        file = io.BytesIO()
        torch.save(tensor, file)
    with zipfile.ZipFile(file) as archive:
        return archive.read("archive/data.pkl")


def rules(data: bytes) -> set[str]:
    return {found.rule for found in judge_program(run(data), "data.pkl")}


def test_what_torch_writes_has_no_finding(honest):
    assert rules(honest) == set()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"_rebuild_njt", b"_rebuild_xyz"),
        (b"NestedTensor", b"NestedSensor"),
        (b"_dynamo_propagated_dynamic_indices", b"_dynamo_propagated_dynamic_indicez"),
        (b"\x07\x00\x00\x00offsets", b"\x07\x00\x00\x00forward"),
        (b"\x0a\x00\x00\x00max_seqlen", b"\x0a\x00\x00\x00__reduce__"),
        (b"\x07\x00\x00\x00_values", b"\x07\x00\x00\x00__add__"),
    ],
)
def test_anything_else_is_no_jagged_tensor(honest, old, new):
    assert old in honest
    # The last one: torch's compiler marks inner tensors by the same attribute.
    at = honest.rindex(old)
    assert rules(honest[:at] + new + honest[at + len(old) :]) - {"pickle/shadowing-key"}


@pytest.mark.parametrize(
    "state", [b"]", b"](K\x00NX\x01\x00\x00\x00xe", b"](K\x00Ncos\ngetpid\ne", b"(K\x00NNt", b"}"]
)
def test_the_bounds_are_three_numbers(state):
    head = b"\x80\x02ctorch._dynamo.decorators\n_DimRange\n)\x81"
    assert rules(head + b"](K\x00NK\x05eb.") == set()
    assert rules(head + state + b"b.") != set()
