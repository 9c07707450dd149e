"""Power cuts while a run saves: a whole checkpoint is always found, the old one or the new one."""

from __future__ import annotations

import os
import random
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from tensorkeep.checkpoints.keeping import KeepAll, KeepLast, Policy
from tensorkeep.checkpoints.manifest import NAME, FileFacts, Manifest
from tensorkeep.checkpoints.runs import STATE, RunFolder, folder_of, step_of
from tensorkeep.stores import commit
from tensorkeep.training.retention import Retention
from tensorkeep.training.run import Run

sys.path.insert(0, str(Path(__file__).resolve().parent))

from crash_disk import Disk, Recorder, Tree, frozen, leftovers, write  # noqa: E402

RUN = Path("runs/exp1")
EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def opened(path: Path, value: float, keep: Policy) -> tuple[Run, torch.nn.Module]:
    run, model = Run(path, keep=keep), torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.constant_(model.weight, value)
    run.track(model=model)
    return run, model


def save(path: Path, value: float, *steps: int, back: int | None = None, keep: Policy) -> None:
    run, model = opened(path, 0, keep)
    with run:
        run.resume(back)
        torch.nn.init.constant_(model.weight, value)
        for step in steps:
            run.save(step, wait=True)


def manifests(path: Path) -> dict[int, bytes]:
    return {saved.step: (saved.path / NAME).read_bytes() for saved in RunFolder(path).saved()}


@dataclass
class Case:
    """A save that was recorded: what was there before, what is new, when that is durable."""

    disk: Disk
    old: dict[int, bytes]
    new: dict[int, bytes]
    step: int
    committed: int
    values: dict[bytes, float] = field(default_factory=dict)

    def found_is_right(self, found: dict[int, bytes], count: int) -> None:
        for step, text in found.items():
            assert text in (self.old.get(step), self.new.get(step)), f"a mixture in step {step}"
        renewed = found.get(self.step) == self.new[self.step]
        assert renewed or count < self.committed, "what was durable is lost"
        lost = {step for step in self.old if step not in found}
        assert not lost or (renewed and not lost & self.new.keys()), f"lost {lost}"
        if self.old:
            assert max(found) >= max(self.old)


SAVES = {
    "first": ((), 1, None, KeepAll()),
    "retention": ((1, 2), 3, None, KeepLast(1)),
    "replaced": ((1, 2), 2, 1, KeepAll()),
}


def recorded(name: str, bare: bool, folder: Path, patch: pytest.MonkeyPatch) -> Case:
    before, step, back, keep = SAVES[name]
    folder.mkdir()
    for each in before:
        save(folder / RUN, each, each, keep=KeepAll())
    old, disk = manifests(folder / RUN), Disk(folder)
    with patch.context() as context:
        Recorder(disk, context, bare=bare)
        save(folder / RUN, 9, step, back=back, keep=keep)
    assert disk.tree_of(disk.now) == Disk(folder).tree_of(Disk(folder).start), "a call was missed"
    new = manifests(folder / RUN)
    values = {text: float(each) for each, text in old.items()} | {new[step]: 9.0}
    return Case(disk, old, new, step, _committed(disk, folder_of(step)), values)


def _committed(disk: Disk, name: str) -> int:
    run = disk.node(disk.root / RUN)
    target = (run, name, disk.node(disk.root / RUN / name))
    renamed = max(i for i, op in enumerate(disk.ops) if target in op.entries)
    return 1 + next(
        i for i, op in enumerate(disk.ops) if i > renamed and (op.kind, op.node) == ("sync", run)
    )


CASES = [(name, bare) for name in SAVES for bare in (False, True)]
Check = Callable[[Path, int], None]


@pytest.fixture(params=CASES, ids=lambda each: each[0] + ("-bare" if each[1] else ""))
def case(request, tmp_path, monkeypatch) -> Case:
    made = recorded(*request.param, tmp_path / "recorded", monkeypatch)
    # What follows asks what is found, and waiting for a real disk would answer nothing.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    return made


def plainly(case: Case) -> Check:
    """Recover, look, save once more, keep that one: without torch."""

    def check(run: Path, count: int) -> None:
        if run.exists():
            commit.recover(run, lambda name: step_of(name) is not None)
            assert not [name for name in leftovers(run) if step_of(name.split(".")[0])]
            assert not commit.recover(run, lambda name: True)
            for saved in RunFolder(run).saved():
                assert not list(saved.damage())
        case.found_is_right(manifests(run), count)
        run.mkdir(parents=True, exist_ok=True)
        with commit.FolderCommit(run / folder_of(50)) as made:
            made.put(STATE, b"")
            made.put(
                NAME, Manifest(50, {STATE: FileFacts(0, EMPTY)}, "2026-01-01", serial=99).to_bytes()
            )
            made.commit()
        Retention(RunFolder(run), KeepLast(1)).apply()
        assert manifests(run).keys() == {50}

    return check


def really(case: Case) -> Check:
    """The same by a run of torch, which takes up the weights."""

    def check(path: Path, count: int) -> None:
        run, model = opened(path, 0, KeepAll())
        with run:
            found = manifests(path)
            case.found_is_right(found, count)
            assert run.resume() == max(found, default=0)
            if found:
                value = case.values[found[max(found)]]
                assert torch.equal(model.weight, torch.full((1, 2), value))
            run.save(50, wait=True)
        assert not leftovers(path)
        assert not list(RunFolder(path).at(50).damage())

    return check


def distinct(crashes: Iterable[tuple[int, Tree]]) -> dict[object, tuple[int, Tree]]:
    """Each state once, after the longest prefix that leads to it: it promises the most."""
    return {frozen(tree): (count, tree) for count, tree in crashes}


def run_through(
    states: Iterable[tuple[int, Tree]], check: Check, folder: Path, sample: int | None
) -> int:
    chosen = list(states)
    if sample is not None and len(chosen) > sample:
        chosen = random.Random(len(chosen)).sample(chosen, sample)
    for count, tree in chosen:
        write(tree, folder)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check(folder / RUN, count)
        shutil.rmtree(folder)
    return len(chosen)


def test_a_power_cut(case, tmp_path) -> None:
    states = distinct(case.disk.crashes()).values()
    assert len(states) > 70
    run_through(states, plainly(case), tmp_path / "again", None)
    run_through(states, really(case), tmp_path / "again", 5)


def killed_and_recovered(
    case: Case, folder: Path, patch: pytest.MonkeyPatch
) -> Iterator[tuple[int, Disk]]:
    """The process is killed after each operation, the next one recovers; both are recorded."""
    for count in range(len(case.disk.ops) + 1):
        disk = case.disk.moved(count, folder)
        if (folder / RUN).exists():
            with patch.context() as context:
                Recorder(disk, context)
                commit.recover(folder / RUN, lambda name: step_of(name) is not None)
            if len(disk.ops) > count:
                yield count, disk
        shutil.rmtree(folder)


def states_of_two_faults(
    case: Case, folder: Path, patch: pytest.MonkeyPatch
) -> list[tuple[int, Tree]]:
    seen: dict[object, tuple[int, Tree]] = {}
    for killed, disk in killed_and_recovered(case, folder, patch):
        # What the killed one had not promised nobody has.
        seen |= distinct((killed, tree) for _, tree in disk.crashes(killed))
    return list(seen.values())


def test_a_power_cut_while_the_next_run_recovers_what_a_kill_left(
    case, tmp_path, monkeypatch
) -> None:
    states = states_of_two_faults(case, tmp_path / "killed", monkeypatch)
    assert len(states) > 30
    run_through(states, plainly(case), tmp_path / "again", 60)


@pytest.mark.long
def test_every_power_cut(case, tmp_path, monkeypatch) -> None:
    each = [*case.disk.crashes(), *case.disk.random_crashes(2000, seed=5)]
    two = states_of_two_faults(case, tmp_path / "killed", monkeypatch)
    states = distinct(each).values()
    print(f"{len(each)} cuts, {len(states)} states; {len(two)} of two faults")
    for check in (plainly(case), really(case)):
        run_through([*states, *two], check, tmp_path / "again", None)


@pytest.mark.parametrize("unsynced", [bytes, dict], ids=["files", "folders"])
def test_the_disk_tells_of_a_commit_that_does_not_sync(tmp_path, monkeypatch, unsynced) -> None:
    # A model that finds nothing proves nothing.
    case = recorded("replaced", False, tmp_path / "recorded", monkeypatch)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    disk = case.disk
    disk.ops = [op for op in disk.ops if op.kind != "sync" or disk.kinds[op.node] is not unsynced]
    case.committed = len(disk.ops) + 1
    states = distinct(disk.random_crashes(300, seed=1)).values()
    with pytest.raises(AssertionError):
        run_through(states, plainly(case), tmp_path / "again", None)
