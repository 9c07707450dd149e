"""Modules whose weights are read when they run and let go of afterwards.

A hook before the forward of each module puts its own weights in the place of the meta tensors, one
behind it puts those back. At any time only the modules that are running have memory.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.live import wishes
from tensorkeep.live.filling import successor
from tensorkeep.live.incoming import Source
from tensorkeep.live.layout import Layout
from tensorkeep.live.wishes import Wish

_MARK = "_tensorkeep_lazy"
# Their forward looks at the weights of modules inside without calling those.
WHOLE = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


class Opened:
    """A checkpoint for as long as modules read from it; closed with the last of them, if `owned`.

    A file that nobody closes stays open until the process ends.
    """

    def __init__(self, ckpt: Checkpoint, *, owned: bool) -> None:
        if owned:
            weakref.finalize(self, ckpt.close)


class Unit:
    """A module and the names of the tensors that it brings along when it runs."""

    def __init__(self, module: nn.Module, opened: Opened, *, mapped: bool) -> None:
        self.module, self.opened, self.mapped = module, opened, mapped
        self.places: dict[str, tuple[nn.Module, str]] = {}
        self.wishes: dict[str, Wish] = {}
        self.sources: dict[str, Source] = {}
        self._hollow: list[tuple[nn.Module, str, torch.Tensor]] = []
        self._running = 0
        self._lock = threading.Lock()
        self._handles = [
            module.register_forward_pre_hook(self._before, prepend=True),
            module.register_forward_hook(self._after, always_call=True),
        ]
        setattr(module, _MARK, self)

    def _before(self, _module: nn.Module, _given: Any) -> None:  # noqa: ANN401
        with self._lock:
            if not self._running:
                self._fill()
            self._running += 1

    def _after(self, _module: nn.Module, _given: Any, _result: Any) -> None:  # noqa: ANN401
        with self._lock:
            # A forward whose weights could not be read ends here as well.
            self._running = max(self._running - 1, 0)
            if not self._running:
                self._empty()

    def _fill(self) -> None:
        made, _ = wishes.read(self.wishes, self.sources, mapped=self.mapped)
        objects: dict[str, torch.Tensor] = {}
        for name, (module, key) in self.places.items():
            old, owner = getattr(module, key), self.wishes[name].owner
            if owner not in objects:
                # A gradient would be lost with the parameter that it belongs to.
                objects[owner] = successor(old, made[name]).requires_grad_(False)
            self._hollow.append((module, key, old))
            setattr(module, key, objects[owner])

    def _empty(self) -> None:
        for module, key, old in self._hollow:
            setattr(module, key, old)
        self._hollow.clear()

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        delattr(self.module, _MARK)


def install(
    layout: Layout,
    wished: Mapping[str, Wish],
    sources: Mapping[str, Source],
    opened: Opened,
    *,
    mapped: bool,
) -> None:
    """Let the modules of `layout` bring the tensors of `wished` along, which are on meta now.

    Nothing is read yet.
    """
    around = dict(_around(layout.module, None))
    owners = {layout.shared[name]: name for name in wished}
    units: dict[int, Unit] = {}
    for name, (module, key) in layout.places.items():
        given = owners.get(layout.shared[name])
        if given is None:
            continue
        outer = around[id(module)] or module
        if id(outer) not in units:
            units[id(outer)] = Unit(outer, opened, mapped=mapped)
        unit = units[id(outer)]
        unit.places[name] = (module, key)
        unit.wishes[name], unit.sources[name] = wished[given], sources[given]


def _around(module: nn.Module, outer: nn.Module | None) -> Iterator[tuple[int, nn.Module | None]]:
    """For each module, by id, the outermost one around it that must be filled as a whole."""
    if outer is None and (isinstance(module, WHOLE) or hasattr(module, "parametrizations")):
        outer = module
    yield id(module), outer
    for child in module.children():
        yield from _around(child, outer)


def remove(module: nn.Module) -> None:
    """Take the hooks of an earlier load off `module` and what is below it."""
    for each in module.modules():
        unit = vars(each).get(_MARK)
        if isinstance(unit, Unit):
            unit.remove()
