"""The value that a file holds, nested as `torch.load` would nest it; nothing is run.

Plain containers and the known classes of the standard library become themselves, tensors become
tensors that share storages as in the file, and whatever only running the file would make stays an
`Inert` value that prints well. The walk is a stack of generators, since a file can nest deeper than
Python calls; parts that are shared stay shared. What is copied (the items of a list that a thousand
calls of `set` are given) is counted, so that work stays within the bytes that the file spells.
"""

from __future__ import annotations

import argparse
import types
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.errors import Amplified, LimitExceeded
from tensorkeep.facts import Limits
from tensorkeep.formats.assembled import Compound, Module
from tensorkeep.formats.contents import Graft, Inert, Items, Lens, TensorRecord
from tensorkeep.live.saved import SavedModule
from tensorkeep.live.values import ATOMS, SEQUENCES, called, can_be_key, leaf, mapping
from tensorkeep.pickles import describe

Path = tuple[object, ...]
Asked = tuple[object, Lens, Path]
Building = Generator[Asked, Any, object]
_Made = dict[Any, Any]
_Kept = TypeVar("_Kept")
# Bytes of a copy that cost as much as one value in a list.
_PER_VALUE = 16


class Nest:
    """One walk over values of `ckpt`.

    `tensor` and `compound` make what records stand for, given the dotted path.
    """

    def __init__(
        self,
        tensor: Callable[[TensorRecord, Path], object],
        compound: Callable[[Compound, Path], object],
        ckpt: Checkpoint,
        limits: Limits,
    ) -> None:
        self._tensor = tensor
        self._compound = compound
        self._max_depth = limits.max_depth
        self._subject = ckpt.path
        self._most = self._left = limits.max_expansion + ckpt.index.spelled
        self._made: dict[int, object] = {}
        self._kept: list[object] = []

    def build(self, root: object, lens: Lens) -> object:
        """The value that `root` means. Raises `LimitExceeded` and what making a tensor raises."""
        stack = [self._value(root, lens, ())]
        answer: object = None
        while stack:
            try:
                raw, look, path = stack[-1].send(answer)
            except StopIteration as ended:
                answer = ended.value
                stack.pop()
                continue
            self._spend(1)
            if type(raw) in ATOMS:
                answer = raw
                continue
            if len(stack) > self._max_depth:
                expected = "values that stay within Limits.max_depth"
                raise LimitExceeded(self._subject, expected=expected, got="more")
            answer = None
            stack.append(self._value(raw, look, path))
        return answer

    def _spend(self, count: int) -> None:
        """Raises `Amplified` if more is made than the file can spell."""
        self._left -= count
        if self._left < 0:
            raise Amplified(
                self._subject,
                expected="values that stay within Limits.max_expansion when they are copied",
                got=f"more than {self._most:,}",
            )

    def _value(self, raw: object, lens: Lens, path: Path) -> Building:
        known = self._made.get(id(raw))
        if known is not None:
            return known
        value = lens(raw)
        self._kept.append(value)  # the walk remembers by identity
        if isinstance(value, Graft):
            return (yield value.contents.root, value.contents.lens, path)
        if isinstance(value, TensorRecord):
            return self._keep(raw, self._tensor(value, path))
        if isinstance(value, Compound):
            return self._keep(raw, self._compound(value, path))
        if isinstance(value, dict):
            return (yield from self._fill(self._keep(raw, {}), value.items(), lens, path))
        if isinstance(value, Items):
            return (yield from self._items(raw, value, lens, path))
        if isinstance(value, list | tuple | set | frozenset):
            return (yield from self._sequence(raw, value, lens, path))
        if isinstance(value, Module):
            return (yield from self._module(raw, value, lens, path))
        made = leaf(raw, value)
        if isinstance(made, bytearray):
            self._spend(len(made) // _PER_VALUE)
        return self._keep(raw, made)

    def _keep(self, raw: object, made: _Kept) -> _Kept:
        self._made[id(raw)] = made
        return made

    def _fill(
        self, made: _Made, pairs: Iterable[tuple[object, object]], lens: Lens, path: Path
    ) -> Building:
        for key, raw in pairs:
            name = yield from self._key(key, lens, path)
            made[name] = yield raw, lens, (*path, name)
        return made

    def _key(self, key: object, lens: Lens, path: Path) -> Building:
        if type(key) in ATOMS:
            return key
        made = yield key, lens, (*path, "key")
        return made if self._hashes(made) else describe(key, 80)

    def _hashes(self, value: object) -> bool:
        return can_be_key(value)

    def _items(self, raw: object, items: Items, lens: Lens, path: Path) -> Building:
        if items.type in ("argparse.Namespace", "types.SimpleNamespace"):
            space = argparse.Namespace() if "argparse" in items.type else types.SimpleNamespace()
            self._keep(raw, space)
            named = [(key, value) for key, value in items.pairs if isinstance(key, str)]
            yield from self._fill(vars(space), named, lens, path)
            return space
        made = self._keep(raw, mapping(raw, items.type))
        yield from self._fill(made, items.pairs, lens, path)
        for key, attribute in items.attributes.items():
            # What the class has itself (a method, a dunder) no attribute may hide.
            if not hasattr(made, key) and hasattr(made, "__dict__"):
                vars(made)[key] = yield attribute, lens, (*path, key)
        return made

    def _sequence(self, raw: object, given: Iterable[object], lens: Lens, path: Path) -> Building:
        name = called(raw)
        kind = SEQUENCES.get(name, type(given))
        if kind is list:
            made: list[object] = self._keep(raw, [])
            for at, item in enumerate(given):
                made.append((yield item, lens, (*path, at)))
            return made
        self._keep(raw, Inert("a part that contains itself"))
        items = []
        for at, item in enumerate(given):
            items.append((yield item, lens, (*path, at)))
        if kind in (set, frozenset) and not all(map(self._hashes, items)):
            return self._keep(raw, items)
        return self._keep(raw, kind(items))

    def _module(self, raw: object, module: Module, lens: Lens, path: Path) -> Building:
        saved = self._keep(raw, SavedModule(module.type, training=module.training))
        saved.doubt = module.doubt
        for key, child in module.children:
            saved.children[str(key)] = yield child, lens, (*path, key)
        for key, value in module.attributes.items():
            saved.attributes[key] = yield value, lens, (*path, key)
        return saved
