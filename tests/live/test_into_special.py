"""Modules that load in their own way: what torch's `load_state_dict` gives, all or nothing."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from small_nets import equal
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrizations

import tensorkeep as tk
from tensorkeep import errors


def normed(*, new: bool) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrap = parametrizations.weight_norm if new else nn.utils.weight_norm
        return nn.Sequential(wrap(nn.Linear(3, 4)), nn.Linear(4, 2))


@pytest.mark.parametrize("fix", [False, True])
def test_weight_norm_of_before(tmp_path: Path, fix: bool) -> None:
    old, new = normed(new=False), normed(new=True)
    torch.save(old.state_dict(), tmp_path / "x.pth")
    report = tk.load_into(new, tmp_path / "x.pth", fix=fix)
    assert report.fits
    x = torch.randn(2, 3)
    assert torch.equal(old(x), new(x))


def test_parametrizations_on_meta(tmp_path: Path) -> None:
    real = normed(new=True)
    torch.save(real.state_dict(), tmp_path / "x.pth")
    with torch.device("meta"):
        model = normed(new=True)
    tk.load_into(model, tmp_path / "x.pth")
    assert equal(model, real)


class TestLazyModules:
    def build(self, size: int = 4) -> nn.Sequential:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return nn.Sequential(nn.LazyLinear(4), nn.Linear(4, size), nn.LazyBatchNorm1d())

    def test_they_take_their_shapes_from_the_file(self, tmp_path: Path) -> None:
        real = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.BatchNorm1d(4))
        torch.save({f"module.{k}": v for k, v in real.state_dict().items()}, tmp_path / "x.pth")
        model = self.build()
        with pytest.raises(errors.DoesNotFit, match="MISSING"):
            tk.load_into(model, tmp_path / "x.pth", fix=False)
        assert is_lazy(model[0].weight)
        assert tk.load_into(model, tmp_path / "x.pth").fits
        x = torch.randn(2, 3)
        assert torch.equal(model.eval()(x), real.eval()(x))

    def test_they_stay_lazy_if_it_fails(self, tmp_path: Path) -> None:
        real = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.BatchNorm1d(4))
        torch.save(real.state_dict(), tmp_path / "x.pth")
        model = self.build(size=5)
        with pytest.raises(errors.DoesNotFit, match="MISMATCH"):
            tk.load_into(model, tmp_path / "x.pth")
        assert is_lazy(model[0].weight)
        assert model(torch.randn(2, 7)).shape == (2, 5)


@pytest.mark.filterwarnings("ignore")
def test_packed_weights(tmp_path: Path) -> None:
    def quantised() -> nn.Module:
        plain = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
        return torch.ao.quantization.quantize_dynamic(plain, {nn.Linear})

    one, two = quantised(), quantised()
    torch.save({"model": one.state_dict()}, tmp_path / "x.pth")
    assert tk.load_into(two, tmp_path / "x.pth").fits
    x = torch.randn(2, 3)
    assert torch.equal(one(x), two(x))


class Noted(nn.Linear):
    """Keeps more than tensors."""

    note: object = None

    def get_extra_state(self) -> dict[str, Any]:
        return {"note": self.note, "tensor": torch.full((2,), 3.0)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.note = state["note"]
        if self.note == "no":
            raise ValueError("not this note")


class TestExtraState:
    def test_it_is_given(self, tmp_path: Path) -> None:
        one, two = nn.Sequential(Noted(2, 2)), nn.Sequential(Noted(2, 2))
        one[0].note = [1, "x", {"y": (2.5, None)}]
        torch.save(nn.DataParallel(one).state_dict(), tmp_path / "x.pth")
        assert tk.load_into(two, tmp_path / "x.pth").fits
        assert two[0].note == [1, "x", {"y": (2.5, None)}]

    def test_it_is_missing(self, tmp_path: Path) -> None:
        torch.save(nn.Sequential(nn.Linear(2, 2)).state_dict(), tmp_path / "x.pth")
        model = nn.Sequential(Noted(2, 2))
        with pytest.raises(errors.DoesNotFit, match="1 MISSING in the file: `0._extra_state`"):
            tk.load_into(model, tmp_path / "x.pth")

    def test_it_is_taken_back(self, tmp_path: Path) -> None:
        one, two = nn.Sequential(Noted(2, 2)), nn.Sequential(Noted(2, 2))
        one[0].note, two[0].note = "no", "before"
        torch.save(one.state_dict(), tmp_path / "x.pth")
        before = two[0].weight.detach().clone()
        with pytest.raises(errors.DoesNotFit, match="not this note"):
            tk.load_into(two, tmp_path / "x.pth")
        assert two[0].note == "before"
        assert torch.equal(two[0].weight, before)


class Renaming(nn.Module):
    """A layer whose older version had another name for its weight, told by the version."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(2, 2))

    def _load_from_state_dict(self, state: Any, prefix: str, about: Any, *more: Any) -> None:
        if about.get("version", 1) < 2:
            state[prefix + "kernel"] = state.pop(prefix + "w").t()
        super()._load_from_state_dict(state, prefix, about, *more)


class TestVersions:
    def save(self, path: Path, version: int, *, prefix: str = "") -> None:
        state: Any = OrderedDict({f"{prefix}a.w": torch.arange(4.0).view(2, 2)})
        state._metadata = OrderedDict({f"{prefix}a": {"version": version}})
        torch.save(state, path)

    def test_the_older_is_brought_up_to_date(self, tmp_path: Path) -> None:
        self.save(tmp_path / "x.pth", 1)
        model = nn.ModuleDict({"a": Renaming()})
        assert tk.load_into(model, tmp_path / "x.pth").fits
        assert torch.equal(model["a"].kernel, torch.arange(4.0).view(2, 2).t())

    def test_it_follows_renames(self, tmp_path: Path) -> None:
        state: Any = OrderedDict({"module.a.kernel": torch.ones(2, 2)})
        state._metadata = OrderedDict({"module.a": {"version": 2}})
        torch.save(state, tmp_path / "x.pth")
        model = nn.ModuleDict({"a": Renaming()})
        assert tk.load_into(model, tmp_path / "x.pth").fits
        assert torch.equal(model["a"].kernel, torch.ones(2, 2))


def test_a_counter_that_is_missing_starts_where_torch_starts_it(tmp_path: Path) -> None:
    state = nn.BatchNorm1d(3).state_dict()
    del state["num_batches_tracked"]
    torch.save(dict(state), tmp_path / "x.pth")
    with torch.device("meta"):
        model = nn.BatchNorm1d(3)
    report = tk.load_into(model, tmp_path / "x.pth")
    assert report.tolerated == ["num_batches_tracked"]
    assert model.num_batches_tracked == 0


class OwnWay(nn.Module):
    """Overrides `load_state_dict` itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.times = 0

    def load_state_dict(self, state: Any, *given: Any, **named: Any) -> Any:
        self.times += 1
        return super().load_state_dict(state, *given, **named)


@pytest.mark.parametrize("meta", [False, True])
def test_an_own_load_state_dict_is_used(tmp_path: Path, meta: bool) -> None:
    real = OwnWay()
    torch.save(real.state_dict(), tmp_path / "x.pth")
    with torch.device("meta" if meta else "cpu"):
        model = OwnWay()
    assert tk.load_into(model, tmp_path / "x.pth").fits
    assert model.times == 1
    assert equal(model, real)


def test_hooks_that_rename_for_state_dicts(tmp_path: Path) -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    real = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    torch.save(real.state_dict(), tmp_path / "x.pth")
    model = nn.Sequential(checkpoint_wrapper(nn.Linear(2, 2)), nn.Linear(2, 2))
    assert tk.load_into(model, tmp_path / "x.pth").fits
    assert equal(model, real)


def test_an_object_that_only_running_the_file_makes_is_refused(tmp_path: Path) -> None:
    class Opaque:
        pass

    globals()["Opaque"] = Opaque
    Opaque.__qualname__ = "Opaque"
    one, two = nn.Sequential(Noted(2, 2)), nn.Sequential(Noted(2, 2))
    one[0].note = Opaque()
    torch.save(one.state_dict(), tmp_path / "x.pth")
    with (
        pytest.warns(UserWarning, match="nothing of it was run"),
        pytest.raises(errors.Unsupported, match="It would take running the file"),
    ):
        tk.load_into(two, tmp_path / "x.pth")
    assert two[0].note is None


class Held(nn.Module):
    """One parameter, given from outside."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.before = nn.Parameter(torch.zeros(2))
        self.weight = nn.Parameter(weight)


class TestTensorsThatAreNotPlain:
    def test_sparse_buffers(self, tmp_path: Path) -> None:
        def build(scale: float) -> nn.Module:
            made = nn.Linear(2, 2)
            made.register_buffer("mask", (torch.eye(3) * scale).to_sparse())
            return made

        torch.save(build(3).state_dict(), tmp_path / "x.pth")
        model = build(1)
        assert tk.load_into(model, tmp_path / "x.pth").fits
        assert torch.equal(model.mask.to_dense(), torch.eye(3) * 3)

    def test_inference_tensors(self, tmp_path: Path) -> None:
        torch.save(nn.Linear(3, 3).state_dict(), tmp_path / "x.pth")
        with torch.inference_mode():
            model = nn.Linear(3, 3)
        assert tk.load_into(model, tmp_path / "x.pth").fits
        assert torch.equal(model.weight, torch.load(tmp_path / "x.pth")["weight"])

    def test_one_that_cannot_be_written_to(self, tmp_path: Path) -> None:
        torch.save({"before": torch.ones(2), "weight": torch.ones(3, 3)}, tmp_path / "x.pth")
        model = Held(torch.zeros(1, 3).expand(3, 3))
        with pytest.raises(errors.DoesNotFit, match="refers to a single memory location"):
            tk.load_into(model, tmp_path / "x.pth")
        assert not model.before.any()


def test_scripted_modules(tmp_path: Path) -> None:
    real = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    torch.save(real.state_dict(), tmp_path / "x.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
    assert tk.load_into(model, tmp_path / "x.pth").fits
    assert equal(model, real)


def test_a_state_dict_without_options(tmp_path: Path) -> None:
    class Own(nn.Linear):
        def state_dict(self) -> dict[str, torch.Tensor]:  # type: ignore[override]
            return {"weight": self.weight.detach().clone(), "bias": self.bias.detach()}

    torch.save({"weight": torch.ones(2, 2), "bias": torch.ones(2)}, tmp_path / "x.pth")
    model = Own(2, 2)
    assert tk.load_into(model, tmp_path / "x.pth").fits
    assert model.weight.sum() == 4
