"""Every format of ours keeps every promise of a format."""

from __future__ import annotations

import functools
import gzip
import importlib.util
import io
import pickle
from pathlib import Path

import joblib
import numpy
import torch
from safetensors.torch import save

from tensorkeep.formats import (
    HEAD,
    compressed,
    numpy_files,
    raw_pickle,
    safetensors,
    torch_legacy,
    torch_tar,
    zips,
)
from tensorkeep.stores.memory import MemoryBlob
from tensorkeep.testing import FormatConformance


def _writer_of_old_tars():
    path = Path(__file__).parents[1] / "corpus/torch_tar/make.py"
    spec = importlib.util.spec_from_file_location("old_tars", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TAR = _writer_of_old_tars()


@functools.cache
def tensors():
    """One of many a dtype, of no element, of no dimension; any bits at all."""
    made = {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3)}
    for number, dtype in enumerate([torch.float32, torch.bfloat16, torch.int64, torch.bool]):
        data = torch.arange(24 * dtype.itemsize, dtype=torch.uint8) * (number + 3)
        data = data % 2 if dtype is torch.bool else data
        made[f"layer.{number}.weight"] = data.view(dtype).reshape(4, 6)
    return made


def expected(values):
    return {
        name: (
            str(tensor.dtype)[6:],
            tuple(tensor.shape),
            tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(),
        )
        for name, tensor in values.items()
    }


def saved(value, **options):
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def legacy(value, protocol=2):
    return saved(value, _use_new_zipfile_serialization=False, pickle_protocol=protocol)


def with_arrays(values):
    """As joblib writes what numpy knows of them."""
    file = io.BytesIO()
    known = {name: t for name, t in values.items() if t.dtype is not torch.bfloat16}
    joblib.dump({name: tensor.numpy() for name, tensor in known.items()}, file)
    return file.getvalue(), expected(known)


@functools.cache
def large():
    return {"weight": torch.zeros(3 << 20), "bias": torch.ones(16)}


class TestTorchZip(FormatConformance):
    format = zips

    def samples(self):
        base = torch.arange(12, dtype=torch.float32)
        views = {"a": base[2:8], "b": base.view(3, 4).t(), "tied": base[2:8]}
        nested = {"model": tensors(), "epoch": 3, "note": "as it is"}
        inside = {f"model.{name}": tensor for name, tensor in tensors().items()}
        return {
            "flat": (saved(tensors()), expected(tensors())),
            "views": (saved(views), expected(views)),
            "nested": (saved(nested), expected(inside)),
        }

    def large(self):
        return saved(large())


class TestSafetensors(FormatConformance):
    format = safetensors

    def samples(self):
        return {
            "plain": (save(tensors()), expected(tensors())),
            "metadata": (save(tensors(), {"made": "by hand"}), expected(tensors())),
            "nothing": (save({}), {}),
        }

    def large(self):
        return save(large())


class TestTorchLegacy(FormatConformance):
    format = torch_legacy

    def samples(self):
        base = torch.arange(12, dtype=torch.float32)
        views = {"a": base[2:8], "b": base.view(3, 4).t(), "tied": base[2:8]}
        nested = {"model": tensors(), "epoch": 3}
        inside = {f"model.{name}": tensor for name, tensor in tensors().items()}
        return {
            "flat": (legacy(tensors()), expected(tensors())),
            "views": (legacy(views, 4), expected(views)),
            "nested": (legacy(nested), expected(inside)),
        }

    def large(self):
        return legacy(large())


class TestRawPickle(FormatConformance):
    format = raw_pickle

    def samples(self):
        values = {"epoch": 3, "note": "as it is", "loss": [0.5, 0.25]}
        return {
            "joblib": with_arrays(tensors()),
            **{f"protocol {p}": (pickle.dumps(values, protocol=p), {}) for p in range(6)},
        }

    def large(self):
        return with_arrays(large())[0]

    def test_opening_reads_no_tensor_bytes(self):
        """A stream without a directory is read once, and not again for its tensors."""
        with MemoryBlob(self.large()) as blob, self._open(blob) as ckpt:
            assert len(ckpt) == 2
            assert blob.bytes_read <= blob.size + HEAD


class TestCompressed(FormatConformance):
    format = compressed

    def samples(self):
        return {
            "legacy": (gzip.compress(legacy(tensors())), expected(tensors())),
            "zip": (gzip.compress(saved(tensors())), expected(tensors())),
        }

    def large(self):
        return gzip.compress(saved(large()), 9)

    def test_opening_reads_no_tensor_bytes(self):
        """A compressed stream is read once from end to end."""
        values = tensors()
        with MemoryBlob(gzip.compress(saved(values))) as blob, self._open(blob) as ckpt:
            assert len(ckpt) == len(values)
            assert blob.bytes_read <= blob.size + HEAD


def old_tar(values):
    """As torch before 0.1.10 wrote it; the corpus has the writer, proven by torch's loader."""
    known = {name: t for name, t in values.items() if t.dtype is not torch.bool}
    members = TAR.members(known, list(known.values()))
    return TAR.packed(members), expected(known)


class TestTorchTar(FormatConformance):
    format = torch_tar

    def samples(self):
        return {"flat": old_tar(tensors())}

    def large(self):
        return old_tar(large())[0]


class TestNumpyFiles(FormatConformance):
    format = numpy_files

    def samples(self):
        def saved(array):
            file = io.BytesIO()
            numpy.save(file, array)
            return file.getvalue()

        values = torch.arange(24.0).view(4, 6)
        turned = {"array": values.t().contiguous()}
        return {
            "one": (saved(values.numpy()), expected({"array": values})),
            "fortran": (saved(values.numpy().T), expected(turned)),
        }

    def large(self):
        file = io.BytesIO()
        numpy.save(file, numpy.zeros(3 << 20, dtype="f4"))
        return file.getvalue()
