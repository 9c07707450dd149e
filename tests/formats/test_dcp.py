"""torch.distributed.checkpoint folders, as torch itself writes and consolidates them."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch.distributed.checkpoint.filesystem import FileSystemWriter, SerializationFormat
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

import tensorkeep as tk
from tensorkeep.checkpoints import kept
from tensorkeep.errors import ChangedWhileRead, Damaged, Unsupported
from tensorkeep.facts import Limits
from tensorkeep.formats.dcp import read_metadata

RANKS = 4


@pytest.fixture(scope="session")
def ranks(tmp_path_factory):
    """Folders that four processes saved together."""
    out = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).with_name("distributed.py")
    done = subprocess.run(
        [sys.executable, str(script), str(out), str(RANKS)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return out


def training(**more):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "epoch": 3,
        "mixed": [1, 2, torch.ones(2)],
        **more,
    }


@pytest.fixture
def saved(tmp_path):
    """`dcp.save` by one process into a folder of the test's own; gives the path."""

    def saved(value, name="step", **options):
        writer = FileSystemWriter(tmp_path / name, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there are no other processes
            dcp.save(value, storage_writer=writer, no_dist=True)
        return tmp_path / name

    return saved


def consolidated(path, tmp_path):
    """What torch makes of the folder."""
    out = tmp_path / "whole.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp_to_torch_save(path, out)
    return torch.load(out, weights_only=False)


def same(path, expected, bits, flat):
    """Every tensor of `expected` is read bit for bit, and no other."""
    wanted = flat(expected)
    with tk.open(path) as ckpt:
        assert set(ckpt) == set(wanted)
        for name, tensor in wanted.items():
            ref = ckpt[name]
            assert (ref.dtype, ref.shape) == (str(tensor.dtype)[6:], tuple(tensor.shape)), name
            assert ref.read() == bits(tensor), name


@pytest.mark.parametrize("name", ["fsdp2", "sharded"])
def test_what_several_ranks_saved_is_what_torch_consolidates(name, ranks, tmp_path, bits, flat):
    same(ranks / name, consolidated(ranks / name, tmp_path), bits, flat)
    report = tk.scan(ranks / name, deep=True)
    assert [(found.rule, found.what) for found in report.findings] == []
    assert [(file.path, file.format) for file in report.files] == [(str(ranks / name), "dcp")]
    assert tk.verify(ranks / name).damaged == []


def test_the_file_that_is_converted_to_is_the_same(ranks, tmp_path, bits, flat):
    expected = flat(consolidated(ranks / "sharded", tmp_path))
    for suffix, load in ((".safetensors", load_file), (".pth", torch.load)):
        out = tmp_path / f"out{suffix}"
        only = ["*.rows", "*.half", "*.thin", "*.line", "scalar", "empty"]
        report = tk.convert(ranks / "sharded", out, only=only, verify=True)
        assert report.verdict == "safe"
        written = load(out)
        assert len(written) == report.tensors == report.verified == 16
        assert all(bits(tensor) == bits(expected[name]) for name, tensor in written.items())


def test_a_training_of_several_ranks_has_sections(ranks):
    report = tk.inspect(ranks / "fsdp2")
    assert (report.kind, report.weights, report.container) == (
        "training_checkpoint",
        "model",
        "directory",
    )
    assert report.writer == "torch.distributed.checkpoint (version 1.0.0)"
    assert [(section.name, section.tensors) for section in report.sections] == [
        ("model", 4),
        ("optim", 12),
    ]
    assert report.values["epoch"] == 7
    assert report.values["optim"]["param_groups"][0]["lr"] == 0.01
    assert sorted(report.parts) == [f"__{rank}_0.distcp" for rank in range(RANKS)]


@pytest.mark.parametrize("form", list(SerializationFormat), ids=lambda form: form.value)
@pytest.mark.parametrize("single", [True, False])
def test_one_process(form, single, saved, bits, flat):
    value = training()
    path = saved(value, serialization_format=form, single_file_per_rank=single, thread_count=2)
    same(path, value, bits, flat)
    report = tk.scan(path, deep=True)
    assert [(found.rule, found.what) for found in report.findings] == []
    with tk.open(path) as ckpt:
        assert ckpt.values["epoch"] == 3
        assert ckpt.values["scheduler"]["gamma"] == 0.1
        assert ckpt.values["mixed"] == {0: 1, 1: 2}


def test_every_dtype_and_layout(saved, random, bits, flat):
    names = "float64 float32 float16 bfloat16 int64 int8 uint8 bool complex64 float8_e4m3fn"
    value = {name: random(name, 3, 4) for name in names.split()}
    value |= {"turned": random("float32", 6, 4).t(), "view": random("int64", 9, 9)[2:5, 1:8:2]}
    same(saved(value), value, bits, flat)


def test_opening_reads_the_metadata_alone(saved):
    path = saved({f"layer.{n}": torch.zeros(1000) for n in range(50)})
    with tk.open(path) as ckpt:
        assert ckpt.bytes_read <= (path / ".metadata").stat().st_size + 1024
        assert ckpt.size > 200_000


def test_more_values_than_are_read_at_once(saved):
    path = saved({"groups": {str(n): {"lr": float(n)} for n in range(1100)}, "epoch": 1})
    with tk.open(path) as ckpt:
        values = ckpt.values
        assert values["epoch"] == 1
        assert values["groups"]["5"] == {"lr": 5.0}
        assert "read before it is wanted" in repr(values["groups"]["1099"]["lr"])
    assert tk.scan(path).verdict == "safe"


def rewrite(path, change):
    """The same folder with another `.metadata`."""
    metadata = pickle.loads((path / ".metadata").read_bytes())
    change(metadata)
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    return path


def replace_chunk(**fields):
    def change(metadata):
        chunk = metadata.state_dict_metadata["w"].chunks[0]
        old = chunk.offsets
        for name, value in fields.items():
            setattr(chunk, name, torch.Size(value))
        for key in list(metadata.storage_data):
            if key.fqn == "w" and key.offset == old:
                metadata.storage_data[MetadataIndex("w", chunk.offsets)] = (
                    metadata.storage_data.pop(key)
                )

    return change


def move(**fields):
    def change(metadata):
        for key, info in metadata.storage_data.items():
            if key.fqn == "w":
                for name, value in fields.items():
                    setattr(info, name, value)

    return change


def twice(metadata):
    chunks = metadata.state_dict_metadata["w"].chunks
    chunks.append(ChunkStorageMetadata(torch.Size([0, 0]), torch.Size([4, 2])))


BROKEN = {
    "another dtype": (
        lambda m: setattr(m.state_dict_metadata["w"].properties, "dtype", torch.int32)
    ),
    "out of bounds": replace_chunk(offsets=[1, 0]),
    "another shape": replace_chunk(sizes=[2, 8]),
    "a hole": replace_chunk(sizes=[3, 4]),
    "overlapping": twice,
    "huge": lambda m: setattr(m.state_dict_metadata["w"], "size", torch.Size([1 << 40, 1 << 40])),
    "beyond the file": move(offset=1 << 40),
    "too short": move(length=40),
    "not there": lambda m: [m.storage_data.pop(k) for k in list(m.storage_data) if k.fqn == "w"],
    "compressed": move(transform_descriptors=["ZStandard/1"]),
}


@pytest.mark.parametrize("trick", BROKEN)
def test_what_contradicts_itself_is_not_read(trick, saved, tmp_path):
    path = rewrite(saved({"w": torch.ones(4, 4), "b": torch.zeros(3)}), BROKEN[trick])
    assert tk.scan(path).verdict != "safe"
    assert not tk.verify(path).ok or trick in ("compressed", "not there")
    with tk.open(path) as ckpt:
        assert ckpt["b"].read() == bytes(12)
        if "w" in ckpt:
            with pytest.raises((Damaged, Unsupported)):
                ckpt["w"].read()
    out = tmp_path / "out.safetensors"
    with pytest.raises(tk.TensorkeepError):
        tk.convert(path, out)
    assert not out.exists()


def test_a_file_that_is_missing_is_named(saved):
    path = saved(training())
    (path / "__0_0.distcp").unlink()
    with pytest.raises(Damaged, match="__0_0.distcp"):
        tk.open(path)
    assert tk.scan(path).verdict == "unknown"


@pytest.mark.parametrize("name", ["../step/__0_0.distcp", "/etc/passwd", "..", ""])
def test_a_name_that_leads_elsewhere_is_not_followed(name, saved):
    path = rewrite(saved({"w": torch.ones(4, 4)}), move(relative_path=name))
    with pytest.raises(Damaged, match="outside its own folder"):
        tk.open(path)
    report = tk.scan(path)
    assert report.verdict == "dangerous"
    assert "container/path-traversal" in {found.rule for found in report.findings}


def test_bytes_between_the_items_are_noticed(saved):
    path = saved({"w": torch.ones(4, 4)})
    data = path / "__0_0.distcp"
    data.write_bytes(data.read_bytes() + b"more")
    rules = {found.rule for found in tk.scan(path).findings}
    assert rules == {"container/hidden-bytes"}
    assert not tk.verify(path).ok


def test_a_flipped_bit_is_found(saved):
    path = saved({"w": torch.arange(1000.0)})
    data = path / "__0_0.distcp"
    flipped = bytearray(data.read_bytes())
    flipped[flipped.index(torch.tensor([500.0]).numpy().tobytes())] ^= 1
    data.write_bytes(flipped)
    report = tk.verify(path)
    assert report.checked == "digests"
    assert [damage.tensor for damage in report.damaged] == ["w"]


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("echo tensorkeep",)


def test_a_value_that_would_run_code(saved, tmp_path):
    path = saved({"w": torch.ones(2), "epoch": Evil()})
    report = tk.scan(path)
    assert report.verdict == "dangerous"
    (found,) = [found for found in report.findings if found.rule == "pickle/dangerous-call"]
    assert "'epoch'" in found.member
    with tk.open(path) as ckpt:
        assert ckpt["w"].read() == torch.ones(2).numpy().tobytes()
    converted = tk.convert(path, tmp_path / "out.safetensors")
    assert converted.verdict == "dangerous"
    with pytest.raises(tk.TensorkeepError):
        tk.convert(path, tmp_path / "safe.safetensors", require="safe")


def test_other_files_in_the_folder_are_judged_too(saved):
    path = saved({"w": torch.ones(2)})
    torch.save({"w": torch.ones(2)}, path / "extra.pth")
    shutil.copy(path / "__0_0.distcp", path / "__7_0.distcp")
    report = tk.scan(path)
    assert [file.format for file in report.files] == ["dcp", "torch_zip"]
    assert report.verdict == "safe"
    torch.save({"w": Evil()}, path / "__8_0.distcp")
    report = tk.scan(path)
    assert report.files[0].verdict == report.verdict == "dangerous"


def test_any_bytes_give_an_answer(saved):
    data = (saved(training()) / ".metadata").read_bytes()
    for place in range(0, len(data), 7):
        for changed in (
            data[:place],
            data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :],
        ):
            found = read_metadata(changed, Limits())
            assert found.error is not None or found.program.error is not None or found.entries


def test_shared_chunks_do_not_multiply():
    # A list of a thousand chunks under two thousand names: the memo makes that a few kilobytes.
    from torch.distributed.checkpoint.metadata import (
        Metadata,
        TensorProperties,
        TensorStorageMetadata,
    )

    chunks = [ChunkStorageMetadata(torch.Size([n]), torch.Size([1])) for n in range(1000)]
    properties = TensorProperties(dtype=torch.float32)
    item = TensorStorageMetadata(properties, torch.Size([1000]), chunks)
    data = pickle.dumps(Metadata({f"{n}": item for n in range(2000)}, storage_data={}))
    found = read_metadata(data, Limits(max_expansion=1000))
    assert found.error is not None
    assert "max_expansion" in str(found.error)


def test_a_data_file_alone_is_judged_whole(saved):
    path = saved({"a": torch.ones(2), "b": torch.zeros(3), "evil": Evil()})
    file = path / "__0_0.distcp"
    report = tk.scan(file)
    assert (report.files[0].format, report.verdict) == ("distcp", "dangerous")
    shown = tk.inspect(file)
    assert sorted(tensor.shape for tensor in shown.tensors) == [(2,), (3,)]
    assert any(".metadata" in note for note in shown.notes)
    (path / "__0_0.distcp").write_bytes(b"PK\x03\x04hidden" + file.read_bytes())
    rules = {found.rule for found in tk.scan(file).findings}
    assert {"pickle/dangerous-call", "read/damaged"} <= rules


def test_a_metadata_that_is_named_opens_the_folder(saved):
    path = saved({"w": torch.ones(2)})
    with tk.open(path / ".metadata") as ckpt:
        assert list(ckpt) == ["w"]


def test_safetensors_of_every_rank(ranks, tmp_path, bits, flat):
    expected = flat(consolidated(ranks / "sharded", tmp_path))
    expected = {name: value for name, value in expected.items() if "block" not in name}
    same(ranks / "parts", expected, bits, flat)
    report = tk.inspect(ranks / "parts")
    assert (report.format, report.container) == ("dcp_safetensors", "directory")
    assert len(report.parts) == RANKS
    assert tk.verify(ranks / "parts").damaged == []
    assert tk.scan(ranks / "parts").verdict == "safe"
    tk.convert(ranks / "parts", tmp_path / "out.safetensors", verify=True)
    written = load_file(tmp_path / "out.safetensors")
    assert {name: bits(value) for name, value in written.items()} == {
        name: bits(value) for name, value in expected.items()
    }


def test_safetensors_of_every_rank_put_together_by_torch(ranks, bits, flat):
    written = load_file(next((ranks / "together").glob("*.safetensors")))
    same(ranks / "together", written, bits, flat)
    assert "grid.rows" in written


def test_a_rank_that_is_missing_leaves_a_hole(ranks, tmp_path):
    path = tmp_path / "parts"
    shutil.copytree(ranks / "parts", path)
    next(path.glob("shard-00002-*")).unlink()
    report = tk.inspect(path)
    assert "row.line" in {name for name, _ in report.unread}
    assert not tk.verify(path).ok


def test_more_files_than_a_process_may_have_open(saved, monkeypatch, tmp_path, bits, flat):
    value = {f"layer.{n}": torch.full((n + 1,), float(n)) for n in range(40)}
    path = saved(value, single_file_per_rank=False)
    assert len(list(path.glob("*.distcp"))) == 40
    monkeypatch.setattr(kept, "_OPEN", 4)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with tk.open(path) as ckpt:
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 5
        ckpt.check_unchanged()
    same(path, value, bits, flat)
    assert tk.scan(path).verdict == "safe"
    with tk.open(path) as ckpt:
        late = path / "__0_39.distcp"
        late.write_bytes(late.read_bytes())
        with pytest.raises(ChangedWhileRead):
            ckpt["layer.39"].read()
