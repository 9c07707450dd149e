"""A load that fails, wherever it does, leaves values, memory and objects of the module alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from small_nets import Net, equal, net
from torch import nn

import tensorkeep as tk
from tensorkeep import errors
from tensorkeep.stores._descriptor import DescriptorBlob


class Fragile(nn.Module):
    """Takes its weights and then changes its mind."""

    def __init__(self, *, when: str = "") -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.when = when
        self.register_load_state_dict_post_hook(self._told)

    def _told(self, _module: nn.Module, _keys: object) -> None:
        self.note = 1
        if self.when == "after":
            raise ValueError("not these")


class Outer(nn.Module):
    """A plain part, then one that may refuse."""

    def __init__(self, when: str = "") -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.fragile = Fragile(when=when)
        self.last = nn.Linear(3, 3)


def snapshot(model: nn.Module) -> dict[str, tuple[int, int, torch.Tensor, bool]]:
    """Of every tensor: which object, where, what, and whether it has a gradient to get."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {n: (id(t), t.data_ptr(), t.detach().clone(), t.requires_grad) for n, t in named.items()}


def unchanged(model: nn.Module, before: dict[str, tuple[int, int, torch.Tensor, bool]]) -> bool:
    now = snapshot(model)
    return now.keys() == before.keys() and all(
        now[name][:2] == before[name][:2]
        and (now[name][2].is_meta or torch.equal(now[name][2], before[name][2]))
        and now[name][3] == before[name][3]
        for name in now
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.save(net().state_dict(), tmp_path / "model.pth")
    return tmp_path / "model.pth"


@pytest.fixture
def broken_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let every read that touches or lies behind a byte of the file fail."""

    def arrange(position: int) -> None:
        for name in ("read", "read_into", "read_scattered"):
            real = getattr(DescriptorBlob, name)

            def failing(
                self: DescriptorBlob, offset: int, given: object, _real: object = real
            ) -> object:
                size = given if isinstance(given, int) else _size(given)
                if offset + size > position:
                    raise errors.StoreError("the device", got="an input/output error")
                return _real(self, offset, given)  # type: ignore[operator]

            monkeypatch.setattr(DescriptorBlob, name, failing)

    return arrange


def _size(given: object) -> int:
    parts = given if isinstance(given, list | tuple) else [given]
    return sum(memoryview(part).nbytes for part in parts)


@pytest.mark.parametrize("way", ["copy", "assign", "cast", "keep", "meta"])
def test_a_read_error_at_the_last_tensor(
    path: Path, broken_at: Callable[[int], None], way: str
) -> None:
    if way == "meta":
        with tk.empty_weights():
            model: nn.Module = Net()
    else:
        model = net(seed=1)
    if way in ("cast", "keep"):
        model = model.half()
    before = snapshot(model)
    with tk.open(path) as ckpt:
        last = max(ref.record.storage.offset for ref in ckpt.tensors.values())
        broken_at(last)
        options = {"assign": way == "assign", "dtype": "keep" if way == "keep" else None}
        with pytest.raises(errors.StoreError, match="input/output"):
            tk.load_into(model, ckpt, **options)  # type: ignore[arg-type]
    assert unchanged(model, before) if way != "meta" else model.get_parameter("head.bias").is_meta


@pytest.mark.parametrize("assign", [False, True])
def test_a_module_that_raises(tmp_path: Path, assign: bool) -> None:
    torch.save(Outer().state_dict(), tmp_path / "x.pth")
    model = Outer("after")
    before = snapshot(model)
    with pytest.raises(errors.DoesNotFit, match=r"ValueError: not these \(at fragile\)"):
        tk.load_into(model, tmp_path / "x.pth", assign=assign)
    assert unchanged(model, before)
    assert not hasattr(model.fragile, "note")
    model.fragile.when = ""
    tk.load_into(model, tmp_path / "x.pth", assign=assign)
    assert model.fragile.note == 1


def test_a_name_that_only_the_module_can_judge(tmp_path: Path) -> None:
    state = Outer().state_dict()
    state["fragile.inner.scale"] = torch.ones(1)
    torch.save(state, tmp_path / "x.pth")
    model = Outer()
    before = snapshot(model)
    with pytest.raises(errors.DoesNotFit, match="1 UNEXPECTED: `fragile.inner.scale`"):
        tk.load_into(model, tmp_path / "x.pth")
    assert unchanged(model, before)
    assert tk.load_into(model, tmp_path / "x.pth", strict=False).unexpected == [
        "fragile.inner.scale"
    ]


def interrupted(work: Callable[[], object], files: tuple[str, ...], line: int) -> bool:
    """Whether `work` was interrupted, at the line of that number that it runs in those files."""
    left = line

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(files):
            return None
        if event == "line":
            left -= 1
            if not left:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("lazy", [False, True])
def test_an_interrupt_leaves_all_or_nothing(path: Path, lazy: bool) -> None:
    """Real parts, parts on meta, and one that loads itself, interrupted at every seventh line."""
    tokens = torch.arange(3)
    wanted, times = net().eval()(tokens), 0
    for line in range(1, 10_000, 7):
        model = net(seed=1)
        with tk.empty_weights():
            model.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        before = snapshot(model)
        if not interrupted(
            lambda model=model: tk.load_into(model, path, lazy=lazy),  # type: ignore[misc]
            ("live/filling.py", "live/lazy.py"),
            line,
        ):
            break
        times += 1
        if not unchanged(model, before) or model.layers[0]._forward_hooks:
            assert torch.equal(model.eval()(tokens), wanted), line
    assert times > 10


def test_a_truncated_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3000])
    model = net(seed=1)
    with pytest.raises(errors.TensorkeepError):
        tk.load_into(model, path)
    assert equal(model, net(seed=1))
