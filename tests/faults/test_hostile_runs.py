"""A run folder that somebody made up: an error of ours, soon, and nothing outside is touched."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tensorkeep.checkpoints import manifest as manifests
from tensorkeep.checkpoints.keeping import KeepLast
from tensorkeep.checkpoints.manifest import NAME
from tensorkeep.checkpoints.runs import RUN, STATE, RunFolder, folder_of
from tensorkeep.errors import StoreError, TensorkeepError, TensorkeepWarning
from tensorkeep.stores import commit
from tensorkeep.training.locking import NAME as LOCK
from tensorkeep.training.run import Run


def opened(path: Path, **options) -> tuple[Run, torch.nn.Module, torch.optim.Optimizer]:
    run, model = Run(path, **options), torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    run.track(model=model, optimizer=optimizer, notes={"a": 1, "b": [2, (3, "x")]})
    return run, model, optimizer


@pytest.fixture
def path(tmp_path) -> Path:
    """A run of steps 1 and 2; whatever a test does to step 2, step 1 is whole."""
    run, _, _ = opened(tmp_path / "run")
    with run:
        run.save(1)
        run.save(2)
    return tmp_path / "run"


@pytest.fixture
def outside(tmp_path) -> Path:
    """A folder of somebody else's, which must not change."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in (NAME, STATE, "precious"):
        (folder / name).write_text(name)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def taken_up(path: Path, expected: int = 1) -> None:
    """Resuming says that step 2 is no good and takes step 1, within a few seconds."""
    began = time.process_time()
    run, _, _ = opened(path)
    with run, pytest.warns(TensorkeepWarning, match="step 2 is skipped"):
        assert run.resume() == expected
    assert time.process_time() - began < 20


def manifest_of(path: Path) -> dict:
    return json.loads((path / folder_of(2) / NAME).read_text())


def resealed(path: Path, made: object) -> None:
    """`made` as the manifest of step 2, with its digest; text as it is."""
    if isinstance(made, dict):
        made.pop("digest", None)
        (path / folder_of(2) / NAME).write_bytes(manifests.sealed(made))
    else:
        head = str(made).encode() + b'\n "digest": "sha256:'
        tail = hashlib.sha256(head).hexdigest().encode() + b'"\n}\n'
        (path / folder_of(2) / NAME).write_bytes(head + tail)


CHANGES: dict[str, tuple[tuple[str, ...], object]] = {
    "step": (("step",), 10**400),
    "step is infinite": (("step",), "inf"),
    "step is a list": (("step",), []),
    "another step": (("step",), 7),
    "epoch": (("epoch",), {}),
    "parent": (("parent",), "x"),
    "metrics": (("metrics",), [1]),
    "a metric of another size": (("metrics",), {"loss": 10**400}),
    "no files": (("files",), {}),
    "files are a list": (("files",), ["state.json"]),
    "bytes": (("files", STATE, "bytes"), 1e308 * 10),
    "bytes below nothing": (("files", STATE, "bytes"), -1),
    "digest is a number": (("files", STATE, "digest"), 5),
    "digest is short": (("files", STATE, "digest"), "sha256:00"),
    "digest of a tensor": (("files", "model.safetensors", "tensors", "weight"), {}),
    "tensors are text": (("files", "model.safetensors", "tensors"), "weight"),
    "one tensor less": (("files", "model.safetensors", "tensors"), {}),
    "kind": (("kind",), "model"),
    "version": (("version",), 10**9),
    "version is true": (("version",), True),
}


@pytest.mark.parametrize("name", CHANGES)
def test_fields_that_nobody_writes(path, name) -> None:
    keys, value = CHANGES[name]
    made = manifest_of(path)
    inner = made
    for key in keys[:-1]:
        inner = inner[key]
    if value == 1e308 * 10:  # JSON has no word for it, and readers take this one
        inner[keys[-1]] = 12345678987654321
        made.pop("digest")
        text = manifests.sealed(made).replace(b"12345678987654321", b"1e999")
        resealed(path, text.decode().split(',\n "digest"')[0] + ",")
    else:
        inner[keys[-1]] = value
        resealed(path, made)
    assert list(RunFolder(path).at(2).damage())
    taken_up(path)


TEXTS = {
    "no JSON": '{\n "a": }',
    "a list": '[{\n "a": 1',
    "deep": "[" * 100_000,
    "deep objects": '{"a":' * 100_000,
    "digits": '{\n "step": ' + "9" * 100_000 + ",",
    "many": '{\n "a": [' + "[]," * 3_000_000 + "[]],",
    "no text": "",
    "not a number": '{\n "step": NaN,',
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_nobody_writes(path, name) -> None:
    resealed(path, TEXTS[name])
    assert [each.file for each in RunFolder(path).at(2).damage()] == [NAME]
    taken_up(path)


@pytest.mark.parametrize(
    "name",
    ["../outside/precious", "/etc/hosts", "..", ".", "", "a/b", "a\\b", "\0", "\ud800", "x" * 5000],
)
def test_names_that_lead_out(path, outside, name) -> None:
    made = manifest_of(path)
    made["files"][name] = made["files"][STATE]
    text = json.dumps(made | {"digest": ""})  # ASCII, as a half of a surrogate pair needs it
    resealed(path, text[: text.rindex(', "digest"')] + ",")
    before = content(outside)
    assert list(RunFolder(path).at(2).damage())
    run, _, _ = opened(path, keep=KeepLast(1))
    with warnings.catch_warnings(), run:
        warnings.simplefilter("ignore")
        run.resume()
        run.save(3)
    assert content(outside) == before
    assert (path / folder_of(3) / NAME).exists()


def test_thousands_of_files(path) -> None:
    made = manifest_of(path)
    made["files"] |= {f"file{n}": made["files"][STATE] for n in range(20_000)}
    resealed(path, made)
    began = time.process_time()
    assert len(list(RunFolder(path).at(2).damage())) == 20_000
    assert time.process_time() - began < 30


def restated(path: Path, state: object) -> None:
    """`state` as state.json of step 2, with digests that agree."""
    data = json.dumps(state).encode()
    (path / folder_of(2) / STATE).write_bytes(data)
    made = manifest_of(path)
    made["files"][STATE] = {
        "bytes": len(data),
        "digest": manifests.PREFIX + hashlib.sha256(data).hexdigest(),
    }
    resealed(path, made)


JUNK = [None, True, -1, 10**30, 1e300, "", "x" * 50, [], [[]], {}, {"": 1}, {"~": 3}, "__class__"]


def places(value: object, found: list | None = None) -> list:
    found = [] if found is None else found
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in pairs:
        found.append((value, key))
        if isinstance(each, dict | list):
            places(each, found)
    return found


def changed(state: dict, chance: random.Random) -> None:
    holder, key = chance.choice(places(state))
    how = chance.randrange(3)
    if how == 0:
        holder[key] = chance.choice(JUNK)
    elif how == 1:
        del holder[key]
    else:
        other, at = chance.choice(places(state))
        holder[key] = json.loads(json.dumps(other[at]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("many", [60, pytest.param(3000, marks=pytest.mark.long)])
def test_state_that_nobody_writes_is_an_error_of_ours_or_taken(path, many) -> None:
    good = (path / folder_of(2) / STATE).read_text()
    run, _, _ = opened(path)
    errors = 0
    with run:
        for seed in range(many):
            state = json.loads(good)
            changed(state, random.Random(seed))
            restated(path, state)
            try:
                run.resume(2)
            except TensorkeepError:
                errors += 1
        assert run.resume(1) == 1
    assert errors > many // 3


def refiled(path: Path, file: Path) -> None:
    """A made-up file of tensors whose digests agree, but for what the manifest leaves out."""
    made = manifest_of(path)
    data = file.read_bytes()
    facts = made["files"]["model.safetensors"]
    start = 8 + int.from_bytes(data[:8], "little")
    facts["bytes"] = len(data)
    hashes = [bytes.fromhex(each[7:]) for each in facts["tensors"].values()]
    facts["digest"] = manifests.file_digest(data[:start], hashes)
    resealed(path, made)


def test_a_tensor_without_a_digest_is_not_taken(path) -> None:
    from safetensors.torch import load_file

    file = path / folder_of(2) / "model.safetensors"
    save_file({**load_file(file), "zz": torch.ones(4)}, file)
    refiled(path, file)
    assert [each.file for each in RunFolder(path).at(2).damage()] == ["model.safetensors"]
    taken_up(path)


@pytest.mark.parametrize("head", [b"\0" * 8, b"\xff" * 8, (2**40).to_bytes(8, "little")])
def test_a_header_of_any_length(path, head) -> None:
    file = path / folder_of(2) / "model.safetensors"
    file.write_bytes(head + file.read_bytes()[8:])
    assert [each.file for each in RunFolder(path).at(2).damage()] == ["model.safetensors"]
    taken_up(path)


def test_a_pickle_under_the_name_of_tensors_is_not_read_as_such(path) -> None:
    file = path / folder_of(2) / "model.safetensors"
    torch.save({"weight": torch.ones(1, 2), "bias": torch.ones(1)}, file)
    made = manifest_of(path)
    made["files"]["model.safetensors"]["bytes"] = file.stat().st_size
    resealed(path, made)
    assert [each.file for each in RunFolder(path).at(2).damage()] == ["model.safetensors"]
    taken_up(path)


# Links.


def test_a_step_that_is_a_link_is_read_and_only_the_link_is_deleted(path, tmp_path) -> None:
    moved = tmp_path / "elsewhere"
    (path / folder_of(1)).rename(moved)
    (path / folder_of(1)).symlink_to(moved)
    before = content(moved)
    run, _, _ = opened(path, keep=KeepLast(1))
    with run:
        assert run.resume(1) == 1
        assert run.resume() == 2
        run.save(3)
    assert [each.name for each in path.glob("step-*")] == [folder_of(3)]
    assert content(moved) == before


@pytest.mark.parametrize("bare", [False, True])
def test_a_step_that_is_a_link_is_replaced_and_what_it_leads_to_stays(
    path, tmp_path, bare, monkeypatch
) -> None:
    from tensorkeep.stores.local import kernel

    if bare:
        monkeypatch.setattr(kernel, "_function", lambda name: None)
    moved = tmp_path / "elsewhere"
    (path / folder_of(2)).rename(moved)
    (path / folder_of(2)).symlink_to(moved)
    before = content(moved)
    run, _, _ = opened(path)
    with run:
        run.resume(1)
        run.save(2)
    assert not (path / folder_of(2)).is_symlink()
    assert not list(RunFolder(path).at(2).damage())
    assert content(moved) == before


@pytest.mark.parametrize("ending", [commit.WRITING, commit.DELETING, commit.ASIDE])
def test_a_leftover_that_is_a_link(path, outside, ending) -> None:
    for step in (1, 2, 3):
        (path / (folder_of(step) + ending)).symlink_to(outside)
    inner = path / (folder_of(5) + ending)
    inner.mkdir()
    (inner / "link").symlink_to(outside)
    (inner / "file").symlink_to(outside / "precious")
    before = content(outside)
    run, _, _ = opened(path, keep=KeepLast(1))
    with run:
        assert run.resume(1) == 1
        run.save(2)
        run.save(3)
    assert content(outside) == before
    assert not inner.exists()


@pytest.mark.parametrize("name", [LOCK, RUN, RUN + commit.WRITING])
@pytest.mark.parametrize("made", ["link", "link to nothing", "pipe", "folder"])
def test_files_of_the_run_that_are_something_else(path, outside, name, made) -> None:
    (path / name).unlink(missing_ok=True)
    if made == "pipe":
        os.mkfifo(path / name)
    elif made == "folder":
        (path / name).mkdir()
    else:
        (path / name).symlink_to(outside / ("precious" if made == "link" else "new"))
    before = content(outside)
    try:
        run, _, _ = opened(path)
    except StoreError as error:
        assert str(path) in str(error)
        (path / name).rmdir() if made == "folder" else (path / name).unlink()
        run, _, _ = opened(path)
    with run:
        assert run.resume() == 2
        run.save(3)
    assert content(outside) == before


def test_files_of_a_step_that_are_links_are_only_unlinked(path, outside) -> None:
    for file in (path / folder_of(1)).iterdir():
        file.unlink()
        file.symlink_to(outside / "precious")
    before = content(outside)
    assert list(RunFolder(path).at(1).damage())
    commit.delete(path / folder_of(1))
    assert content(outside) == before
    assert [saved.step for saved in RunFolder(path).saved()] == [2]
