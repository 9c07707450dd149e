"""From values to names: dots, collisions, keys that are no text, shared parts, hostile trees."""

from __future__ import annotations

import hashlib
import time

import pytest
import torch

import tensorkeep as tk
from tensorkeep.checkpoints.index import Walk, build, names
from tensorkeep.errors import Amplified, BadArgument, LimitExceeded, NameCollision, UnknownTensor
from tensorkeep.facts import Limits
from tensorkeep.formats.contents import Contents, Inert, plain


@pytest.fixture
def saved(tmp_path):
    def saved(value, name="in.pth"):
        torch.save(value, tmp_path / name)
        return tmp_path / name

    return saved


def named(path):
    with tk.open(path) as ckpt:
        return {name: ref.shape[0] for name, ref in ckpt.tensors.items()}


def sized(*sizes):
    return [torch.zeros(size) for size in sizes]


def test_paths_are_joined_with_dots(saved):
    a, b, c = sized(1, 2, 3)
    assert named(saved({"m": {"l.0": {"w": a}, "l.1": b}, "n": [c]})) == {
        "m.l.0.w": 1,
        "m.l.1": 2,
        "n.0": 3,
    }


def test_dots_are_escaped_only_where_names_collide(saved, tmp_path):
    a, b, c = sized(1, 2, 3)
    path = saved({"m": {"l": {"w": a}, "l.w": b, "k.w": c}, "e": {}})
    assert named(path) == {"m.l.w": 1, r"m.l\.w": 2, "m.k.w": 3}
    tk.convert(path, tmp_path / "out.safetensors")
    assert named(tmp_path / "out.safetensors") == {"l.w": 1, r"l\.w": 2, "k.w": 3}


def test_a_collision_that_no_escape_tells_apart_is_refused_when_written(saved):
    a, b = sized(1, 2)
    for value in ({1: a, "1": b}, {"m": {0: a, "0": b}}, {"m": [a], "m.0": b, "m\\.0": a}):
        path = saved(value)
        # Looking is possible, under names that tell the keys apart; writing is not.
        assert len(set(named(path))) == len(named(path)) == 2 + ("m" in value and "m.0" in value)
        with pytest.raises(NameCollision) as caught:
            tk.convert(path, path.parent / "out.safetensors", section="all")
        assert caught.value.remedy
    with pytest.raises(NameCollision):
        names([("a", "b.c"), ("a.b", "c"), ("a\\.b", "c"), ("a.b.c",), ("a\\.b.c",)] * 2, "x")


def test_escaped_names_that_meet_others_are_refused():
    r"""`a\.b` as a key is what `a.b` would be escaped to."""
    with pytest.raises(NameCollision):
        names([("a", "b"), ("a.b",), ("a\\.b",)], "x")


def test_keys_that_are_no_text(saved, tmp_path):
    tensors = sized(1, 2, 3, 4, 5, 6, 7)
    keys = [0, 1.5, None, True, -3, (1, "x"), b"raw"]
    path = saved({"m": dict(zip(keys, tensors, strict=True))})
    found = named(path)
    assert list(found.values()) == [1, 2, 3, 4, 5, 6, 7]
    assert list(found)[:5] == ["m.0", "m.1.5", "m.None", "m.True", "m.-3"]
    tk.convert(path, tmp_path / "out.pth")
    assert list(torch.load(tmp_path / "out.pth"))[0] == "0"


def test_an_empty_key(saved):
    (a,) = sized(1)
    assert named(saved({"": {"": a}})) == {".": 1}
    assert named(saved({"": a})) == {"": 1}


def test_a_tensor_alone_and_in_a_list(saved):
    a, b = sized(1, 2)
    assert list(named(saved(a)).values()) == [1]
    assert named(saved([a, b])) == {"0": 1, "1": 2}
    assert named(saved((a, {"x": b}))) == {"0": 1, "1.x": 2}


def test_a_tensor_alone_converts(saved, tmp_path):
    for ending in ("pth", "safetensors"):
        tk.convert(saved(torch.arange(3.0)), tmp_path / f"out.{ending}")
        with tk.open(tmp_path / f"out.{ending}") as ckpt:
            assert [ref.read() for ref in ckpt.tensors.values()] == [
                torch.arange(3.0).numpy().tobytes()
            ]


def test_shared_subtrees_are_named_at_each_place(saved):
    part = {"w": torch.zeros(3)}
    path = saved({"a": part, "b": part, "c": [part, part]})
    assert named(path) == {"a.w": 3, "b.w": 3, "c.0.w": 3, "c.1.w": 3}
    with tk.open(path) as ckpt:
        assert {ckpt[name].tied_to for name in ("b.w", "c.0.w", "c.1.w")} == {"a.w"}


def test_parts_that_contain_themselves(saved):
    loop = {"w": torch.zeros(3)}
    loop["again"] = loop
    ring = [torch.zeros(1)]
    ring.append({"back": ring})
    path = saved({"loop": loop, "ring": ring})
    assert named(path) == {"loop.w": 3, "ring.0": 1}
    with tk.open(path) as ckpt:
        assert isinstance(ckpt.values["loop"]["again"], Inert)
    assert "contains itself" in str(tk.inspect(path).to_dict()["values"])


def test_values_keep_their_nesting(saved):
    path = saved(
        {"m": {"w": torch.zeros(1), "deep": {"only": [torch.zeros(2)]}}, "a": {"b": [1, 2]}}
    )
    with tk.open(path) as ckpt:
        assert ckpt.values == {"a": {"b": [1, 2]}}


def test_the_limit_on_depth(saved):
    def nested(depth):
        value = torch.zeros(1)
        for _ in range(depth):
            value = {"x": value}
        return Contents("test", "test", value, plain, {})

    value = {"w": 1.5}
    for _ in range(300):
        value = [value]
    with tk.open(saved({"m": {"w": torch.zeros(1)}, "deep": value})) as ckpt:
        assert list(ckpt) == ["m.w"]
    assert tk.inspect(saved({"deep": value})).to_dict()["values"]
    build(nested(1000), Limits(), "x")
    for depth in (1001, 100_000):
        with pytest.raises(LimitExceeded, match="max_depth"):
            build(nested(depth), Limits(), "x")


def test_the_limit_on_what_sharing_writes_out():
    """Thirty lists of two, each holding the next twice: a kilobyte that is a billion leaves."""
    value = [1]
    for _ in range(30):
        value = [value, value]
    with pytest.raises(LimitExceeded, match="max_expansion"):
        build(Contents("test", "test", value, plain, {}), Limits(max_expansion=100_000), "x")


def doubled(times, value):
    for _ in range(times):
        value = [value, value]
    return value


@pytest.mark.parametrize("times", [40, 900, 3000])
def test_doubling_is_amplification_and_told_at_once(times):
    started = time.process_time()
    with pytest.raises(Amplified, match="max_expansion"):
        build(Contents("test", "test", doubled(times, 1), plain, {}), Limits(), "x")
    assert time.process_time() - started < 5  # a million values take longer than the measure


def test_what_an_honest_file_shares_is_no_amplification(saved):
    table = list(range(2000))
    value = [table for _ in range(1000)]
    assert named(saved({"m": {"w": torch.zeros(1)}, "extra": value[:400]})) == {"m.w": 1}
    path = saved({"notes": "x" * 50_000, "extra": value})
    with pytest.raises(LimitExceeded) as caught:
        tk.open(path)
    assert not isinstance(caught.value, Amplified)


def test_a_graph_of_circles_is_too_much_and_no_amplification():
    nodes = [[] for _ in range(12)]
    for node in nodes:
        node += nodes
    with pytest.raises(LimitExceeded, match="max_expansion") as caught:
        build(Contents("test", "test", nodes, plain, {}), Limits(max_expansion=50_000), "x")
    assert not isinstance(caught.value, Amplified)


def test_depth_is_told_where_much_was_walked_before():
    deep = 1
    for _ in range(2000):
        deep = [deep]
    value = [doubled(14, 1), doubled(14, 1), deep]
    with pytest.raises(LimitExceeded, match="max_depth"):
        build(Contents("test", "test", value, plain, {}), Limits(), "x")


def test_sharing_that_a_file_writes_out(saved):
    value = {"w": torch.zeros(1)}
    for _ in range(30):
        value = {"a": value, "b": value}
    with pytest.raises(LimitExceeded) as caught:
        tk.open(saved(value), limits=Limits(max_expansion=100_000))
    assert len(str(caught.value)) < 600


def test_the_mapping(saved):
    a, b = sized(1, 2)
    with tk.open(saved({"m.a": a, "m.b": b})) as ckpt:
        assert ckpt.keys() == list(ckpt) == ["m.a", "m.b"]
        assert len(ckpt) == 2 and "m.a" in ckpt and "x" not in ckpt and 3 not in ckpt
        assert repr(ckpt["m.b"]) == "TensorRef('m.b', float32, [2])"
        with pytest.raises(UnknownTensor):
            ckpt["x"]
        with pytest.raises(KeyError, match="expected the name of a tensor"):
            ckpt["x"]


def test_names_near_one_that_is_not_there(saved):
    (a,) = sized(1)
    with tk.open(saved({"model.body.weight": a, "model.body.bias": a})) as ckpt:
        for given in ("model.body.weigth", "body.weight"):
            with pytest.raises(UnknownTensor, match="Near it: 'model.body.weight'"):
                ckpt[given]
        with pytest.raises(UnknownTensor, match="inspect --tensors"):
            ckpt["qqq"]


@pytest.mark.parametrize("read", [tk.open, tk.inspect, tk.load])
def test_limits_that_are_none(saved, read):
    with pytest.raises(BadArgument, match="limits: expected a Limits, got 5"):
        read(saved({"a": sized(1)[0]}), limits=5)


def test_digests_are_of_the_contiguous_bytes(saved):
    tensor = torch.randn(40, 50)
    with tk.open(saved({"m.a": tensor, "m.b": tensor.t()})) as ckpt:
        for name, view in (("m.a", tensor), ("m.b", tensor.t())):
            data = view.contiguous().numpy().tobytes()
            assert ckpt[name].digest() == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_reading_after_closing_is_an_error_of_ours(saved):
    with tk.open(saved({"m.a": torch.ones(3)})) as ckpt:
        ref = ckpt["m.a"]
        kept = ref.numpy()
    assert kept.tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(tk.TensorkeepError):
        ref.read()


def test_a_small_file_that_doubles_is_weighed_early() -> None:
    with pytest.raises(Amplified):
        tk.open(b"\x80\x02N" + b"2\x86" * 60 + b".")
    with tk.open(b"\x80\x02" + b"]" + b"K\x01a" * 30_000 + b".") as ckpt:
        assert Walk(Limits(), "x", ckpt.contents).budget > 100_000
    with tk.open(b"\x80\x02]K\x01a.") as ckpt:
        # A few thousand steps, and not as many as the limits allow.
        assert Walk(Limits(), "x", ckpt.contents).budget < 20_000
