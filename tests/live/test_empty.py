"""`empty_weights`: no memory, no initial values, nothing left behind."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from small_nets import Net, Tied, equal, net
from torch import nn
from torch.nn.modules import module as registration
from torch.nn.parameter import is_lazy

import tensorkeep as tk
from tensorkeep import errors


def is_empty(model: nn.Module) -> bool:
    return all(parameter.is_meta for parameter in model.parameters())


def test_parameters_are_on_meta_and_buffers_are_real() -> None:
    with tk.empty_weights():
        model = Net()
    assert is_empty(model)
    assert not any(buffer.is_meta for buffer in model.buffers())
    assert torch.equal(model.positions, torch.arange(10) * 2)
    with tk.empty_weights(include_buffers=True):
        model = Net()
    assert all(buffer.is_meta for buffer in model.buffers())


def test_parameters_are_what_they_would_be_but_for_values() -> None:
    with tk.empty_weights():
        model = Net()
    for (name, one), (other, two) in zip(
        model.named_parameters(), Net().named_parameters(), strict=True
    ):
        assert (name, one.shape, one.dtype) == (other, two.shape, two.dtype)
        assert type(one) is nn.Parameter
        assert one.requires_grad == two.requires_grad


def test_ties_stay_ties() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            real = nn.Parameter(torch.ones(3))
            self.a, self.b = real, real

    with tk.empty_weights():
        assert (tied := Tied()).head.weight is tied.embed.weight
        assert (twice := Twice()).a is twice.b


def test_nothing_is_drawn_from_the_random_numbers() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    with tk.empty_weights():
        nn.TransformerEncoderLayer(8, 2)
        nn.init.trunc_normal_(nn.Linear(2, 2).weight)
        nn.Linear(3, 3).weight.data.normal_()
    assert torch.equal(before, torch.random.get_rng_state())


def test_it_may_be_nested_and_ends_where_it_ends() -> None:
    hooks = registration._global_parameter_registration_hooks
    count = len(hooks)
    with tk.empty_weights(include_buffers=True):
        with tk.empty_weights():
            assert not nn.BatchNorm1d(3).running_mean.is_meta
        assert nn.BatchNorm1d(3).running_mean.is_meta
    assert len(hooks) == count
    assert not nn.Linear(2, 2).weight.is_meta
    assert nn.Linear(100, 100).weight.std() > 0


def test_what_is_raised_inside_leaves_nothing_behind() -> None:
    with pytest.raises(ZeroDivisionError), tk.empty_weights():
        raise ZeroDivisionError
    assert not nn.Linear(2, 2).weight.is_meta


def test_other_threads_are_not_concerned() -> None:
    found: list[bool] = []
    with tk.empty_weights():
        thread = threading.Thread(target=lambda: found.append(nn.Linear(2, 2).weight.is_meta))
        thread.start()
        thread.join()
        assert nn.Linear(2, 2).weight.is_meta
    assert found == [False]


def test_lazy_modules_stay_lazy() -> None:
    with tk.empty_weights():
        assert is_lazy(nn.LazyLinear(3).weight)


def test_what_is_loaded_inside_is_real(tmp_path: Path) -> None:
    torch.save(net().state_dict(), tmp_path / "x.pth")
    with tk.empty_weights():
        model = Net()
        tk.load_into(model, tmp_path / "x.pth")
    assert equal(model, net())


def test_a_model_of_a_hundred_billion_parameters_costs_nothing() -> None:
    with tk.empty_weights():
        model = nn.ModuleList(nn.Linear(100_000, 100_000) for _ in range(10))
    assert sum(parameter.numel() for parameter in model.parameters()) > 10**11


class TestWhatNoFileHas:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        torch.save(net().state_dict(), tmp_path / "x.pth")
        return tmp_path / "x.pth"

    def test_a_new_head_begins_as_its_layer_does(self, path: Path) -> None:
        with tk.empty_weights():
            model = Net(3)
        report = tk.load_into(model, path, strict=False)
        assert report.by_module == ["head.weight", "head.bias"]
        assert model.head.weight.std() > 0
        assert torch.equal(model.embed.weight, net().embed.weight)

    def test_a_parameter_without_a_beginning_is_refused(self, tmp_path: Path) -> None:
        class Own(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(3, 3)
                self.scale = nn.Parameter(torch.ones(1))

        torch.save(nn.ModuleDict({"linear": nn.Linear(3, 3)}).state_dict(), tmp_path / "y.pth")
        with tk.empty_weights():
            model = Own()
        with pytest.raises(errors.DoesNotFit, match="no reset_parameters to begin with: `scale`"):
            tk.load_into(model, tmp_path / "y.pth", strict=False)
        assert is_empty(model)

    def test_buffers_on_meta_are_refused(self, path: Path) -> None:
        with torch.device("meta"):
            model = Net()
        with pytest.raises(errors.DoesNotFit, match="in no file: `positions`") as caught:
            tk.load_into(model, path)
        assert "empty_weights" in str(caught.value)
        assert is_empty(model)

    def test_buffers_are_made_again_where_their_module_has_a_config(self, path: Path) -> None:
        class Rotary(nn.Module):
            def __init__(self, config: int) -> None:
                super().__init__()
                self.config = config
                self.register_buffer("turns", torch.arange(config) / 7, persistent=False)

        class Model(Net):
            def __init__(self) -> None:
                super().__init__()
                del self.positions
                self.rotary = Rotary(5)

        with torch.device("meta"):
            model = Model()
        report = tk.load_into(model, path)
        assert report.rebuilt == ["rotary.turns"]
        assert torch.equal(model.rotary.turns, torch.arange(5) / 7)
