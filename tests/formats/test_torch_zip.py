"""What torch.save writes, read bit for bit: every dtype, layout and writer option."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections import OrderedDict

import pytest
import torch
from torch.utils.serialization import config

import tensorkeep as tk
from tensorkeep.dtypes import BY_NAME
from tensorkeep.errors import Damaged, Unsupported

ALL = [dtype.name for dtype in BY_NAME.values()]
SUB_BYTE = [f"{sign}int{width}" for sign in ("", "u") for width in range(1, 8)]
QUANTISED = ["quint8", "qint8", "qint32", "quint4x2", "quint2x4"]
SAVED = [name for name in ALL if name not in [*SUB_BYTE, *QUANTISED]]

pytestmark = [
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
]


def test_the_table_knows_every_dtype_of_torch():
    found = {str(value)[6:] for value in vars(torch).values() if isinstance(value, torch.dtype)}
    assert found == set(ALL)
    assert {name: getattr(torch, name).itemsize for name in ALL} == {
        name: BY_NAME[name].itemsize for name in ALL
    }


@pytest.mark.parametrize("name", SUB_BYTE)
def test_what_torch_itself_cannot_save(name):
    with pytest.raises(KeyError, match="not recognized"):
        torch.save(torch.empty(2, dtype=getattr(torch, name)), io.BytesIO())


def layouts(random, dtype):
    """Views of many shapes, each over its own storage unless the name says otherwise."""
    cube = [random(dtype, 4, 6, 5, seed=seed) for seed in range(12)]
    shared = random(dtype, 8, 6, seed=50)
    last = random(dtype, 2, 4, 5, 3, seed=51).permute(0, 3, 1, 2)
    return {
        "scalar": random(dtype),
        "one": random(dtype, 1),
        "empty": random(dtype, 0),
        "empty_inside": random(dtype, 3, 0, 2),
        "contiguous": cube[0],
        "transposed": cube[1].transpose(0, 2),
        "permuted": cube[2].permute(1, 2, 0),
        "expanded": cube[3][:1].expand(7, 6, 5),
        "expanded_scalar": random(dtype).expand(3, 2),
        "expanded_empty": random(dtype, 0, 1).expand(0, 9),
        "offset": cube[4][2],
        "stepped": cube[5][1::2, ::3, 1:],
        "as_strided": cube[6].as_strided((3, 4, 2), (1, 2, 3), 5),
        "overlapping": cube[7].reshape(-1).unfold(0, 10, 3),
        "diagonal": cube[8].diagonal(dim1=0, dim2=1),
        "channels_last": last,
        "zero_offset_slice": cube[9][:2],
        "at_the_end": cube[10].reshape(-1)[-1:],
        "shared": shared,
        "shared_top": shared[:4],
        "shared_bottom": shared[4:],
        "shared_transposed": shared.t(),
        "shared_same": shared,
        "shared_column": shared[:, 2],
    }


@pytest.mark.parametrize("dtype", SAVED)
def test_every_dtype_in_every_layout(random, save, agree, dtype):
    path = save(layouts(random, dtype))
    expected = agree(path)
    with tk.open(path) as ckpt:
        assert ckpt["shared_same"].tied_to == "shared"
        assert ckpt["shared_top"].tied_to is None
        shared = {ckpt[name].record.storage.key for name in ckpt if name.startswith("shared")}
        assert len(shared) == 1
        for name, tensor in expected.items():
            record = ckpt[name].record
            assert (record.stride, record.offset) == (tensor.stride(), tensor.storage_offset())


@pytest.mark.parametrize("dtype", [name for name in SAVED if BY_NAME[name].numpy])
def test_numpy_arrays_are_the_same(random, save, dtype):
    tensors = {"a": random(dtype, 3, 4), "b": random(dtype), "c": random(dtype, 2, 6).t()}
    with tk.open(save(tensors)) as ckpt:
        for name, tensor in tensors.items():
            array = ckpt[name].numpy()
            assert array.shape == tuple(tensor.shape)
            assert array.tobytes() == tensor.contiguous().numpy().tobytes()
            assert array.flags.writeable


def test_numpy_says_which_dtypes_it_lacks(random, save):
    with tk.open(save({"a": random("bfloat16", 2)})) as ckpt, pytest.raises(Unsupported) as caught:
        ckpt["a"].numpy()
    assert caught.value.got == "bfloat16"


@pytest.mark.parametrize("dtype", ["complex32", "complex64", "complex128"])
def test_conjugated_and_negated_views(random, save, bits, dtype):
    # No NaN: torch computes complex32 in float32, which makes signalling NaN quiet.
    made = [torch.randn(3, 4, dtype=torch.complex64).to(getattr(torch, dtype)) for _ in range(5)]
    tensors = {
        "conj": made[0].conj(),
        "conj_transposed": made[1].mH,
        "neg_imaginary": made[2].conj().imag,
        "neg_transposed": made[3].conj().imag.t()[1:],
        "neg_real": torch._neg_view(random("float32", 5)),
        "neg_of_integers": torch._neg_view(random("int64", 9)),
        "neg_of_short_integers": torch._neg_view(torch.arange(-128, 128, dtype=torch.int8)),
        "neg_of_unsigned": torch._neg_view(torch.arange(256, dtype=torch.uint8))
        .reshape(2, 128)
        .t(),
        "neg_of_bfloat": torch._neg_view(torch.tensor([0.0, -0.0, 1.5], dtype=torch.bfloat16)),
    }
    if dtype != "complex32":  # torch cannot resolve both at once there
        tensors["neg_and_conj"] = torch._neg_view(made[4].conj())
    assert tensors["conj"].is_conj() and tensors["neg_imaginary"].is_neg()
    path = save(tensors)
    with tk.open(path) as ckpt:
        for name, tensor in torch.load(path).items():
            assert ckpt[name].read() == bits(tensor), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64", "float8_e5m2"])
def test_parameters_attributes_and_buffers(random, save, agree, dtype):
    Parameter = torch.nn.Parameter
    noted, marked, both = random(dtype, 2), Parameter(random(dtype, 3)), random(dtype, 4, 4)
    noted.note = {"why": [1, 2, "x"]}
    marked.note = "kept"
    both.note = 1
    # torch 2.13 saves a float8 tensor that wants a gradient and then fails to load it.
    wants_grad = BY_NAME[dtype].storage != "UntypedStorage"
    both.requires_grad_(wants_grad)
    value = {
        "plain": random(dtype, 2, 2),
        "wants_grad": random(dtype, 2, 2, seed=1).requires_grad_(wants_grad),
        "parameter": Parameter(random(dtype, 2, 2)),
        "frozen": Parameter(random(dtype, 2, 2), requires_grad=False),
        "view": Parameter(random(dtype, 4, 3).t()),
        "noted": noted,
        "marked": marked,
        "both": both,
        "buffer": torch.nn.Buffer(random(dtype, 3)),
        "lost_buffer": torch.nn.Buffer(random(dtype, 3), persistent=False),
    }
    path = save(value)
    agree(path)
    with tk.open(path) as ckpt:
        assert {name for name in ckpt if ckpt[name].record.parameter} == {
            "parameter",
            "frozen",
            "view",
            "marked",
        }
        assert not ckpt["frozen"].record.requires_grad


def test_a_parameter_that_was_trained(save, agree):
    model = torch.nn.Linear(3, 2)
    model(torch.ones(1, 3)).sum().backward()
    agree(save({"parameters": list(model.parameters()), "state": model.state_dict()}))


def test_a_module_with_its_versions(save, agree):
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 2), torch.nn.BatchNorm2d(3))
    path = save(model.state_dict())
    agree(path)
    with tk.open(path) as ckpt:
        assert ckpt.kind == "state_dict"
        assert ckpt.unread("all") == []


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["float32", "uint64", "float8_e4m3fn"])
def test_pickle_protocols(random, save, agree, protocol, dtype):
    value = {
        "weights": layouts(random, dtype),
        "epoch": 3,
        "big": 1 << 200,
        "bytes": b"\x00\xff",
        "name": "ü" * 300,
        "nested": OrderedDict(a=[torch.nn.Parameter(random("float16", 2))], b=(random(dtype, 1),)),
    }
    path = save(value, pickle_protocol=protocol)
    agree(path)
    with tk.open(path) as ckpt:
        assert ckpt.contents.programs[0][1].protocol == protocol
        assert ckpt.values["epoch"] == 3
        assert ckpt.values["big"] == 1 << 200
        assert ckpt.values["bytes"] == b"\x00\xff"
        assert ckpt.values["name"] == "ü" * 300


def test_without_checksums(random, save, agree):
    torch.serialization.set_crc32_options(False)
    try:
        path = save({"a": random("float32", 300), "b": random("int8", 5)})
    finally:
        torch.serialization.set_crc32_options(True)
    agree(path)
    with tk.open(path) as ckpt:
        assert not ckpt.contents.digests
    report = tk.verify(path)
    assert (report.ok, report.checked) == (True, "structure")
    assert tk.scan(path).verdict == "safe"


def test_with_checksums_by_default(random, save):
    report = tk.verify(save({"a": random("float32", 300)}))
    assert (report.ok, report.checked) == (True, "digests")


@pytest.mark.parametrize("alignment", [1, 256, 4096, 65536])
def test_storage_alignment(random, save, agree, alignment):
    with config.patch("save.storage_alignment", alignment):
        path = save(layouts(random, "float32"))
    agree(path)
    with tk.open(path) as ckpt:
        offsets = [ckpt[name].record.storage.offset for name in ckpt if ckpt[name].nbytes]
        assert all(offset % alignment == 0 for offset in offsets)
        assert ckpt.contents.facts[".storage_alignment"] == str(alignment)
    assert tk.scan(path).verdict == "safe"


def test_the_byteorder_record_of_the_writer_itself(random, save, agree):
    """torch's zip writer adds the record when the Python above it was told not to."""
    agree(save(layouts(random, "float64"), _disable_byteorder_record=True))


@pytest.mark.parametrize("name", ["archive.pth", "a b.c.d.pt", "größe λ.bin", "no_ending"])
def test_root_folders_of_any_name(random, save, agree, name):
    path = save(layouts(random, "float32"), name)
    agree(path)


def test_a_root_of_any_name_out_of_a_buffer(random, agree):
    buffer = io.BytesIO()
    torch.save({"a": random("int16", 3)}, buffer)
    expected = torch.load(io.BytesIO(buffer.getvalue()))
    for source in (buffer.getvalue(), bytearray(buffer.getvalue()), io.BytesIO(buffer.getvalue())):
        agree(source, expected)


def repacked(path, target, change=lambda name, data: data, **options):
    """The archive written anew by Python's zipfile, each member through `change`."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", **options) as new:
        for info in old.infolist():
            data = change(info.filename.partition("/")[2], old.read(info))
            if data is not None:
                with new.open(zipfile.ZipInfo(info.filename), "w", force_zip64=True) as member:
                    member.write(data)
    return target


def test_zip64_members(random, save, agree, tmp_path):
    path = repacked(save(layouts(random, "int32")), tmp_path / "zip64.pth")
    agree(path)


@pytest.mark.parametrize("dtype", SAVED)
def test_big_endian(random, save, agree, tmp_path, dtype):
    """The same bytes under a record that says "big": torch turns each element round, so do we."""
    path = save(layouts(random, dtype))

    def big(name, data):
        return b"big" if name == "byteorder" else data

    turned = repacked(path, tmp_path / "big.pth", big)
    agree(turned)


def test_without_a_byteorder_record(random, save, agree, tmp_path):
    """As torch 1.6 to 2.0 wrote: no record means little-endian."""

    def without(name, data):
        return None if name in ("byteorder", ".format_version", ".storage_alignment") else data

    path = repacked(save(layouts(random, "float64")), tmp_path / "old.pth", without)
    agree(path)
    with tk.open(path) as ckpt:
        assert "byteorder" not in ckpt.contents.facts
        assert ckpt.writer == "torch.save (torch 1.6 to 2.0, or a compatible writer)"


def test_a_byteorder_that_is_none(random, save, tmp_path):
    def odd(name, data):
        return b"middle" if name == "byteorder" else data

    path = repacked(save({"a": random("int16", 3)}), tmp_path / "odd.pth", odd)
    with pytest.raises(Damaged, match="byteorder"):
        tk.open(path)


@pytest.fixture
def packed(tmp_path):
    """Write a checkpoint whose storages are deflated, as a zip tool packs it again."""

    def write(change=lambda data: data, **tensors):
        plain, path = tmp_path / "plain.pth", tmp_path / "packed.pth"
        torch.save(tensors, plain)
        with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))
        path.write_bytes(change(path.read_bytes()))
        return path

    return write


def test_deflated_storages_are_checked_too(packed):
    good = packed(weight=torch.arange(4000))
    assert tk.scan(good, deep=True).verdict == "safe"
    wrong = zlib.crc32(torch.arange(4000).numpy().tobytes()).to_bytes(4, "little")
    bad = packed(lambda data: data.replace(wrong, b"abcd"), weight=torch.arange(4000))
    assert tk.scan(bad, deep=True).verdict == "suspicious"
    assert "crc32:64636261" in [damage.expected for damage in tk.verify(bad).damaged]


def test_deflated_storages_that_are_broken_are_said(packed):
    # Found by the fuzzer: a deep scan called this safe.
    def broken(data):
        at = data.index(b"/data/0")
        return data[: at + 40] + b"\xff" * 8 + data[at + 48 :]

    path = packed(broken, weight=torch.arange(4000))
    assert tk.scan(path).verdict == "safe"  # torch.load would fail; nothing else comes of it
    assert tk.scan(path, deep=True).verdict == "unknown"
    assert not tk.verify(path).ok


def test_a_pickle_in_a_deflated_storage_is_found(packed):
    program = b"\x80\x02cos\ngetpid\n)R.".ljust(64, b"\0")
    path = packed(weight=torch.frombuffer(bytearray(program), dtype=torch.uint8))
    assert tk.scan(path).verdict == "safe"
    assert tk.scan(path, deep=True).verdict == "dangerous"
