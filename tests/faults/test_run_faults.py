"""A run whose disk fills up, whose bits flip, whose process is killed: what was good stays good."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorkeep.checkpoints.keeping import KeepAll, KeepBest, KeepEvery, KeepLast, KeepWithin
from tensorkeep.checkpoints.manifest import NAME, FileFacts, Manifest
from tensorkeep.checkpoints.runs import RUN, STATE, RunFolder, folder_of
from tensorkeep.errors import AccessDenied, NoSpace, StoreError, TensorkeepError, TensorkeepWarning
from tensorkeep.stores import commit
from tensorkeep.stores.local import kernel
from tensorkeep.training.reading import Opened
from tensorkeep.training.retention import Retention
from tensorkeep.training.run import Run

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def opened(path: Path, value: float = 0, width: int = 2, **options) -> tuple[Run, torch.nn.Module]:
    run, model = Run(path, **options), torch.nn.Linear(width, 1, bias=False)
    torch.nn.init.constant_(model.weight, value)
    run.track(model=model)
    return run, model


def made(path: Path, *steps: int, width: int = 2) -> Path:
    """A run of these steps; the weights are the step."""
    run, model = opened(path, width=width)
    with run:
        for step in steps:
            torch.nn.init.constant_(model.weight, step)
            run.save(step, wait=True)
    return path


def whole(path: Path) -> list[int]:
    return [saved.step for saved in RunFolder(path).saved() if not list(saved.damage())]


def value_of(path: Path) -> tuple[int, float]:
    run, model = opened(path, -1)
    with run:
        return run.resume(), model.weight[0, 0].item()


# Killed.

KILLED = """
import json, os, random, signal, sys, time, warnings
from pathlib import Path
import torch
from tensorkeep.checkpoints.keeping import KeepLast
from tensorkeep.checkpoints.runs import RunFolder
from tensorkeep.training.run import Run
warnings.simplefilter("error")
torch.set_num_threads(1)
path, many, chance = Path(sys.argv[1]), int(sys.argv[2]), random.Random(7)

def opened():
    run, model = Run(path, keep=KeepLast(2)), torch.nn.Linear(64, 64)
    run.track(model=model)
    return run, model, run.resume()

def child(told):
    run, model, step = opened()
    own = random.Random(os.getpid())
    while True:
        if step > 1 and own.random() < 0.3:
            step = run.resume(RunFolder(path).saved()[-2].step)  # go back, and replace
        step += 1
        torch.nn.init.constant_(model.weight, step)
        run.save(step, wait=True)
        os.write(told, f"{step} ".encode())

left = 0
for _ in range(many):
    reading, told = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            child(told)
        finally:
            os._exit(1)
    os.close(told)
    first = os.read(reading, 1)
    time.sleep(chance.random() * 0.05)
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    durable = int((first + os.read(reading, 1 << 16)).split()[-1])
    os.close(reading)
    left += any("." in each.name for each in path.glob("step-*"))
    assert not [d for saved in RunFolder(path).saved() for d in saved.damage()]
    run, model, step = opened()
    assert step >= durable, (step, durable)
    assert bool((model.weight == step).all())
    run.close()
    assert not list(path.glob("step-*.*"))
print(json.dumps({"kills": many, "left something": left, "step": step}))
"""


@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=pytest.mark.long)])
def test_killed_at_random_moments(tmp_path, root, kills) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "run", str(kills)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(root / "src")},
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    assert json.loads(done.stdout)["kills"] == kills


UNASKED = """
import os, sys
from tensorkeep.training.run import Run
run = Run(sys.argv[1])
def full(*_):
    raise OSError(28, "No space left on device")
os.pwrite = full
run.save(1)
"""


def test_an_error_of_the_last_save_is_said_when_the_program_ends(tmp_path, root) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNASKED, tmp_path / "run"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(root / "src")},
    )
    assert "NoSpace" in done.stderr
    assert "model" in done.stderr or "step-00000001" in done.stderr


# A call that fails.

CALLS = ["pwrite", "fsync", "mkdir", "rename", "replace", "open", "ftruncate", "unlink", "rmdir"]
ERRORS = {"pwrite": errno.ENOSPC, "mkdir": errno.ENOSPC, "open": errno.ENOSPC}


class Failing:
    """The `number`th call of `name` below `folder` fails, and those after it if it `stays` so."""

    def __init__(self, name: str, number: int, code: int, *, stays: bool) -> None:
        self.reached = False
        self._name, self._number, self._code, self._stays = name, number, code, stays
        self._count = 0

    def __enter__(self) -> Failing:
        self._patch = pytest.MonkeyPatch()
        owner = kernel if self._name == "exchange" else os
        name = "rename" if self._name == "exchange" else self._name
        real = getattr(owner, name)

        def call(*arguments, **options):
            if name == "open" and not arguments[1] & os.O_CREAT:
                return real(*arguments, **options)
            self._count += 1
            if self._count == self._number or (self._stays and self._count > self._number):
                self.reached = True
                raise OSError(self._code, os.strerror(self._code))
            return real(*arguments, **options)

        self._patch.setattr(owner, name, call)
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


def save_under(failing: Failing, path: Path, back: int | None, step: int, keep) -> bool:
    """Whether the save went well; an error must be one of ours."""
    run, _ = opened(path, keep=keep)
    try:
        run.resume(back)
        with failing:
            run.save(step)
            run.wait()
    except TensorkeepError:
        return False
    finally:
        run.close()
    return True


@pytest.mark.filterwarnings("ignore::tensorkeep.errors.TensorkeepWarning")
@pytest.mark.parametrize("stays", [False, True], ids=["once", "from-then-on"])
@pytest.mark.parametrize("bare", [False, True], ids=["linux", "bare"])
@pytest.mark.parametrize("name", [*CALLS, "exchange"])
def test_every_call_fails_in_turn(tmp_path, monkeypatch, name, bare, stays) -> None:
    if bare:
        monkeypatch.setattr(kernel, "_function", lambda name: None)
    template = made(tmp_path / "template", 1, 2)
    cases = [(None, 3, KeepLast(1)), (1, 2, KeepAll())]
    for back, step, keep in cases:
        for number in range(1, 60):
            path = tmp_path / f"run{number}"
            shutil.copytree(template, path)
            failing = Failing(name, number, ERRORS.get(name, errno.EIO), stays=stays)
            went_well = save_under(failing, path, back, step, keep)
            assert [saved.step for saved in RunFolder(path).saved()] == whole(path)
            run, _ = opened(path)  # which ends what was interrupted
            with run:
                found = whole(path)
                assert run.resume() == max(found) >= 2
                run.save(9, wait=True)
            if went_well and step == 3:
                assert 3 in found
            elif not went_well:
                assert {1, 2} <= set(found), "deleted, although the save failed"
            assert whole(path) == [*found, 9]
            assert not list(path.glob("step-*.*"))
            shutil.rmtree(path)
            if not failing.reached:
                break
        else:
            raise AssertionError("it never ended")


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_is_full(tmp_path) -> None:
    path = made(tmp_path / "run", 1, width=200_000)
    run, _ = opened(path, 2, width=200_000, keep=KeepLast(1))
    with run:
        run.resume()
        # Of 4 kB the generators are larger, too, and several files are written at once.
        for limit, file in ((4096, "(model|rng)"), (300_000, "model"), (799_000, "model")):
            with largest_file(limit), pytest.raises(NoSpace, match=rf"{file}\.safetensors"):
                run.save(2, wait=True)
            assert [each.name for each in path.glob("step-*")] == ["step-00000001"]
        run.save(2, wait=True)
    assert whole(path) == [2]


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 3 MB, where this process may mount one."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=3m", "tensorkeep-test", folder]
    if os.geteuid() or subprocess.run(options, check=False, capture_output=True).returncode:
        pytest.skip("no right to mount")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_small_disk_that_fills_up(small_disk) -> None:
    path = made(small_disk / "run", 1, width=300_000)
    run, _ = opened(path, 2, width=300_000)
    with run:
        run.resume()
        run.save(2, wait=True)
        with pytest.raises(NoSpace):
            run.save(3, wait=True)
    assert whole(path) == [1, 2]
    assert len(list(path.glob("step-*"))) == 2
    run, _ = opened(path, 3, width=300_000)
    with run:
        assert run.resume() == 2
        commit.delete(path / folder_of(1))
        run.save(3, wait=True)
    assert whole(path) == [2, 3]


def test_a_disk_that_is_read_only(small_disk) -> None:
    path = made(small_disk / "run", 1, 2)
    (path / (folder_of(3) + commit.WRITING)).mkdir()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    before = sorted(small_disk.rglob("*"))
    assert whole(path) == [1, 2]
    with pytest.raises(AccessDenied, match="Read-only"):
        Run(path)
    with pytest.raises(AccessDenied, match="Read-only"):
        Run(small_disk / "another")
    assert sorted(small_disk.rglob("*")) == before


# Bytes that are others.


def named(path: Path, step: int) -> set[str]:
    return {each.file for each in RunFolder(path).at(step).damage()}


def flipped(path: Path, victim: Path, positions: range) -> int:
    data = victim.read_bytes()
    for at in positions:
        other = bytearray(data)
        other[at] ^= 1 << at % 8
        victim.write_bytes(other)
        assert named(path, 1) == {victim.name}, at
        with pytest.raises(TensorkeepError):
            Opened(RunFolder(path).at(1))
    victim.write_bytes(data)
    assert not named(path, 1)
    return len(positions)


def test_a_flipped_bit_is_named_and_never_loaded(tmp_path) -> None:
    path = made(tmp_path / "run", 1)
    for victim in sorted((path / folder_of(1)).iterdir()):
        size = victim.stat().st_size
        flipped(path, victim, range(0, size, max(1, size // 60)))


@pytest.mark.long
def test_every_byte_flipped(tmp_path) -> None:
    path = made(tmp_path / "run", 1)
    for victim in sorted((path / folder_of(1)).iterdir()):
        print(victim.name, flipped(path, victim, range(victim.stat().st_size)))


def test_a_flipped_bit_in_run_json(tmp_path) -> None:
    path = made(tmp_path / "run", 1, 2)
    data = (path / RUN).read_bytes()
    for at in range(len(data)):
        other = bytearray(data)
        other[at] ^= 4
        (path / RUN).write_bytes(other)
        with pytest.raises(TensorkeepError):
            RunFolder(path).settings()
    assert value_of(path) == (2, 2)
    RunFolder(path).settings()


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def as_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def as_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


WAYS: list[Callable[[Path], None]] = [
    Path.unlink, cut, lambda file: os.truncate(file, 0), longer, as_folder, as_pipe,
]  # fmt: skip
NAMES = ["missing", "cut", "empty", "longer", "folder", "pipe"]


@pytest.mark.parametrize("victim", ["manifest.json", "state.json", "model.safetensors"])
@pytest.mark.parametrize("way", WAYS, ids=NAMES)
def test_a_file_that_is_not_what_it_was(tmp_path, way, victim) -> None:
    path = made(tmp_path / "run", 1, 2)
    way(path / folder_of(2) / victim)
    assert named(path, 2) == {victim}
    with pytest.warns(TensorkeepWarning, match=f"step 2 is skipped.*{victim}"):
        assert value_of(path) == (1, 1)
    run, _ = opened(path, keep=KeepLast(1))
    with run, pytest.warns(TensorkeepWarning, match="skipped"):
        run.resume()
        run.save(2, wait=True)  # gone back behind it: it is replaced, whatever it is
    assert whole(path) == [2]
    assert len(list(path.glob("step-*"))) == 1


def test_files_of_others_stay_and_do_no_harm(tmp_path) -> None:
    path = made(tmp_path / "run", 1, 2)
    (path / "notes.txt").write_text("mine")
    (path / "step-00000001.old").mkdir()
    (path / "step-00000001.old/kept").write_text("a copy")
    (path / "step-00000009").write_text("a file")
    (path / "step-00000008").mkdir()
    (path / "step-3").mkdir()
    (path / "step-00000004.tmp").write_text("a file")
    (path / folder_of(2) / "notes").mkdir()
    before = {
        each: each.is_dir() or each.read_bytes() for each in path.rglob("*") if each.name != ".lock"
    }
    with pytest.warns(TensorkeepWarning, match="step 8 is skipped"):
        assert value_of(path) == (2, 2)
    assert {each: each.is_dir() or each.read_bytes() for each in before} == before
    run, _ = opened(path, keep=KeepLast(1))
    with run, pytest.warns(TensorkeepWarning, match="step 8 is skipped"):
        run.resume()
        run.save(4, wait=True)
    assert whole(path) == [4]
    assert (path / "step-00000001.old/kept").read_text() == "a copy"
    assert not (path / folder_of(2)).exists()  # with what was put into it, as a policy says


@pytest.mark.parametrize("ending", [commit.WRITING, commit.DELETING, commit.ASIDE])
def test_folders_in_what_is_left_do_not_keep_a_run_from_opening(tmp_path, ending) -> None:
    path = made(tmp_path / "run", 1)
    deep = path / (folder_of(1) + ending)
    for _ in range(300):
        deep = deep / "deep"
    deep.mkdir(parents=True)
    (deep / "file").write_text("")
    assert value_of(path) == (1, 1)
    assert not list(path.glob("step-*.*"))


def test_what_cannot_be_deleted_is_said_and_does_no_harm(tmp_path, monkeypatch) -> None:
    path = made(tmp_path / "run", 1)
    (path / (folder_of(2) + commit.DELETING)).mkdir()
    with Failing("rmdir", 1, errno.EACCES, stays=True):
        run, _ = opened(path)
    with run:
        assert "cannot be deleted: Permission denied" in run.recovered[0]
        assert run.resume() == 1


# A clock that jumps.

POLICIES = [KeepWithin(hours=1), KeepLast(1), KeepLast(2), KeepEvery(3), KeepBest("loss")]
JUMPS = st.integers(-(10**6), 10**6) | st.sampled_from([0, 3600, 10**11, -(10**10)])
CREATED = JUMPS.map(lambda s: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=s))
TIMES = CREATED.map(datetime.isoformat) | st.sampled_from(
    ["", "never", "0001-01-01T00:00:00+14:00"]
)


def put(path: Path, step: int, created: str, metrics: dict[str, float]) -> None:
    facts = {STATE: FileFacts(0, EMPTY)}
    with commit.FolderCommit(path / folder_of(step)) as folder:
        folder.put(STATE, b"")
        folder.put(NAME, Manifest(step, facts, created, metrics=metrics).to_bytes())
        folder.commit()


@settings(max_examples=40)
@given(st.lists(st.tuples(TIMES, st.floats(-3, 3)), min_size=2, max_size=5), st.data())
def test_the_newest_stays_whatever_the_clock_says(tmp_path_factory, times, data) -> None:
    path = tmp_path_factory.mktemp("run")
    policy = data.draw(st.sampled_from(POLICIES))
    retention = Retention(RunFolder(path), policy)
    for step, (created, loss) in enumerate(times, start=1):
        put(path, step, created, {"loss": loss})
        retention.apply()
        assert whole(path)[-1] == step
        if isinstance(policy, KeepLast):
            assert whole(path) == list(range(max(1, step - policy.count + 1), step + 1))


def test_a_store_error_is_what_all_damaged_is(tmp_path) -> None:
    path = made(tmp_path / "run", 1)
    (path / folder_of(1) / NAME).unlink()
    with pytest.warns(TensorkeepWarning), pytest.raises(StoreError, match="1 damaged"):
        value_of(path)
