"""`load(nested=True)` gives what `torch.load(weights_only=False)` gives, and runs nothing."""

from __future__ import annotations

import collections
import pickle
import sys
import warnings
from pathlib import Path

import pytest
import torch

import tensorkeep as tk
from tensorkeep import errors
from tensorkeep.dtypes import BY_NAME
from tensorkeep.formats.contents import Inert, Storage, TensorRecord
from tensorkeep.live.devices import HOST
from tensorkeep.live.saved import SavedModule
from tensorkeep.live.sharing import Sharing
from tensorkeep.stores.memory import MemoryBlob

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).parents[1] / "benign")]
from catalogue import CASES  # noqa: E402
from likeness import differences  # noqa: E402

ROOMS = (
    "tensor/",
    "zip/",
    "legacy/",
    "plain/",
    "optimizer/",
    "scheduler/",
    "state/",
    "safetensors",
)


def like_torch(path: Path, **options: bool) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says of some layouts that they are new or old
        if path.suffix == ".pkl":
            wanted = pickle.loads(path.read_bytes())
        else:
            wanted = torch.load(path, weights_only=False)
        return list(differences(wanted, tk.load(path, nested=True, **options)))


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith(ROOMS)])
def test_honest_files_load_as_torch_loads_them(name: str, tmp_path: Path) -> None:
    path = CASES[name](tmp_path)
    if path.suffix == ".safetensors":
        return
    assert like_torch(path) == []
    assert like_torch(path, mmap=True) == []


def saved(value: object, path: Path) -> Path:
    torch.save(value, path)
    return path


def test_a_training_goes_on_with_what_was_loaded(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.randn(8, 3)).sum().backward()
    optimizer.step()
    value = {"epoch": 3, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    found = tk.load(saved(value, tmp_path / "x.ckpt"), nested=True)
    assert list(differences(value, found)) == []
    assert found["model"]._metadata[""] == {"version": 1}
    other = torch.optim.AdamW(model.parameters(), lr=1.0)
    other.load_state_dict(found["optimizer"])
    assert list(differences(optimizer.state_dict(), other.state_dict())) == []
    model.load_state_dict(found["model"])


@pytest.mark.parametrize("mapped", [False, True])
def test_views_of_one_storage_stay_views_of_one(tmp_path: Path, mapped: bool) -> None:
    whole = torch.arange(40.0)
    value = {"a": whole[4:20].view(4, 4), "b": whole[8:30:2], "c": whole[4:20].view(4, 4).t()}
    found = tk.load(saved(value, tmp_path / "x.pth"), nested=True, mmap=mapped)
    found["a"][1, 0] = -1
    assert found["b"][0] == found["c"][0, 1] == -1
    assert found["a"].untyped_storage().nbytes() == 25 * 4  # from the first to the last one used
    assert found["c"].stride() == (1, 4)


@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_views_of_other_dtypes_share_too(dtype: torch.dtype | None) -> None:
    # torch refuses to save them; others do not.
    raw = bytes(range(64))
    storage = Storage("0", 64, MemoryBlob(raw), offset=0)
    sharing = Sharing(HOST, dtype)
    narrow = sharing.tensor(TensorRecord(BY_NAME["uint8"], (9,), (1,), 3, storage), "a")
    wide = sharing.tensor(TensorRecord(BY_NAME["float32"], (4,), (1,), 2, storage), "b")
    sharing.read(mapped=False)
    assert bytes(narrow.tolist()) == raw[3:12]
    wanted = torch.frombuffer(bytearray(raw), dtype=torch.float32)[2:6]
    assert torch.equal(wide, wanted.to(dtype))
    if dtype is None:
        narrow.zero_()
        assert wide[0] == 0


def test_a_cast_keeps_views_together(tmp_path: Path) -> None:
    whole = torch.arange(12.0)
    path = saved({"a": whole, "b": whole[2:].view(2, 5), "n": torch.arange(3)}, tmp_path / "x.pth")
    found = tk.load(path, nested=True, dtype="bfloat16")
    assert found["a"].dtype == found["b"].dtype == torch.bfloat16
    found["a"][2] = 100
    assert found["b"][0, 0] == 100
    assert found["n"].dtype == torch.int64


def test_objects_stay_what_they_are_in_the_file(tmp_path: Path) -> None:
    shared = [1, 2]
    loop: list[object] = []
    loop.append(loop)
    value = {"x": shared, "y": shared, 7: {(1, "a"): None}, "loop": loop, "s": {1, (2, 3)}}
    found = tk.load(saved(value, tmp_path / "x.pth"), nested=True)
    assert found["x"] is found["y"]
    assert found["loop"][0] is found["loop"]
    assert found[7] == {(1, "a"): None}
    assert found["s"] == {1, (2, 3)}
    twice = torch.ones(2)
    pair = tk.load(
        saved([twice, twice, torch.nn.Parameter(twice)], tmp_path / "y.pth"), nested=True
    )
    assert pair[0] is pair[1]
    assert isinstance(pair[2], torch.nn.Parameter)
    assert pair[2].data_ptr() == pair[0].data_ptr()


def test_what_only_running_the_file_would_make_is_inert(tmp_path: Path) -> None:
    class Call:
        def __reduce__(self):
            return (print, ("never",))

    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": Call(), "b": 1}))
    with pytest.warns(errors.NotSafeWarning):
        found = tk.load(tmp_path / "x.pkl", nested=True)
    assert isinstance(found["a"], Inert)
    assert "print" in repr(found["a"])
    assert found["b"] == 1


def test_an_attribute_hides_no_method(tmp_path: Path) -> None:
    class Odd:
        def __reduce__(self):
            state = {"items": 5, "__class__": 6, "note": "x"}
            return collections.OrderedDict, ([("a", 1)],), state

    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Odd()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = tk.load(tmp_path / "x.pkl", nested=True)
    assert list(found.items()) == [("a", 1)]
    assert found.note == "x"


def test_a_module_saved_whole_gives_its_state_dict(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    found = tk.load(saved({"model": model}, tmp_path / "x.pt"), nested=True)["model"]
    assert isinstance(found, SavedModule)
    assert found.type == "torch.nn.modules.container.Sequential"
    assert list(differences(dict(model.state_dict()), dict(found.state_dict()))) == []


def test_one_section(digits: Path) -> None:
    assert tk.load(digits, nested=True, section="epoch") == 12
    assert list(tk.load(digits, nested=True, section="optimizer")) == ["state", "param_groups"]
    with pytest.raises(errors.UnknownSection, match="'model'"):
        tk.load(digits, nested=True, section="nothing")
    with pytest.raises(errors.BadArgument):
        tk.load(digits, nested=True, only=["*"])


def test_deeper_than_python_calls(tmp_path: Path) -> None:
    value: object = torch.ones(1)
    for _ in range(900):
        value = [value]
    # As only a file could nest it: dumping it by recursion would fail.
    data = b"\x80\x04" + b"]" * 900 + b"K\x01" + b"a" * 900 + b"."
    (tmp_path / "deep.pkl").write_bytes(data)
    found = tk.load(tmp_path / "deep.pkl", nested=True)
    depth = 0
    while isinstance(found, list):
        found, depth = found[0], depth + 1
    assert (found, depth) == (1, 900)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_sparse_tensors_are_tensors_of_the_flat_dict_too(tmp_path: Path) -> None:
    eye = torch.eye(3)
    value = {"w": torch.ones(2), "coo": eye.to_sparse(), "csr": eye.to_sparse_csr()}
    found = tk.load(saved(value, tmp_path / "x.pth"))
    assert list(differences(value, found)) == []


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_index_that_leads_elsewhere_is_never_used(tmp_path: Path) -> None:
    bad = torch.sparse_coo_tensor([[0, 99]], [1.0, 2.0], (3,), check_invariants=False)
    path = saved({"w": torch.ones(2), "bad": bad}, tmp_path / "x.pth")
    for nested in (False, True):
        with pytest.raises(errors.Damaged, match="99"):
            tk.load(path, nested=nested)
