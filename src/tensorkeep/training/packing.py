"""Trees of tracked objects as files of tensors and one JSON, and back.

Each tracked object has its file of tensors, `NAME.safetensors`; a module's holds its state dict
under the names of the module, so that any reader of safetensors opens it, and the buffers that a
state dict leaves out lie in `NAME.buffers.safetensors`. An optimizer's tensors are named by
parameter: `layer.weight.exp_avg`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from tensorkeep.checkpoints.runs import BUFFERS, TENSORS
from tensorkeep.checkpoints.states import Json
from tensorkeep.errors import Damaged
from tensorkeep.training.values import Collector, plain, rebuilt

Tree = dict[str, Any]
Fetch = Callable[[str, str], torch.Tensor]


@dataclass(slots=True)
class FileTensors:
    """What one safetensors file will hold; `aliases`: a further name to the one that is kept."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Package:
    """A checkpoint that is not written yet: files by name, and the JSON of everything else."""

    files: dict[str, FileTensors] = field(default_factory=dict)
    state: dict[str, Json] = field(default_factory=dict)
    fingerprint: Json = None

    def add(self, name: str, kind: str, tree: Tree) -> None:
        """An object's tree. Raises `Unwritable`, which names the path and the type."""
        packed = self._module if kind == "module" else self._other
        self.state[name] = {"kind": kind, **packed(name, tree)}

    def _module(self, name: str, tree: Tree) -> dict[str, Json]:
        dtypes = self._put(f"{name}{TENSORS}", name, tree["state"])
        if tree["buffers"]:
            dtypes |= self._put(f"{name}{BUFFERS}", name, tree["buffers"])
        rest = {key: tree[key] for key in ("extra", "versions", "evaluating")}
        return {**self._rest(f"{name}.extra{TENSORS}", name, rest), "dtypes": dtypes}

    def _put(self, file: str, name: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, Json]:
        into = self.files.setdefault(file, FileTensors())
        dtypes: dict[str, Json] = {}
        first: dict[tuple[object, ...], str] = {}
        for key, value in tensors.items():
            tensor, made = plain(value.detach(), f"{name}.{key}")
            if made:
                dtypes[key] = made["dtype"]
            kept = first.setdefault(_place(value), key)
            if kept == key or not value.numel():
                into.tensors[key] = tensor
            else:
                into.aliases[key] = kept
        return dtypes

    def _rest(self, file: str, name: str, tree: Tree) -> dict[str, Json]:
        collector = Collector()
        packed = {key: collector.json(value, f"{name}.{key}") for key, value in tree.items()}
        if collector.tensors:
            self.files[file] = FileTensors(collector.tensors)
        return packed

    def _other(self, name: str, tree: Tree) -> dict[str, Json]:
        collector = Collector()
        packed = {}
        for key, value in tree.items():
            if key == "state" and tree.get("groups") is not None:
                # Tensors of an optimizer are named by their parameter alone.
                packed[key] = {each: collector.json(v, each) for each, v in value.items()}
            else:
                packed[key] = collector.json(value, f"{name}.{key}")
        if collector.tensors:
            self.files[f"{name}{TENSORS}"] = FileTensors(collector.tensors)
        return packed


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    """Equal for names that are one tensor."""
    pointer = tensor.untyped_storage().data_ptr()
    return pointer, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


def unpacked(name: str, packed: Mapping[str, Json], fetch: Fetch, names: Names, where: str) -> Tree:
    """The tree that `Package.add` was given.

    `fetch(file, tensor)` gives a tensor of a file, `names(file)` the names in one. Raises
    `Damaged`.
    """
    rest = {key: value for key, value in packed.items() if key not in ("kind", "dtypes")}
    module = packed["kind"] == "module"
    file = f"{name}.extra{TENSORS}" if module else f"{name}{TENSORS}"
    tree = {
        key: rebuilt(value, lambda tensor: fetch(file, tensor), f"{where}, {name}.{key}")
        for key, value in rest.items()
    }
    if module:
        tree |= _module_tensors(name, packed, fetch, names, where)
    return tree


Names = Callable[[str], Iterator[str]]


def _module_tensors(
    name: str, packed: Mapping[str, Json], fetch: Fetch, names: Names, where: str
) -> Tree:
    dtypes = packed.get("dtypes", {})
    tree: Tree = {}
    for part, file in (("state", f"{name}{TENSORS}"), ("buffers", f"{name}{BUFFERS}")):
        tree[part] = {}
        for key in names(file):
            tensor = fetch(file, key)
            if key in dtypes:
                if dtypes[key] not in ("complex128", "complex32"):
                    raise Damaged(where, expected="a dtype", got=repr(dtypes[key]), where=key)
                tensor = torch.view_as_complex(tensor)
            tree[part][key] = tensor
    return tree
