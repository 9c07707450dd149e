"""`tk.save`: a module, a state dict or a nested checkpoint into a file; whole or not at all."""

from __future__ import annotations

import json
import os
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from tensorkeep import provenance
from tensorkeep.checkpoints import destination
from tensorkeep.checkpoints.streaming import Output, Together
from tensorkeep.checkpoints.tensor import BLOCK, TensorRef
from tensorkeep.checkpoints.writing import Plan, Versions
from tensorkeep.dtypes import BY_NAME, DType
from tensorkeep.errors import BadArgument, Unwritable
from tensorkeep.formats.contents import Items
from tensorkeep.formats.layout import Named
from tensorkeep.progress import SILENT, Reporter

_ATOMS = (type(None), bool, int, float, str, bytes)
_DEEPEST = 200


def save(
    target: torch.nn.Module | Mapping[Any, Any],
    path: str | os.PathLike[str],
    *,
    metadata: Mapping[str, str] | None = None,
    to: str | None = None,
    shard_size: int | str | None = None,
    overwrite: bool = True,
    reporter: Reporter = SILENT,
) -> None:
    """Write a module's state dict, a state dict or, to a `.pth`, a nested checkpoint to `path`.

    The ending of `path` says the format (`.safetensors`, `.pth`, `.pt`, `.bin`, `.ckpt`; "/" at
    the end: numbered parts of at most `shard_size` bytes and an index), or `to` does. The file
    appears under its name whole, over the old one; if anything fails, the old one stays. Tied
    tensors are written once and are tied again by `load`. No pickle is made of objects: what is
    neither tensor nor plain value is refused with its path.

    `metadata`: text by name; beside it, the file says which versions, git commit and command
    made it (`tensorkeep.saved`, JSON). Raises `Unwritable`, `BadArgument`, `AlreadyExists` (with
    `overwrite=False`), `NoSpace`, `AccessDenied`.
    """
    goal = destination.resolve(path, to, shard_size)
    gathered = _Gathered(goal.name)
    tree = gathered.take(_state_of(target, goal.name))
    flat = type(tree) is dict and all(tree[n] == Named(n) for n in tree) and bool(tree)
    if not flat and not goal.kind.holds_values:
        raise Unwritable(
            goal.name,
            expected="a module or a dict of tensors",
            got="a nested checkpoint" if gathered.tensors else "no tensor at all",
            remedy="Save each part to a file of its own, or to a name that ends in .pth.",
        )
    outputs = [Output(name, _Held(name, each)) for name, each in gathered.tensors.items()]
    for output in outputs:
        problem = goal.kind.problem(output.entry)
        if problem:
            raise Unwritable(goal.name, expected=f"what {goal.kind.name} holds", got=problem)
    goal.check(overwrite=overwrite)
    plan = Plan(
        outputs,
        [*gathered.names],
        gathered.aliases,
        _texts(metadata),
        _versions(target) if goal.kind.holds_versions and flat else None,
        None if flat else tree,
    )
    goal.write(None, plan, overwrite, verify=False, reporter=reporter)


def _state_of(target: object, where: str) -> object:
    if isinstance(target, torch.nn.Module):
        return dict(target.state_dict())
    if isinstance(target, Mapping):
        return target
    raise BadArgument(
        f"save to {where}",
        expected="a module, a state dict or a dict of several",
        got=f"a {type(target).__qualname__}",
    )


def _versions(target: object) -> Versions | None:
    state = target.state_dict() if isinstance(target, torch.nn.Module) else target
    found: Versions | None = getattr(state, "_metadata", None)
    return found


def _texts(metadata: Mapping[str, str] | None) -> dict[str, str]:
    given: dict[Any, Any] = dict(metadata or {})
    for name, value in given.items():
        if type(name) is not str or type(value) is not str:
            raise BadArgument(
                "metadata",
                expected="text by name",
                got=f"{name!r}: {type(value).__name__}",
                remedy="Write numbers and lists as text, with json.dumps for instance.",
            )
    return {**given, provenance.SAVED: json.dumps(provenance.facts(), ensure_ascii=False)}


class _Gathered:
    """The tensors of a nested value by their names, and the value with places for them."""

    def __init__(self, where: str) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.names: dict[str, None] = {}
        self.aliases: dict[str, str] = {}
        self._first: dict[tuple[object, ...], str] = {}
        self._where = where

    def take(self, value: object, path: str = "", depth: int = 0) -> Any:  # noqa: ANN401
        if depth > _DEEPEST:
            raise Unwritable(
                self._where, expected="less nesting", got="a value in itself", where=path
            )
        if isinstance(value, torch.Tensor):
            return self._tensor(value.detach(), path)
        if isinstance(value, Mapping):
            pairs = [(k, self.take(v, _below(path, k), depth + 1)) for k, v in value.items()]
            known = {OrderedDict: "collections.OrderedDict", Counter: "collections.Counter"}
            name = known.get(type(value))
            # A state dict is flat and becomes an ordered one by itself.
            return Items(name, pairs) if name and depth else dict(pairs)
        if type(value) is list or type(value) is tuple:
            parts = enumerate(value)
            items = [self.take(each, f"{path}.{at}", depth + 1) for at, each in parts]
            return items if type(value) is list else tuple(items)
        if type(value) in _ATOMS:
            return value
        raise Unwritable(
            self._where,
            expected="tensors, numbers, text and containers of them",
            got=f"a {type(value).__module__}.{type(value).__qualname__}",
            where=path,
            remedy="Leave it out, or save what it is made of.",
        )

    def _tensor(self, tensor: torch.Tensor, path: str) -> Named:
        if path in self.names:
            raise Unwritable(self._where, expected="each name once", got=f"{path!r} twice")
        self.names[path] = None
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            what = "meta tensor" if tensor.is_meta else f"tensor of layout {tensor.layout}"
            raise Unwritable(self._where, expected="dense tensors", got=f"a {what}", where=path)
        storage = tensor.untyped_storage()
        place = (
            *(storage.data_ptr(), str(tensor.device), tensor.storage_offset()),
            *(tensor.shape, tensor.stride(), tensor.dtype),
        )
        kept = self._first.setdefault(place, path) if tensor.numel() else path
        if kept == path:
            self.tensors[path] = tensor
        else:
            self.aliases[path] = kept
        return Named(path)


def _below(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


class _Held:
    """A tensor in memory, as the writer wants it: contiguous bytes, in runs."""

    stored: TensorRef | None = None
    together: Together | None = None

    def __init__(self, name: str, tensor: torch.Tensor) -> None:
        dtype = BY_NAME.get(str(tensor.dtype).removeprefix("torch."))
        if dtype is None:
            raise Unwritable(name, expected="a dtype that files hold", got=tensor.dtype)
        self.dtype: DType = dtype
        self.shape = tuple(tensor.shape)
        self._tensor = tensor
        # A part of one that has gaps would cost a copy of all of it.
        self.splits = tensor.is_contiguous()

    def sources(self) -> tuple[TensorRef, ...]:
        """None: it lies in memory."""
        return ()

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """Bytes of elements `start` to `stop`; what is not contiguous or elsewhere is copied."""
        size = self.dtype.itemsize
        end = self._tensor.numel() if stop is None else stop
        flat = self._tensor.resolve_conj().resolve_neg()
        if not flat.is_contiguous():
            flat = flat.contiguous()
        raw = flat.reshape(-1).view(torch.uint8)
        for at in range(start * size, end * size, BLOCK):
            piece = raw[at : min(at + BLOCK, end * size)].cpu()
            yield memoryview(piece.numpy().data)
