"""What torch.save writes, in every shape of it: python tests/corpus/torch_zip/make.py"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from torch.utils.serialization import config

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from making import keep  # noqa: E402

NAME = "model.pth"
CARRIERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}
DTYPES = (  # noqa: SIM905
    "float64 float32 float16 bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz "
    "float8_e8m0fnu float4_e2m1fn_x2 complex32 complex64 complex128 uint8 int8 int16 int32 int64 "
    "uint16 uint32 uint64 bool bits8 bits16 bits1x8 bits2x4 bits4x2"
).split()


def bits(tensor):
    """The contiguous little-endian bytes, by torch alone."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    tensor = tensor.view(CARRIERS[tensor.dtype.itemsize]).contiguous()
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def pattern(dtype, *shape, step=37):
    """Every kind of bit pattern: NaN, subnormals, both signs."""
    count = torch.Size(shape).numel() * dtype.itemsize
    data = (torch.arange(count, dtype=torch.int64) * step % 251).to(torch.uint8)
    if dtype is torch.bool:
        data &= 1
    return data.view(CARRIERS[dtype.itemsize]).reshape(shape).view(dtype)


def flat(value, path=()):
    if isinstance(value, torch.Tensor):
        return {".".join(map(str, path)): bits(value)}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    found = {}
    for key, item in pairs:
        if isinstance(item, torch.Tensor | dict | list | tuple):
            found |= flat(item, (*path, key))
    return found


def case(name, value, loadable=True, written=None, **options):
    """`written` changes the bytes that torch.save gave."""

    def write(folder):
        file = io.BytesIO()
        torch.save(value, file, **options)
        data = file.getvalue() if written is None else written(file.getvalue())
        (folder / NAME).write_bytes(data)

    def check(path):
        if loadable:
            assert flat(torch.load(path, weights_only=False)) == flat(value), name

    keep(HERE / name, write, flat(value), NAME, check)


def repacked(data, change=lambda name, content: content, leave=(), root="archive"):
    """The archive packed again by Python's zipfile, as files made by other programs are."""
    old, out = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as new:
        for info in old.infolist():
            inner = info.filename.partition("/")[2]
            if inner not in leave:
                content = change(inner, old.read(info))
                # A fixed time: zipfile would write the present one.
                new.writestr(zipfile.ZipInfo(f"{root}/{inner}"), content)
    return out.getvalue()


def turned(data, itemsize):
    return b"".join(data[at : at + itemsize][::-1] for at in range(0, len(data), itemsize))


def big_endian():
    value = {
        "half": pattern(torch.float16, 5),
        "float": pattern(torch.float32, 2, 3),
        "double": pattern(torch.float64, 3),
        "long": pattern(torch.int64, 4),
        "byte": pattern(torch.uint8, 7),
        "bool": pattern(torch.bool, 3),
        "part": pattern(torch.float32, 4, 4)[1:3, ::2],
    }
    sizes = [tensor.dtype.itemsize for tensor in value.values()]

    def change(inner, content):
        if inner == "byteorder":
            return b"big"
        key = inner.removeprefix("data/")
        return turned(content, sizes[int(key)]) if key != inner else content

    case("big_endian", value, written=lambda data: repacked(data, change))


def training():
    torch.manual_seed(1)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.ReLU(), torch.nn.Linear(6, 2)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
    for _ in range(3):
        model(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()
        scheduler.step()
    return model, optimizer, scheduler


def checkpoints():
    model, optimizer, scheduler = training()
    case("state_dict", model.state_dict())
    case("parameters", dict(model.named_parameters()))
    case(
        "training_checkpoint",
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "epoch": 3,
            "best_loss": 0.125,
            "class_names": ["cat", "dog"],
        },
    )
    case(
        "lightning_like",
        {
            "epoch": 1,
            "global_step": 42,
            "pytorch-lightning_version": "2.4.0",
            "state_dict": OrderedDict((f"model.{k}", v) for k, v in model.state_dict().items()),
            "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 2}}}},
            "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": None}},
            "optimizer_states": [optimizer.state_dict()],
            "lr_schedulers": [scheduler.state_dict()],
            "hparams_name": "kwargs",
            "hyper_parameters": {"lr": 0.001, "layers": [4, 6, 2]},
        },
    )


def views():
    base = torch.arange(60, dtype=torch.float32)
    grid = base.view(3, 4, 5)
    case(
        "views_and_ties",
        {
            "whole": grid,
            "transposed": grid.permute(2, 0, 1),
            "every_other": base[::2],
            "row": grid[1],
            "expanded": base[:4].expand(3, 4),
            "overlapping": base.as_strided((5, 6), (2, 3), 7),
            "scalar": base[9],
            "none": base[5:5],
            "tied.a": grid,
            "tied.b": base.view(3, 4, 5),
            "lonely": torch.zeros(8)[2:4],
        },
    )
    numbers = pattern(torch.complex64, 2, 3)
    case(
        "conj_and_neg",
        {
            "complex": numbers,
            "conj": numbers.conj(),
            "conj_transposed": numbers.mH,
            "imag_of_conj": pattern(torch.complex64, 3).conj().imag,
            "neg": torch._neg_view(pattern(torch.float32, 5)),
            "neg_of_ints": torch._neg_view(pattern(torch.int16, 5)),
        },
    )


def names():
    case(
        "unicode_names",
        {
            "größe.gewicht": torch.ones(2),
            "層.0.重み": torch.ones(3),
            "with space": torch.ones(1),
            "a\nb\x1b[31m": torch.ones(1),
            "\U0001f525": torch.ones(4),
            "[/bold]": torch.ones(1),
            "": torch.ones(2),
            "‮txt.exe": torch.ones(1),
        },
    )


def options():
    value = {"weight": pattern(torch.float32, 3, 5), "bias": pattern(torch.bfloat16, 5)}
    case("protocol_4", value, pickle_protocol=4)
    case("protocol_5", value, pickle_protocol=5)
    torch.serialization.set_crc32_options(False)
    case("no_checksums", value)
    torch.serialization.set_crc32_options(True)
    config.save.storage_alignment = 4096
    case("alignment_4096", value)
    config.save.storage_alignment = 64
    case("another_root", value, written=lambda data: repacked(data, root="größe 1"))


def old_layout():
    """As torch 1.6 wrote it: no byteorder, no .format_version, no .data, version 3."""
    new = ("byteorder", ".format_version", ".storage_alignment", ".data/serialization_id")

    def written(data):
        return repacked(data, lambda inner, content: b"3\n" if inner == "version" else content, new)

    case("torch_1_6", {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}, written=written)


def zip64(data):
    """Every member's sizes and offset in zip64 extra fields, as where they exceed 4 GiB."""
    old, out, directory = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO(), []
    for info in old.infolist():
        name, content = info.filename.encode(), old.read(info)
        offset = out.tell()
        common = struct.pack("<HHHHHIII", 45, 0, 0, 0, 0x21, info.CRC, 2**32 - 1, 2**32 - 1)
        sizes = struct.pack("<QQ", len(content), len(content))
        out.write(b"PK\3\4" + common + struct.pack("<HH", len(name), 20) + name)
        out.write(struct.pack("<HH", 1, 16) + sizes + content)
        tail = struct.pack("<HHHHHII", len(name), 28, 0, 0, 0, 0, 2**32 - 1)
        extra = struct.pack("<HH", 1, 24) + sizes + struct.pack("<Q", offset)
        directory.append(b"PK\1\2" + struct.pack("<H", 45) + common + tail + name + extra)
    start, packed = out.tell(), b"".join(directory)
    count = len(directory)
    out.write(packed)
    end = struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(packed), start)
    out.write(b"PK\6\6" + end + b"PK\6\7" + struct.pack("<IQI", 0, start + len(packed), 1))
    out.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 2**16 - 1, 2**16 - 1, *[2**32 - 1] * 2, 0))
    return out.getvalue()


def all_dtypes():
    value = {name: pattern(getattr(torch, name), 2, 4) for name in DTYPES}
    case("all_dtypes", value)


if __name__ == "__main__":
    assert pickle.format_version == "4.0"
    all_dtypes()
    views()
    checkpoints()
    big_endian()
    names()
    options()
    old_layout()
    case(
        "zip64",
        {"weight": pattern(torch.float32, 3), "long": pattern(torch.int64, 2)},
        written=zip64,
    )
