"""Modules built without the memory and the time that their weights would take."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as _registration
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

_HERE = threading.local()


class EmptyWeights:
    """What `empty_weights` gives."""

    def __init__(self, *, include_buffers: bool) -> None:
        self.include_buffers = include_buffers
        self._mode = _NoInit()
        self._above: Any = None

    def __enter__(self) -> None:
        self._above = getattr(_HERE, "state", None)
        _HERE.state = _State(buffers=self.include_buffers)
        _HOOKS.begin()
        self._mode.__enter__()  # type: ignore[no-untyped-call]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._mode.__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        _HOOKS.end()
        _HERE.state = self._above


class _State:
    """What holds in this thread: whether buffers too, and what real tensors were replaced by."""

    def __init__(self, *, buffers: bool) -> None:
        self.buffers = buffers
        # A parameter that is registered twice must become one.
        self.made: Any = WeakTensorKeyDictionary()

    def of(self, real: torch.Tensor) -> torch.Tensor:
        """Its stand-in on the meta device."""
        known = self.made.get(real)
        if known is None:
            known = torch.empty_like(real, device="meta")
            if isinstance(real, nn.Parameter):
                known = nn.Parameter(known, requires_grad=real.requires_grad)
                vars(known).update(vars(real))
            self.made[real] = known
        found: torch.Tensor = known
        return found


class _NoInit(TorchFunctionMode):
    """What would fill a meta tensor does nothing: there it costs seconds and has no effect."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function gives
        named = kwargs or {}
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.endswith("__"):
            first = args[0] if args else named.get("tensor")
            if isinstance(first, torch.Tensor) and first.is_meta and name not in _STRUCTURAL:
                return first
        if func is not torch.empty:
            return func(*args, **named)
        try:
            # Memory that nobody touches costs nothing, and what is no parameter needs it.
            return func(*args, **named)
        except RuntimeError:
            return func(*args, **{**named, "device": "meta"})  # larger than the machine


# In-place functions that change what a tensor is, not what it holds.
_STRUCTURAL = frozenset(
    {
        *("requires_grad_", "set_", "resize_", "resize_as_", "as_strided_", "t_", "transpose_"),
        *("squeeze_", "unsqueeze_", "detach_", "swapaxes_", "swapdims_", "retain_grad_"),
        *("share_memory_", "rename_", "sparse_resize_", "_coalesced_"),
    }
)


class _Hooks:
    """torch's hooks on registration: one pair for all threads that are inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._handles: list[Any] = []

    def begin(self) -> None:
        """One more is inside."""
        with self._lock:
            self._users += 1
            if not self._handles:
                self._handles = [
                    _registration.register_module_parameter_registration_hook(_parameter),
                    _registration.register_module_buffer_registration_hook(_buffer),
                ]

    def end(self) -> None:
        """One has left; behind the last, torch is as it was."""
        with self._lock:
            self._users -= 1
            while not self._users and self._handles:
                self._handles.pop().remove()


_HOOKS = _Hooks()


def _parameter(_module: nn.Module, _name: str, given: Any) -> Any:  # noqa: ANN401
    state = getattr(_HERE, "state", None)
    if state is None or given is None or given.is_meta or is_lazy(given):
        return None
    return state.of(given)


def _buffer(module: nn.Module, name: str, given: Any) -> Any:  # noqa: ANN401
    state = getattr(_HERE, "state", None)
    return _parameter(module, name, given) if state is not None and state.buffers else None


@contextmanager
def suspended() -> Iterator[None]:
    """Inside, `empty_weights` does not hold: what is loaded there is meant to be real."""
    above = getattr(_HERE, "state", None)
    _HERE.state = None
    try:
        yield
    finally:
        _HERE.state = above
