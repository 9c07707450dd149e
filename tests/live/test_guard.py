"""Under a guard `torch.load` gives what it gives without, where that is data, and runs nothing."""

from __future__ import annotations

import contextvars
import inspect
import io
import json
import multiprocessing
import pickle
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from torch import load as early_load

import tensorkeep as tk
from tensorkeep import errors
from tensorkeep.formats.contents import Inert
from tensorkeep.live import assembling

HERE = str(Path(__file__).resolve().parent)
sys.path[:0] = [HERE, str(Path(__file__).parents[1] / "benign")]
import trusted_zoo as zoo  # noqa: E402
from catalogue import CASES  # noqa: E402
from likeness import differences  # noqa: E402

ROOMS = ("tensor/", "zip/", "legacy/", "plain/", "optimizer/", "state/", "model/")


def saved(value: object, path: Path, **options: object) -> Path:
    torch.save(value, path, **options)
    return path


def value() -> dict[str, object]:
    return {"a": torch.arange(6.0).view(2, 3), "epoch": 3, "x": [{"b": torch.ones(2)}]}


@pytest.fixture
def hostile(hostile_digits: Path) -> Path:
    return hostile_digits


# Of plain values torch.load takes those in its own files, not the bare pickles.
SAVED = [n for n in CASES if n.startswith(ROOMS) and (n[:6] != "plain/" or n.endswith("-zip"))]


@pytest.mark.parametrize("name", SAVED)
def test_honest_files_load_as_without_a_guard(name: str, tmp_path: Path) -> None:
    path = CASES[name](tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says of some layouts that they are new or old
        try:
            wanted = torch.load(path, weights_only=False)
        except Exception as error:  # of another torch, say
            pytest.skip(f"torch does not load it: {error}")
        with tk.guard():
            found = torch.load(path, weights_only=False)
            mapped = torch.load(path, weights_only=False, mmap=True)
    assert list(differences(wanted, found)) == []
    assert list(differences(wanted, mapped)) == []


def test_every_reference_to_the_function_is_guarded(hostile: Path) -> None:
    class Holder:
        kept = staticmethod(torch.load)

    def default(path: Path, function=torch.load) -> object:
        return function(path, weights_only=False)

    with tk.guard(require="safe") as guarded:
        from torch import load as late_load

        for function in (early_load, late_load, torch.serialization.load, Holder.kept, default):
            with pytest.raises(errors.NotSafe):
                function(hostile)
    assert len(guarded.log.refused) == 5


def test_the_signature_stays_what_it_was() -> None:
    before = str(inspect.signature(torch.load))
    with tk.guard():
        assert str(inspect.signature(torch.load)) == before


def test_everything_is_given_back(tmp_path: Path) -> None:
    path = saved(zoo.Config(), tmp_path / "x.pt")
    before = torch.load.__code__, torch.jit.load.__code__, list(sys.meta_path)
    init = torch.package.PackageImporter.__init__
    with pytest.raises(ZeroDivisionError), tk.guard():
        assert isinstance(quietly(path), Inert)
        with tk.guard():
            pass
        assert isinstance(quietly(path), Inert)
        raise ZeroDivisionError
    assert (torch.load.__code__, torch.jit.load.__code__, list(sys.meta_path)) == before
    assert torch.package.PackageImporter.__init__ is init
    assert isinstance(torch.load(path, weights_only=False), zoo.Config)


def test_a_guard_ends_wherever_it_is_left(tmp_path: Path) -> None:
    """Fixtures and asynchronous generators leave it where another context counts."""
    path = saved(zoo.Config(), tmp_path / "x.pt")
    guarded = tk.guard()
    contextvars.copy_context().run(guarded.__enter__)
    guarded.__exit__(None, None, None)
    assert isinstance(torch.load(path, weights_only=False), zoo.Config)
    guarded.start()
    assert isinstance(quietly(path), Inert)
    guarded.stop()
    guarded.stop()
    assert isinstance(torch.load(path, weights_only=False), zoo.Config)


def quietly(path: object, **options: object) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.NotSafeWarning)
        return torch.load(path, weights_only=False, **options)


@pytest.mark.parametrize("legacy", [False, True])
def test_files_that_stand_anywhere(tmp_path: Path, legacy: bool) -> None:
    options = {"_use_new_zipfile_serialization": not legacy}
    buffer = io.BytesIO(b"x" * 20)
    buffer.seek(20)
    torch.save(value(), buffer, **options)
    (tmp_path / "x.bin").write_bytes(buffer.getvalue())
    with tk.guard(require="safe"):
        buffer.seek(20)
        assert list(differences(value(), torch.load(buffer))) == []
        for buffering in (-1, 0):
            with (tmp_path / "x.bin").open("rb", buffering) as file:
                file.seek(20)
                assert list(differences(value(), torch.load(file))) == []
        start = io.BytesIO(buffer.getvalue()[20:])
        assert list(differences(value(), torch.load(start))) == []


def test_map_location(tmp_path: Path) -> None:
    path = saved(value(), tmp_path / "x.pt")
    seen = []

    def asked(storage: object, location: str) -> object:
        seen.append(location)
        return storage

    with tk.guard(require="safe"):
        assert torch.load(path, "meta")["a"].device.type == "meta"
        assert torch.load(path, map_location=torch.device("cpu"))["a"].sum() == 15
        assert torch.load(path, map_location={"cpu": "meta"})["a"].device.type == "meta"
        assert torch.load(path, map_location=asked)["a"].sum() == 15
        with torch.device("meta"):
            assert torch.load(path)["a"].sum() == 15
    assert seen == ["cpu", "cpu"]


def test_weights_of_a_device_that_is_not_here_go_to_the_host(tmp_path: Path) -> None:
    path = saved({"w": torch.ones(3)}, tmp_path / "x.pt")
    # The location stands in the pickle, as short text.
    (tmp_path / "y.pt").write_bytes(path.read_bytes())
    data = pickle_of(path).replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:7")
    replace_pickle(tmp_path / "y.pt", data)
    with tk.guard():
        assert torch.load(tmp_path / "y.pt")["w"].device.type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="it is here")
@pytest.mark.parametrize("asked", ["cuda", torch.device("cuda:0"), {"cpu": "cuda:1"}, "nothing"])
def test_a_device_that_the_program_asks_for_and_is_not_here_is_torchs_error(
    tmp_path: Path, asked: object
) -> None:
    path = saved({"w": torch.ones(3)}, tmp_path / "x.pt")
    with pytest.raises(RuntimeError) as wanted:
        torch.load(path, map_location=asked)
    with tk.guard(), pytest.raises(RuntimeError) as found:
        torch.load(path, map_location=asked)
    assert str(found.value) == str(wanted.value)
    with tk.guard():  # of other places of a file nobody asked
        assert torch.load(path, map_location={"cuda:0": "cuda:1"})["w"].sum() == 3


def pickle_of(path: Path) -> bytes:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        return archive.read(name)


def replace_pickle(path: Path, data: bytes) -> None:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, data if name.endswith("data.pkl") else content)


def test_errors_are_those_that_programs_expect(tmp_path: Path, hostile: Path) -> None:
    (tmp_path / "junk.pt").write_bytes(b"junk")
    (tmp_path / "empty.pt").write_bytes(b"")
    with tk.guard(require="safe") as guarded:
        with pytest.raises(FileNotFoundError):
            torch.load(tmp_path / "absent.pt")
        with pytest.raises(IsADirectoryError):
            torch.load(tmp_path)
        for name in ("junk.pt", "empty.pt"):
            with pytest.raises(RuntimeError) as caught:
                torch.load(tmp_path / name)
            assert isinstance(caught.value, tk.TensorkeepError)
        with pytest.raises(pickle.UnpicklingError):
            torch.load(hostile)
    outcomes = [event.outcome for event in guarded.log.events]
    assert outcomes == ["failed"] * 4 + ["refused"]


def test_what_is_not_trusted_is_inert_and_says_so(tmp_path: Path) -> None:
    path = saved({"w": torch.ones(2), "config": zoo.Config(), "net": zoo.Net()}, tmp_path / "x.pt")
    with tk.guard() as guarded, pytest.warns(errors.NotSafeWarning, match="trusted_zoo.Config"):
        found = torch.load(path, weights_only=False)
    assert found["w"].sum() == 2
    assert "trusted_zoo.Config" in repr(found["config"])
    with pytest.raises(AttributeError, match="trust=.'trusted_zoo.Config'"):
        found["config"].width  # noqa: B018
    assert not hasattr(found["config"], "width")
    # A module gives its weights all the same.
    assert list(found["net"].state_dict()) == list(zoo.Net().state_dict())
    with pytest.raises(AttributeError, match="trusted_zoo.Net"):
        found["net"].block  # noqa: B018
    (event,) = guarded.log.events
    assert (event.outcome, event.verdict) == ("loaded", "suspicious")
    assert set(event.inert) >= {"trusted_zoo.Config", "trusted_zoo.Net"}


def test_names_of_the_file_are_no_markup_and_not_endless(tmp_path: Path) -> None:
    names = [b"a\x1b[31m", b"b" * 900, *(b"c%d" % n for n in range(9))]
    made = b"".join(b"cother\n%s\n)R" % name for name in names)
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02(" + made + b"l.")
    with tk.guard() as guarded, pytest.warns(errors.NotSafeWarning) as warned:
        torch.load(tmp_path / "x.pkl", weights_only=False)
    (event,) = guarded.log.events
    assert len(event.inert) == len(names)
    for text in (str(warned[0].message), guarded.log.summary()[1]):
        assert "other.a\\x1b[31m" in text
        assert text.isprintable()
        assert len(text) < 1000
        assert " and 6 more" in text


def test_what_is_trusted_is_made(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = zoo.Net()
    path = saved({"net": net, "config": net.config}, tmp_path / "x.pt")
    with tk.guard(require="safe", trust=zoo.NAMES) as guarded:
        found = torch.load(path, weights_only=False)
    x = torch.randn(2, 3)
    assert torch.equal(found["net"](x), net(x))
    assert found["config"] is found["net"].config
    (event,) = guarded.log.events
    assert event.verdict == "safe"
    assert event.made["trusted_zoo.Net"] == 1
    assert event.inert == []


def test_values_of_the_standard_library_are_themselves(tmp_path: Path) -> None:
    import datetime
    import decimal
    import uuid

    held = {
        "when": datetime.datetime(2024, 2, 3, 4, 5, 6),
        "delta": datetime.timedelta(1, 2),
        "path": Path("/data/x"),
        "cost": decimal.Decimal("1.50"),
        "id": uuid.UUID(int=7),
    }
    for protocol in (2, 4):
        path = saved(held, tmp_path / "x.pt", pickle_protocol=protocol)
        with tk.guard(require="safe"):
            assert torch.load(path, weights_only=False) == held


def test_nothing_comes_between_the_look_and_the_load(tmp_path: Path, hostile: Path) -> None:
    """The file under the name is exchanged after it was judged: what was judged is loaded."""
    path = saved(value(), tmp_path / "x.pt")
    made = assembling.make

    def exchange(*args: object) -> object:
        (tmp_path / "y.pt").write_bytes(hostile.read_bytes())
        (tmp_path / "y.pt").replace(path)
        return made(*args)

    with pytest.MonkeyPatch.context() as patch, tk.guard(require="safe"):
        patch.setattr(assembling, "make", exchange)
        assert list(differences(value(), torch.load(path))) == []


def test_a_file_that_is_written_to_meanwhile_is_an_error(tmp_path: Path) -> None:
    path = saved(value(), tmp_path / "x.pt")
    made = assembling.make

    def overwrite(*args: object) -> object:
        with path.open("r+b") as file:
            file.truncate(100)
        return made(*args)

    with pytest.MonkeyPatch.context() as patch, tk.guard():
        patch.setattr(assembling, "make", overwrite)
        with pytest.raises(RuntimeError):
            torch.load(path)


def test_threads_and_nesting(tmp_path: Path, hostile: Path) -> None:
    answers: dict[str, object] = {}
    inside, done = threading.Event(), threading.Event()

    def other() -> None:
        with tk.guard() as own:
            inside.set()
            done.wait(10)
            answers["own"] = quietly(hostile)["epoch"]
            answers["log"] = len(own.log.events)

    def bare() -> None:
        try:
            quietly(hostile)
        except errors.NotSafe as error:
            answers["bare"] = type(error).__name__

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    with tk.guard(require="safe") as guarded:
        with pytest.raises(errors.NotSafe):
            torch.load(hostile)  # this thread's own, not the other's
        one = threading.Thread(target=bare)
        one.start()
        one.join()
        with tk.guard():
            assert quietly(hostile)["epoch"] == 12
        with pytest.raises(errors.NotSafe):
            torch.load(hostile)
    done.set()
    thread.join()
    assert answers == {"own": 12, "log": 1, "bare": "Refused"}
    assert len(guarded.log.refused) == 3


def _in_child(path: Path, answers: multiprocessing.Queue) -> None:
    try:
        torch.load(path, weights_only=False)
    except Exception as error:
        answers.put(type(error).__name__)


def test_forked_children_are_guarded(hostile: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with tk.guard(require="safe"):
        child = context.Process(target=_in_child, args=(hostile, answers))
        child.start()
        assert answers.get(timeout=30) == "Refused"
        child.join(30)


def test_the_log_is_lines_of_json(tmp_path: Path, hostile: Path) -> None:
    log = tmp_path / "log.jsonl"
    with tk.guard(log=log) as guarded:
        quietly(hostile)
        quietly(saved(value(), tmp_path / "x.pt"))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines == [event.to_dict() for event in guarded.log.events]
    assert [line["verdict"] for line in lines] == ["dangerous", "safe"]
    assert "os.system" in lines[0]["findings"][0]
    assert guarded.log.summary()[0].startswith("2 loads: 2 loaded")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripts_are_judged_by_the_bytes_that_are_loaded(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    x = torch.ones(1, 2)
    wanted = torch.jit.load(path)(x)
    reading = io.BytesIO(path.read_bytes())
    behind = io.BytesIO(b"x" * 5 + path.read_bytes())
    behind.seek(5)
    with tk.guard() as guarded, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.load says that it is a script
        assert torch.equal(torch.jit.load(path)(x), wanted)
        assert torch.equal(torch.jit.load(reading)(x), wanted)
        assert torch.equal(torch.load(path, weights_only=False)(x), wanted)
        assert torch.equal(torch.load(behind, weights_only=False)(x), wanted)
    calls = [(event.call, event.verdict) for event in guarded.log.events]
    assert calls == [("torch.jit.load", "safe")] * 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_script_that_reaches_files_is_refused(tmp_path: Path) -> None:
    class Reads(torch.nn.Module):
        def forward(self, x):
            return torch.from_file("/tmp/never", False, 1) + x

    path = tmp_path / "script.pt"
    torch.jit.script(Reads()).save(path)
    with tk.guard(), pytest.raises(errors.NotSafe, match="left inert"):
        torch.jit.load(path)


def test_packages_are_code_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "package.pt"
    with torch.package.PackageExporter(path) as exporter:
        exporter.save_source_string("mine", "raise SystemExit('run')")
    with tk.guard(), pytest.raises(errors.NotSafe):
        torch.package.PackageImporter(path)


def test_distributed_checkpoints_load(tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = {"w": torch.arange(4.0), "step": 3}
        dcp.save(dict(state), checkpoint_id=tmp_path / "run", no_dist=True)
        found = {"w": torch.zeros(4), "step": 0}
        with tk.guard(require="safe") as guarded:
            dcp.load(found, checkpoint_id=tmp_path / "run", no_dist=True)
    assert list(differences(state, found)) == []
    assert guarded.log.events[0].call == "torch.distributed.checkpoint"

    (tmp_path / "run" / ".metadata").write_bytes(b"\x80\x04\x8c\x02os\x8c\x06getpid\x93)R.")
    with tk.guard(), pytest.raises(errors.NotSafe, match="getpid"):
        dcp.FileSystemReader(tmp_path / "run").read_metadata()


def test_storages_in_a_pickle_of_pythons_own(tmp_path: Path) -> None:
    data = pickle.dumps({"w": torch.arange(3.0)})
    with tk.guard(require="safe") as guarded:
        assert torch.equal(pickle.loads(data)["w"], torch.arange(3.0))
    assert guarded.log.events[0].path == "<BytesIO>"


@pytest.mark.parametrize("given", [{"require": "Safe"}, {"trust": "a.B"}, {"trust": ["os.system"]}])
def test_what_a_guard_cannot_be_told(given: dict[str, object]) -> None:
    with pytest.raises(errors.BadArgument):
        tk.guard(**given)
