"""Modules whose weights are read when they run and let go of afterwards.

A hook before the forward of each module puts its own weights in the place of the meta tensors, one
behind it puts those back. At any time only the modules that are running have memory.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.live import wishes
from tensorkeep.live.filling import successor
from tensorkeep.live.incoming import Source
from tensorkeep.live.layout import Layout
from tensorkeep.live.undo import Undo
from tensorkeep.live.wishes import Wish

_MARK = "_tensorkeep_lazy"
# Their forward looks at the weights of modules inside without calling those.
WHOLE = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


class Opened:
    """A checkpoint for as long as modules read from it.

    `keep`: what keeps others from closing it; it is then closed with the last of those modules. A
    file that nobody closes stays open until the process ends.
    """

    def __init__(self, ckpt: Checkpoint, keep: Callable[[], object] | None) -> None:
        if keep is not None:
            weakref.finalize(self, ckpt.close)
            keep()


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
        self._handles: list[RemovableHandle] = []

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

    def hook(self, undo: Undo) -> None:
        """Begin to bring the tensors along."""
        undo.add(self._off)
        self._on()

    def remove(self, undo: Undo) -> None:
        """Take the hooks off."""
        undo.add(self._on)
        self._off()

    def _on(self) -> None:
        self._off()
        setattr(self.module, _MARK, self)
        before, after = self._before, self._after
        self._handles.append(self.module.register_forward_pre_hook(before, prepend=True))
        self._handles.append(self.module.register_forward_hook(after, always_call=True))

    def _off(self) -> None:
        while self._handles:
            self._handles.pop().remove()
        vars(self.module).pop(_MARK, None)


def install(
    layout: Layout,
    wished: Mapping[str, Wish],
    sources: Mapping[str, Source],
    opened: Opened,
    undo: Undo,
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
    for unit in units.values():
        unit.hook(undo)


def _around(module: nn.Module, outer: nn.Module | None) -> Iterator[tuple[int, nn.Module | None]]:
    """For each module, by id, the outermost one around it that must be filled as a whole."""
    if outer is None and (isinstance(module, WHOLE) or hasattr(module, "parametrizations")):
        outer = module
    yield id(module), outer
    for child in module.children():
        yield from _around(child, outer)


def remove(module: nn.Module, undo: Undo) -> None:
    """Take the hooks of an earlier load off `module` and what is below it."""
    for each in module.modules():
        unit = vars(each).get(_MARK)
        if isinstance(unit, Unit):
            unit.remove(undo)
