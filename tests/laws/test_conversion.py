"""Laws of conversion, tried on random checkpoints: nothing is lost, everything adds up."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_checkpoints import bits, checkpoints, flat, saved

import tensorkeep as tk
from tensorkeep.checkpoints.writing import Plan, shards


@given(checkpoints())
def test_there_and_back_is_equal_bit_for_bit(tmp_path, value):
    data = saved(value)
    expected = flat(torch.load(io.BytesIO(data), weights_only=False))
    first, second = tmp_path / "a.safetensors", tmp_path / "b.pth"
    # A file of loose tensors alone is flat; it has one section, and "all" takes that too.
    tk.convert(data, first, section="all", overwrite=True)
    tk.convert(first, second, section="all", overwrite=True, verify=True)
    loaded = torch.load(second, weights_only=True)
    assert set(loaded) == set(expected)
    for name, tensor in expected.items():
        other = loaded[name]
        assert (other.dtype, other.shape) == (tensor.dtype, tensor.shape)
        assert bits(other) == bits(tensor)
    if expected["weights.first"].numel():
        assert loaded["weights.first"].data_ptr() == loaded["weights.again"].data_ptr()
    assert tk.scan(data).verdict == tk.scan(second).verdict == "safe"


@given(checkpoints())
def test_what_inspect_says_adds_up(value):
    data = saved(value)
    report = tk.inspect(data)
    shown = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    expected = flat(value)
    tensors = {tensor["name"]: tensor for tensor in shown["tensors"]}
    assert set(tensors) == set(expected)
    for name, tensor in expected.items():
        assert tensors[name]["shape"] == list(tensor.shape)
        assert tensors[name]["bytes"] == tensor.numel() * tensor.itemsize
        assert tensors[name]["dtype"] == str(tensor.dtype)[6:]
        kept = tensors[name]["tied_to"]
        assert kept is None or (
            tensors[kept]["tied_to"] is None
            and bits(expected[kept]) == bits(tensor)
            and tensors[kept]["storage"] == tensors[name]["storage"]
        )
    for section in shown["sections"]:
        inside = [tensor for tensor in shown["tensors"] if tensor["section"] == section["name"]]
        own = [tensor for tensor in inside if tensor["tied_to"] is None]
        assert section["tensors"] == len(inside)
        assert section["bytes"] == sum(tensor["bytes"] for tensor in own)
    assert sum(section["tensors"] for section in shown["sections"]) == len(tensors)
    assert 0 <= shown["dead_bytes"] <= shown["bytes"] == len(data)
    assert shown["bytes_read"] > 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.integers(1, 100), st.data())
def test_shards_partition(sizes, limit, data):
    outputs = [
        SimpleNamespace(name=str(i), nbytes=size, together=None) for i, size in enumerate(sizes)
    ]
    kept = data.draw(st.lists(st.sampled_from(range(len(sizes))), max_size=5))
    aliases = {f"alias {i}": str(which) for i, which in enumerate(kept)}
    plan = Plan(outputs, [*(o.name for o in outputs), *aliases], aliases, {})
    parts = shards(plan, limit)
    assert [output for part in parts for output in part.outputs] == outputs
    assert sorted(name for part in parts for name in part.names) == sorted(plan.names)
    for part in parts:
        assert part.outputs
        assert part.nbytes <= limit or len(part.outputs) == 1
        inside = {output.name for output in part.outputs}
        assert set(part.aliases.values()) <= inside
    # No two neighbours would have fitted together.
    for left, right in zip(parts, parts[1:], strict=False):
        assert left.nbytes + right.outputs[0].nbytes > limit


@pytest.mark.parametrize("to", ["safetensors", "torch"])
def test_parts_on_disk_hold_each_tensor_once(tmp_path, to):
    @given(checkpoints(), st.integers(1, 200))
    def law(value, size):
        data = saved(value)
        report = tk.convert(
            data, f"{tmp_path}/out/", to=to, section="all", shard_size=size, overwrite=True
        )
        expected = flat(value)
        with tk.open(tmp_path / "out") as ckpt:
            assert set(ckpt) == set(expected)
            assert ckpt.contents.anomalies == []
            for name, tensor in expected.items():
                assert ckpt[name].read() == bits(tensor)
        assert {path.name for path in (tmp_path / "out").iterdir()} == set(report.files)

    law()


def test_empty_tensors_do_not_shift_their_neighbours(tmp_path):
    base = torch.arange(42.0).to(torch.complex64)
    value = {
        "a": base.as_strided((2, 1), (9, 0), 7),  # gathered, so it is no part of a batch
        "b": base[7:8],
        "0first": base[12:12],
        "0again": base[12:12],
        "c": base[20:23],
    }
    torch.save(value, tmp_path / "x.pth")
    tk.convert(tmp_path / "x.pth", tmp_path / "x.safetensors", verify=True)
    read = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert read.keys() == value.keys()
    assert all(torch.equal(read[name], value[name]) for name in value)
