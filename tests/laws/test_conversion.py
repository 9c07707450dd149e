"""Laws of conversion, tried on random checkpoints: nothing is lost, everything adds up."""

from __future__ import annotations

import io
import json
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorkeep as tk
from tensorkeep.checkpoints.writing import Plan, shards
from tensorkeep.dtypes import BY_NAME

CARRIERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
DTYPES = [d.name for d in BY_NAME.values() if d.safetensors]
KEYS = st.text(st.characters(codec="utf-8", exclude_characters="."), max_size=8)


def bits(tensor):
    # numpy writes any strides out contiguous; its integers have no NaN to be changed.
    return tensor.detach().view(CARRIERS[tensor.dtype.itemsize]).numpy().tobytes()


@st.composite
def storages(draw):
    """Random bytes as elements of a random dtype; as long as the views below need at most."""
    dtype = getattr(torch, draw(st.sampled_from(DTYPES)))
    length = draw(st.integers(0, 40))
    seed = draw(st.integers(0, 2**16))
    count = length * dtype.itemsize
    generator = torch.Generator().manual_seed(seed)
    data = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator)
    if dtype is torch.bool:
        data &= 1
    return data.view(CARRIERS[dtype.itemsize]), dtype


@st.composite
def views(draw, pool):
    """A view of one of the storages with any strides that stay inside it."""
    carrier, dtype = draw(st.sampled_from(pool))
    if carrier.numel() == 0:
        shape = draw(st.lists(st.integers(0, 3), max_size=2))
        return carrier.new_empty([*shape, 0]).view(dtype)
    offset = draw(st.integers(0, carrier.numel() - 1))
    room = carrier.numel() - 1 - offset
    least = 1 if dtype is torch.float4_e2m1fn_x2 else 0
    shape, stride = [], []
    for _ in range(draw(st.integers(least, 4))):
        size = draw(st.integers(0, 5))
        step = draw(st.integers(0, room // (size - 1) if size > 1 else 7))
        room -= max(size - 1, 0) * step
        shape.append(size)
        stride.append(step)
    view = carrier.as_strided(shape, stride, offset).view(dtype)
    if draw(st.booleans()) and dtype.is_floating_point:
        view = torch.nn.Parameter(view, requires_grad=False)
    return view


@st.composite
def checkpoints(draw):
    """Nested dicts of such views, with plain values between them and tensors used twice."""
    pool = draw(st.lists(storages(), min_size=1, max_size=4))
    leaves = draw(st.lists(views(pool), min_size=1, max_size=6))
    leaf = st.sampled_from(leaves) | st.integers() | st.text(max_size=3) | st.none()
    tree = st.recursive(leaf, lambda inner: st.dictionaries(KEYS, inner, max_size=4), max_leaves=10)
    value = draw(st.dictionaries(KEYS, tree, max_size=4))
    value["weights"] = OrderedDict({"first": leaves[0], "again": leaves[0]})
    return value


def flat(value, path=()):
    if isinstance(value, torch.Tensor):
        return {".".join(path): value}
    pairs = value.items() if isinstance(value, dict) else ()
    return {name: t for key, item in pairs for name, t in flat(item, (*path, key)).items()}


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


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
    outputs = [SimpleNamespace(name=str(i), nbytes=size) for i, size in enumerate(sizes)]
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
