"""Changes to modules that can be taken back, so that a load that fails changes nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

_DICTS = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


class Undo:
    """A list of ways back, walked from its end if the `with` block is left by an exception."""

    def __init__(self) -> None:
        self._back: list[Callable[[], object]] = []

    def add(self, back: Callable[[], object]) -> None:
        """Remember how to take back what is about to be done."""
        self._back.append(back)

    def forget(self) -> None:
        """There is no way back any more."""
        self._back.clear()

    def put(self, module: nn.Module, key: str, new: torch.Tensor) -> None:
        """Make `new` the parameter or buffer `key` of `module`."""
        old = module._parameters.get(key)
        if old is None:
            old = module._buffers.get(key)  # type: ignore[assignment]
        self.add(lambda: setattr(module, key, old))
        # By its own setter: recurrent layers keep a second list of their weights.
        setattr(module, key, new)

    def swap(self, tensor: torch.Tensor, new: torch.Tensor) -> None:
        """Give the tensor, which stays the same object, other memory and another dtype."""
        old, grad = tensor.data, tensor.grad
        self.add(lambda: _set(tensor, old, grad))
        _set(tensor, new, grad if grad is not None and grad.dtype == new.dtype else None)

    def keep(self, module: nn.Module) -> None:
        """Remember everything of `module` and what is below it, values included."""
        for each in module.modules():
            self._keep_one(each)

    def _keep_one(self, module: nn.Module) -> None:
        state: dict[str, Any] = dict(vars(module))
        inside = {key: copy.copy(state[key]) for key in _DICTS}
        own = [*module._parameters.values(), *module._buffers.values()]
        values = [
            (tensor, tensor.detach().clone())
            for tensor in own
            if tensor is not None and not tensor.is_meta and not is_lazy(tensor)
        ]
        lazy = [(tensor, type(tensor)) for tensor in own if tensor is not None and is_lazy(tensor)]
        extra = _extra(module)

        def back() -> None:
            vars(module).clear()
            vars(module).update(state)
            for key, items in inside.items():  # others may hold the very dict
                state[key].clear()
                state[key].update(items)
            with torch.no_grad():
                for tensor, value in values:
                    if tensor.shape == value.shape and tensor.dtype == value.dtype:
                        tensor.copy_(value)
                    else:
                        tensor.data = value
            for tensor, kind in lazy:
                tensor.__class__ = kind
                tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
            if extra is not None:
                module.set_extra_state(extra)

        self.add(back)

    def __enter__(self) -> Undo:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            for back in reversed(self._back):
                # One that cannot be taken back, having refused the change, keeps no other from it.
                with suppress(Exception):
                    back()
        self.forget()


def _set(tensor: torch.Tensor, data: torch.Tensor, grad: torch.Tensor | None) -> None:
    tensor.grad = None
    tensor.data = data
    if grad is not None:
        tensor.grad = grad


def _extra(module: nn.Module) -> Any:  # noqa: ANN401
    """What a module keeps outside its tensors, by its own account."""
    if type(module).set_extra_state is nn.Module.set_extra_state:
        return None
    try:
        return copy.deepcopy(module.get_extra_state())
    except RuntimeError:
        return None  # it can only be set
