"""Archives of model files, zip and tar: each member is read and judged as the file it is."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile

import pytest
import torch
from safetensors.torch import save as safetensors

import tensorkeep as tk
from tensorkeep.errors import NotACheckpoint

EVIL = b"cos\nsystem\n(X\x04\0\0\0echotR."
STATE = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.ones(2)}


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def zipped(files, packed=False):
    out = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(files, **kinds):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


PACKERS = {
    "zip": zipped,
    "packed": lambda files: zipped(files, packed=True),
    "tar": tarred,
    "tar.gz": lambda files: gzip.compress(tarred(files)),
    "zip in zip": lambda files: zipped({"inner.zip": zipped(files)}),
    "zip in tar": lambda files: tarred({"inner.zip": zipped(files)}),
}
every_packer = pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
NEMO = {
    "model_config.yaml": b"target: nemo.collections.asr.models.Ctc\n",
    "model_weights.ckpt": saved(STATE),
}
MAR = {
    "model.pt": saved(STATE),
    "index_to_name.json": b"{}",
    "MAR-INF/MANIFEST.json": json.dumps({"model": {"handler": "image_classifier"}}).encode(),
}


@every_packer
def test_a_model_alone_is_the_checkpoint_itself(pack, tmp_path, bits):
    data = pack(NEMO)
    with tk.open(data) as ckpt:
        assert list(ckpt) == list(STATE)
        assert all(ckpt[name].read() == bits(tensor) for name, tensor in STATE.items())
    assert [found.what for found in tk.scan(data, deep=True).findings] == []
    assert tk.verify(data).damaged == []
    tk.convert(data, tmp_path / "out.safetensors")


@every_packer
def test_several_models_are_sections(pack, tmp_path, bits):
    other = {"layer.weight": torch.zeros(2)}
    data = pack({"a/first.pth": saved(STATE), "b.safetensors": safetensors(other), "readme": b"x"})
    with tk.open(data) as ckpt:
        sections = {section.name: section.tensors for section in ckpt.sections}
        assert sections == {"a/first.pth": 2, "b.safetensors": 1}
        assert ckpt["b.safetensors.layer.weight"].read() == bits(other["layer.weight"])
        assert ckpt["a/first.pth.layer.weight"].tied_to is None
    assert tk.scan(data).verdict == "safe"
    tk.convert(data, tmp_path / "out.safetensors", section="b.safetensors")


@every_packer
@pytest.mark.parametrize("name", ["x.pth", "x.jpg", "deep/er/notes.txt"])
def test_code_in_any_member_is_dangerous(pack, name):
    assert tk.scan(pack({**NEMO, name: EVIL})).verdict == "dangerous"
    assert tk.scan(pack({name: EVIL})).verdict == "dangerous"


@every_packer
def test_a_model_that_cannot_be_read_is_never_passed_over(pack):
    report = tk.scan(pack({**NEMO, "other.pth": b"\0\1\2 nothing"}))
    assert report.verdict == "unknown"
    assert list(tk.open(pack({**NEMO, "other.pth": b"\0\1\2 nothing"})))


@every_packer
def test_an_archive_with_nothing_of_a_model(pack, tmp_path):
    data = pack({"readme.txt": b"hello", "setup.py": b"print()"})
    with pytest.raises(NotACheckpoint):
        tk.open(data)
    assert tk.scan(data).verdict == "unknown"
    (tmp_path / "sources.zip").write_bytes(data)
    (tmp_path / "model.pth").write_bytes(saved(STATE))
    report = tk.scan(tmp_path)
    assert (report.verdict, report.skipped) == ("safe", 1)


def test_a_handler_is_code_that_a_server_runs():
    assert tk.scan(zipped(MAR)).verdict == "safe"
    (found,) = tk.scan(zipped({**MAR, "handler.py": b"import os\nos.system('echo')\n"})).findings
    assert (found.rule, found.member, found.severity) == (
        "code/python-source",
        "handler.py",
        "suspicious",
    )
    assert "os.system" in found.what


@pytest.mark.parametrize(
    ("target", "verdict"),
    [
        ("nemo.collections.asr.modules.ConvASREncoder", "safe"),
        ("torch.optim.AdamW", "safe"),
        ("os.system", "dangerous"),
        ("torch.hub.load", "dangerous"),
        ("mine.Model", "suspicious"),
    ],
)
def test_a_configuration_names_what_is_built(target, verdict):
    config = f"encoder:\n  _target_: {target}\n".encode()
    assert tk.scan(tarred({**NEMO, "model_config.yaml": config})).verdict == verdict


@every_packer
def test_compiled_code_in_it(pack):
    report = tk.scan(pack({**NEMO, "lib/ops.so": b"\x7fELF" + bytes(600)}))
    assert {found.rule for found in report.findings} == {"container/native-code"}


def test_an_archive_in_an_archive_has_an_end():
    data = saved(STATE)
    for _ in range(12):
        data = zipped({"inner.zip": data})
    assert tk.scan(data).verdict == "unknown"


def test_where_a_finding_is_says_every_archive_on_the_way():
    found = tk.scan(zipped({"a.zip": zipped({"b.pth": zipped({"m/data.pkl": EVIL})})})).findings[0]
    assert found.member == "a.zip: b.pth: m/data.pkl"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_a_tar_that_lead_outside(kind):
    out = io.BytesIO(tarred(NEMO))
    with tarfile.open(fileobj=out, mode="a") as archive:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, "../../etc/passwd"
        archive.addfile(info)
    assert "container/path-traversal" in {found.rule for found in tk.scan(out.getvalue()).findings}


def test_what_a_scan_does_not_call_safe_is_refused_when_safe_is_required(tmp_path):
    """Also where the pickle lies in a member that no loader of the weights would read."""
    (tmp_path / "model.nemo").write_bytes(tarred({**NEMO, "vocab.txt": EVIL}))
    with pytest.raises(tk.TensorkeepError, match="os.system"):
        tk.convert(tmp_path / "model.nemo", tmp_path / "out.safetensors", require="safe")
    assert not (tmp_path / "out.safetensors").exists()


def test_other_archives_beside_a_model_are_no_model(tmp_path):
    assert tk.scan(zipped({**MAR, "docs.zip": zipped({"a.txt": b"x"})})).verdict == "safe"


def test_code_behind_a_megabyte_of_nothing(tmp_path):
    late = b"N0" * 700_000 + EVIL
    for pack in (zipped, tarred):
        assert tk.scan(pack({**NEMO, "vocab.txt": late})).verdict == "dangerous"
