"""Laws of diff: of a file and itself it is empty, and it mirrors."""

from __future__ import annotations

import io
import json

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from random_checkpoints import checkpoints, flat, saved

import tensorkeep as tk


@given(checkpoints())
def test_a_file_and_itself(value):
    assume(flat(value))
    data = saved(value)
    report = tk.diff(data, data, section="all")
    assert report.same
    assert not report.differs
    assert report.identical == report.tensors[0] == report.tensors[1]
    assert all(module.frozen for module in report.modules)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["same"] is True


def mirrored(change):
    return {**change, "rel_l2": None, "from": change["to"], "to": change["from"]}


def without(changes):
    return [{**change, "rel_l2": None} for change in changes]


@given(checkpoints(), checkpoints())
def test_the_other_way_round(first, second):
    one, other = saved(first), saved(second)
    there = tk.diff(one, other, section="all").to_dict()
    back = tk.diff(other, one, section="all").to_dict()
    assert there["same"] == back["same"]
    assert sorted(there["added"]) == sorted(back["removed"])
    assert sorted(there["removed"]) == sorted(back["added"])
    key = str
    pairs = [{"from": r["to"], "to": r["from"]} for r in back["renamed"]]
    assert sorted(there["renamed"], key=key) == sorted(pairs, key=key)
    left = sorted(without(there["changed"]), key=key)
    assert left == sorted(map(mirrored, back["changed"]), key=key)
    assert there["identical"] == back["identical"]
    frozen = [{m["name"]: m["frozen"] for m in side["modules"]} for side in (there, back)]
    assert frozen[0] == frozen[1]


@given(checkpoints(), st.data())
def test_one_changed_byte_is_found(value, data):
    names = [name for name, tensor in flat(value).items() if tensor.numel()]
    assume(names)
    loaded = torch.load(io.BytesIO(saved(value)), weights_only=False)
    name = data.draw(st.sampled_from(names))
    tensor = flat(loaded)[name]
    storage, at = tensor.untyped_storage(), tensor.storage_offset() * tensor.element_size()
    storage[at] = storage[at] ^ 1
    report = tk.diff(saved(value), saved(loaded), section="all")
    told = {change.name for change in report.changed}
    assert name in told or any("bytes" in note or "NaN" in note for note in report.notes)
