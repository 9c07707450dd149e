"""safetensors beside the official library: what it wrote is read, what we write it wrote too."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, load_model, save_file, save_model
from safetensors.torch import save as save_bytes

import tensorkeep as tk
from tensorkeep.dtypes import BY_NAME
from tensorkeep.errors import Damaged, LimitExceeded, ReadError, Unsupported, Unwritable

HELD = [dtype.name for dtype in BY_NAME.values() if dtype.safetensors]
NOT_HELD = [d.name for d in BY_NAME.values() if not d.safetensors and d.kind == "complex"]
SHAPES = [(), (1,), (0,), (2, 0, 3), (3,), (2, 3), (2, 3, 4), (1, 1, 1, 1, 2)]
NAMES = [
    "", " ", "a", "A", "b.weight", "ü.λ.漢字", "😀", 'quote"d', "back\\slash", "tab\tnew\nline",
    "\x00", "\x01\x1f", "\x7f\x80\x9f", "\b\f\r", "</script>", "\u2028\u2029", "\u202e", "/",
    "name with spaces", "a" * 300, "z.10", "z.9", "__metadata", "dtype", "\ufeff", "\U0010ffff",
]  # fmt: skip
PT = {"format": "pt"}

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")


def shapes_for(dtype):
    """float4 has two numbers in each byte, and a scalar of them has no name in the header."""
    return [shape for shape in SHAPES if shape or dtype != "float4_e2m1fn_x2"]


def everything(random):
    tensors = {}
    for rank, dtype in enumerate(reversed(HELD)):
        for seed, shape in enumerate(shapes_for(dtype)):
            tensors[f"{rank % 3}.{dtype}.{seed}"] = random(dtype, *shape, seed=seed)
    return tensors


def ours(tensors, save, tmp_path):
    target = tmp_path / "ours.safetensors"
    tk.convert(save(tensors), target, section="" if tensors else None)
    return target.read_bytes()


def test_the_library_has_every_dtype_that_the_table_says(random):
    for dtype in HELD:
        header = save_bytes({"a": random(dtype, 4)})[8:]
        name = json.loads(header[: header.index(b"}}") + 2])["a"]["dtype"]
        assert BY_NAME[dtype].safetensors == name
    for dtype in NOT_HELD:
        with pytest.raises((KeyError, SafetensorError, ValueError)):
            save_bytes({"a": random(dtype, 4)})


def test_every_dtype_and_shape_is_written_as_the_library_writes_it(random, save, tmp_path):
    tensors = everything(random)
    save_file(tensors, tmp_path / "theirs.safetensors", metadata=PT)
    assert ours(tensors, save, tmp_path) == (tmp_path / "theirs.safetensors").read_bytes()


@pytest.mark.parametrize("dtype", HELD)
def test_one_dtype(random, save, tmp_path, dtype):
    tensors = {f"t.{i}": random(dtype, *shape) for i, shape in enumerate(shapes_for(dtype))}
    assert ours(tensors, save, tmp_path) == save_bytes(tensors, metadata=PT)


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name)[:20] for name in NAMES])
def test_one_odd_name(random, save, tmp_path, name):
    tensors = {name: random("int16", 3)}
    assert ours(tensors, save, tmp_path) == save_bytes(tensors, metadata=PT)


def test_all_odd_names_at_once(random, save, tmp_path):
    tensors = {name: random("float32", 3, seed=i) for i, name in enumerate(NAMES)}
    assert ours(tensors, save, tmp_path) == save_bytes(tensors, metadata=PT)


@pytest.mark.parametrize("length", range(12))
def test_the_header_is_padded_alike(random, save, tmp_path, length):
    tensors = {"n" * length: random("uint8", 5)}
    assert ours(tensors, save, tmp_path) == save_bytes(tensors, metadata=PT)


def test_views_are_written_contiguous(random, save, tmp_path, bits):
    base = random("bfloat16", 6, 4, 5)
    tensors = {"t": base.permute(2, 0, 1), "s": base[1::2, :, 3], "e": base[:1].expand(3, 4, 5)}
    data = ours(tensors, save, tmp_path)
    assert data == save_bytes({k: v.contiguous() for k, v in tensors.items()}, metadata=PT)


def test_several_metadata_keys(random, tmp_path):
    """The library shuffles them, so that the headers are compared parsed."""
    metadata = {"format": "pt", "note": 'a "b" ü\n\x00', "author": "", "": "x", "z": "1"}
    tensors = {"b": random("float16", 3), "a": random("int64", 2, 2)}
    source = tmp_path / "source.safetensors"
    save_file(tensors, source, metadata=metadata)
    with tk.open(source) as ckpt:
        assert ckpt.metadata == metadata
    tk.convert(source, tmp_path / "ours.safetensors")
    theirs, written = source.read_bytes(), (tmp_path / "ours.safetensors").read_bytes()
    assert len(theirs) == len(written)
    cut = 8 + struct.unpack("<Q", theirs[:8])[0]
    assert written[cut:] == theirs[cut:]
    assert json.loads(written[8:cut]) == json.loads(theirs[8:cut])
    assert list(json.loads(written[8:cut])) == list(json.loads(theirs[8:cut]))


def test_what_the_library_wrote_is_read(random, bits, tmp_path):
    tensors = everything(random) | {n: random("int8", 2) for n in NAMES}
    path = tmp_path / "theirs.safetensors"
    save_file(tensors, path)
    with tk.open(path) as ckpt:
        assert set(ckpt) == set(tensors)
        for name, tensor in load_file(path).items():
            ref = ckpt[name]
            assert (ref.dtype, ref.shape) == (str(tensor.dtype)[6:], tuple(tensor.shape))
            assert ref.read() == bits(tensor) == bits(tensors[name])
        assert ckpt.contents.anomalies == []
        assert ckpt.metadata == {}
    assert tk.scan(path).verdict == "safe"
    assert tk.verify(path).ok


@pytest.mark.parametrize("shape", [(1,), (4,), (2, 3), (0,), (3, 0), (2, 1, 2)])
def test_float4_shapes(random, save, tmp_path, bits, shape):
    tensors = {"w": random("float4_e2m1fn_x2", *shape)}
    data = ours(tensors, save, tmp_path)
    assert data == save_bytes(tensors, metadata=PT)
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    assert header["w"]["shape"] == [*shape[:-1], shape[-1] * 2]
    with tk.open(data) as ckpt:
        assert ckpt["w"].shape == shape
        assert ckpt["w"].read() == bits(tensors["w"])


def test_a_float4_scalar_is_refused(random, save, tmp_path):
    with pytest.raises(Unwritable, match="scalar"):
        ours({"w": random("float4_e2m1fn_x2")}, save, tmp_path)


@pytest.mark.parametrize("shape", [[], [3], [2, 5]])
def test_float4_of_half_a_byte(shape):
    data = built({"w": {"dtype": "F4", "shape": shape, "data_offsets": [0, 2]}}, bytes(2))
    with pytest.raises(Unsupported, match="even last dimension"):
        tk.open(data)


@pytest.mark.parametrize("dtype", [*NOT_HELD, "bits8", "bits16", "bits1x8", "bits2x4", "bits4x2"])
def test_dtypes_that_safetensors_lacks(random, save, tmp_path, dtype):
    path = save({"a.good": random("int8", 2), "a.bad": random(dtype, 4)})
    with pytest.raises(Unwritable, match="--drop-unsupported") as caught:
        tk.convert(path, tmp_path / "out.safetensors")
    assert caught.value.where == "a.bad"
    assert not (tmp_path / "out.safetensors").exists()
    done = tk.convert(path, tmp_path / "out.safetensors", drop_unsupported=True)
    assert ("a.bad", f"safetensors has no {dtype}") in done.left_out
    assert set(load_file(tmp_path / "out.safetensors")) == {"a.good"}


@pytest.mark.parametrize("name", ["__metadata__", "\ud800"])
def test_names_that_safetensors_lacks(random, save, tmp_path, name):
    path = save({"a.b": random("int8", 2), name: random("int8", 2)})
    with pytest.raises(Unwritable):
        tk.convert(path, tmp_path / "out.safetensors")
    tk.convert(path, tmp_path / "out.safetensors", drop_unsupported=True)
    assert set(load_file(tmp_path / "out.safetensors")) == {"a.b"}


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Linear(4, 4)
        self.decoder = torch.nn.Linear(4, 4)
        self.decoder.weight = self.encoder.weight


def test_ties_as_save_model_writes_them(save, tmp_path, bits):
    torch.manual_seed(0)
    model = Tied()
    save_model(model, tmp_path / "theirs.safetensors", metadata=dict(PT))
    tk.convert(save(model.state_dict()), tmp_path / "ours.safetensors")
    ours, theirs = [(tmp_path / f"{who}.safetensors").read_bytes() for who in ("ours", "theirs")]
    cut = 8 + struct.unpack("<Q", theirs[:8])[0]
    assert json.loads(ours[8:cut]) == json.loads(theirs[8:cut])
    assert ours[cut:] == theirs[cut:]
    for who in ("ours", "theirs"):
        with tk.open(tmp_path / f"{who}.safetensors") as ckpt:
            assert set(ckpt) == set(model.state_dict())
            tied = {name for name in ckpt if ckpt[name].tied_to}
            assert tied in ({"decoder.weight"}, {"encoder.weight"})
            for name, tensor in model.state_dict().items():
                assert ckpt[name].read() == bits(tensor)
        fresh = Tied()
        load_model(fresh, tmp_path / f"{who}.safetensors")
        assert torch.equal(fresh.decoder.weight, model.decoder.weight)


def built(header, data=b"", *, length=None, text=None):
    """A file with this header, well formed or not."""
    if text is None:
        text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="U8", shape=(2,), offsets=(0, 2), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


GOOD = entry()
TEXT = b'{"a":{"dtype":"U8","shape":[%s],"data_offsets":[0,%s]}}'
GAP = entry(offsets=(3, 5))
MALFORMED = {
    "too short": b"\x08\0\0\0\0\0\0",
    "header beyond the file": built({"a": GOOD}, b"xx", length=10_000),
    "not JSON": built(None, text=b'{"a" 1}'),
    "JSON cut off": built(None, b"xx", text=json.dumps({"a": GOOD}).encode()[:-1]),
    "trailing comma": built(None, text=b'{"a":1,}'),
    "two objects": built(None, text=b"{}{}"),
    "not UTF-8": built(None, text=b'{"\xff":1}'),
    "deep": built(None, text=b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "lone surrogate": built(None, b"xx", text=json.dumps({"\ud800": GOOD}).encode()),
    "entry is a list": built({"a": [1]}),
    "entry is a number": built({"a": 3}),
    "entry is null": built({"a": None}),
    "no dtype": built({"a": {"shape": [2], "data_offsets": [0, 2]}}, b"xx"),
    "dtype unknown": built({"a": entry("F3")}, b"xx"),
    "dtype is a number": built({"a": entry(7)}, b"xx"),
    "dtype is null": built({"a": entry(None)}, b"xx"),
    "no shape": built({"a": {"dtype": "U8", "data_offsets": [0, 2]}}, b"xx"),
    "shape is a number": built({"a": {**GOOD, "shape": 2}}, b"xx"),
    "shape is text": built({"a": {**GOOD, "shape": "2"}}, b"xx"),
    "shape of text": built({"a": {**GOOD, "shape": ["2"]}}, b"xx"),
    "negative shape": built({"a": entry(shape=(-2,))}, b"xx"),
    "two negative sizes": built({"a": entry(shape=(-1, -2))}, b"xx"),
    "fractional shape": built({"a": {**GOOD, "shape": [2.0]}}, b"xx"),
    "true as a size": built({"a": {**GOOD, "shape": [True, 2]}}, b"xx"),
    "null as a size": built({"a": {**GOOD, "shape": [None]}}, b"xx"),
    "huge shape": built({"a": entry(shape=(2**62, 2**62))}, b"xx"),
    "huge size": built({"a": {**GOOD, "shape": [10**400]}}, b"xx"),
    "not a number": built(None, b"xx", text=TEXT % (b"NaN", b"2")),
    "minus nought": built(None, text=b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,-0]}}'),
    "infinity": built(None, b"xx", text=TEXT % (b"2", b"1e999")),
    "no offsets": built({"a": {"dtype": "U8", "shape": [2]}}, b"xx"),
    "one offset": built({"a": {**GOOD, "data_offsets": [2]}}, b"xx"),
    "three offsets": built({"a": {**GOOD, "data_offsets": [0, 2, 2]}}, b"xx"),
    "offsets reversed": built({"a": entry(offsets=(2, 0))}, b"xx"),
    "negative offset": built({"a": entry(offsets=(-2, 0))}, b"xx"),
    "offsets are text": built({"a": {**GOOD, "data_offsets": ["0", "2"]}}, b"xx"),
    "size does not fit the offsets": built({"a": entry(shape=(3,))}, b"xxx"),
    "offsets beyond the file": built({"a": entry(offsets=(0, 2))}, b"x"),
    "offsets far beyond the file": built({"a": entry(offsets=(2**60, 2**60 + 2))}, b"xx"),
    "two terabytes": built({"a": entry(shape=(2**41,), offsets=(0, 2**41))}, b"xx"),
    "metadata is a list": built({"__metadata__": [], "a": GOOD}, b"xx"),
    "metadata of numbers": built({"__metadata__": {"a": 1}, "b": GOOD}, b"xx"),
    "metadata nested": built({"__metadata__": {"a": {"b": "c"}}, "b": GOOD}, b"xx"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_headers(case, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(MALFORMED[case])
    with pytest.raises(ReadError) as caught:
        tk.open(path)
    assert caught.value.subject == str(path)
    assert caught.value.expected and caught.value.got
    assert len(str(caught.value)) < 1000 + len(str(path))
    with pytest.raises(SafetensorError):
        safe_open(path, "pt")


ODD = {
    "hole between tensors": (built({"a": GOOD, "b": GAP}, b"xx.yy"), "begins at 3"),
    "hole at the front": (built({"a": entry(offsets=(1, 3))}, b".xx"), "begins at 1"),
    "overlap": (built({"a": GOOD, "b": entry(offsets=(1, 3))}, b"xyz"), "begins at 1"),
    "same bytes twice": (built({"a": GOOD, "b": GOOD}, b"xy"), "begins at 0"),
    "trailing bytes": (built({"a": GOOD}, b"xx-----"), "5 bytes follow"),
    "duplicate name": (
        built(None, b"xx", text=b'{"a":%s,"a":%s}' % ((json.dumps(GOOD).encode(),) * 2)),
        "twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_oddities_are_anomalies_and_no_tensor_reads_wrong(case, tmp_path):
    data, words = ODD[case]
    with tk.open(data) as ckpt:
        assert len(ckpt["a"].read()) == 2
    report = tk.inspect(data)
    assert any(words in anomaly.what for anomaly in report.anomalies)
    assert tk.scan(data).verdict == "suspicious"
    assert not tk.verify(data).ok


def test_the_limit_on_headers():
    data = built({"a": GOOD}, b"xx")
    with pytest.raises(LimitExceeded, match="Limits"):
        tk.open(data, limits=tk.Limits(max_json_bytes=10))
    with pytest.raises(ReadError):
        tk.open(struct.pack("<Q", 100_000_001) + b'{"' + bytes(100))


def test_unknown_keys_and_spaces_are_read():
    text = b' {\n "a" : {"dtype":"U8", "shape":[2], "data_offsets":[0,2], "more": 1} }   '.lstrip()
    with tk.open(built(None, b"xy", text=text)) as ckpt:
        assert ckpt["a"].read() == b"xy"


def test_metadata_may_be_null(tmp_path):
    path = tmp_path / "null.safetensors"
    path.write_bytes(built({"__metadata__": None, "a": GOOD}, b"xy"))
    assert list(load_file(path)) == ["a"]
    with tk.open(path) as ckpt:
        assert (ckpt.metadata, ckpt["a"].read()) == ({}, b"xy")


def test_a_file_without_tensors(tmp_path):
    path = tmp_path / "none.safetensors"
    save_file({}, path)
    report = tk.inspect(path)
    assert (report.tensors, report.sections, report.kind) == ([], [], "values")
    with pytest.raises(tk.TensorkeepError, match="none"):
        tk.convert(path, tmp_path / "out.pth")


def test_every_truncation_is_damage(random):
    data = save_bytes({"a": random("int32", 3, 3), "b": random("int8", 7)}, metadata=PT)
    for length in range(9, len(data)):
        with pytest.raises(Damaged):
            tk.open(data[:length])
