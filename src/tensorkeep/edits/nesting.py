"""The value of an edited checkpoint, nested as it was: tensors in their places, plain values kept.

What only running the file would make is left out, and said. A container that lost all that was in
it goes with it; a section that lost all its tensors takes its other values along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tensorkeep.checkpoints import optimizers
from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.index import Path, name_of
from tensorkeep.checkpoints.nested import Box, Slot, nesting
from tensorkeep.edits import planning
from tensorkeep.edits.inventory import Inventory
from tensorkeep.edits.places import Places
from tensorkeep.errors import NameCollision
from tensorkeep.facts import Limits
from tensorkeep.formats.contents import Inert, Items
from tensorkeep.formats.layout import Named

_SEQUENCES = ("list", "tuple", "set", "frozenset")
_MAPPINGS = ("collections.OrderedDict", "collections.Counter")
# Python's pickles hold larger ones; torch's reader takes none.
_INTEGER_BITS = 2032
_LISTED = 3
_WORDS = 80


@dataclass
class Tree:
    """`value`: what is to be written. `left_out`: names and why; `notes`: sentences."""

    value: object = None
    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Node:
    path: Path
    kind: str = "dict"
    attributes: dict[str, object] = field(default_factory=dict)
    children: dict[object, object] = field(default_factory=dict)
    made: object = None


def tree(
    ckpt: Checkpoint,
    inventory: Inventory,
    names: Iterable[str],
    *,
    leaves: Callable[[str], str] = lambda _name: "",
    labels: Callable[[Path], Mapping[str, str]] = lambda _root: {},
    limits: Limits | None = None,
) -> Tree:
    """The whole value of `ckpt` with the tensors `names` of `inventory`, whose edits are done.

    `leaves` says of the name of a value why it is left out, or "". `labels`: for an optimizer's
    path the new names of parameters that it names. Raises `NameCollision`, `LimitExceeded`.
    """
    return _Building(ckpt, inventory, list(names), leaves, labels).run(limits)


class _Building:
    def __init__(
        self,
        ckpt: Checkpoint,
        inventory: Inventory,
        names: list[str],
        leaves: Callable[[str], str],
        labels: Callable[[Path], Mapping[str, str]],
    ) -> None:
        self.ckpt, self.inventory, self.leaves, self.labels = ckpt, inventory, leaves, labels
        self.origin = {name: next(iter(inventory.origin.get(name, ())), None) for name in names}
        self.roots = optimizers.roots(ckpt.index)
        self.made = Tree()
        self.nodes: list[_Node] = [_Node(())]
        self.by_path: dict[Path, _Node] = {(): self.nodes[0]}
        self.counts: dict[tuple[str, str], int] = {}

    def run(self, limits: Limits | None) -> Tree:
        found = nesting(self.ckpt, limits)
        self.boxes = {path: box for path, box in found.steps if isinstance(box, Box)}
        before = {
            item.name: self._flat(path) for path, item in found.steps if isinstance(item, Slot)
        }
        self.places = Places(before, self.origin)
        self.lost = self._lost(before)
        self.kinds = {self.places.home(path): (path, box) for path, box in self.boxes.items()}
        if found.steps and not isinstance(found.steps[0][1], Box):
            return self._bare(found.steps[0][1])
        self._set_kind(self.nodes[0])
        for path, item in self._steps(found.steps):
            self._put(path, item)
        self._say(found.described)
        self.made.value = self._finish()
        return self.made

    def _bare(self, item: object) -> Tree:
        """A file that holds nothing but one tensor."""
        self.made.value = {name: Named(name) for name in self.origin}
        if len(self.origin) == 1 and isinstance(item, Slot) and item.name in self.origin:
            self.made.value = Named(item.name)
        return self.made

    def _flat(self, path: Path) -> Path:
        """`path`, where what lies in a module has one key, as in the module's state dict."""
        for size in range(len(path)):
            box = self.boxes.get(path[:size])
            if box is not None and box.kind == "module":
                return (*path[:size], name_of(path[size:]))
        return path

    def _lost(self, before: Mapping[str, Path]) -> set[Path]:
        """Sections and optimizers none of whose tensors are kept."""
        kept = {before[old] for old in self.origin.values() if old is not None}
        heads = {path[:1] for path in before.values() if len(path) > 1} | (self.roots - {()})
        sizes = {len(head) for head in heads}
        full = {path[:size] for path in before.values() for size in sizes}
        return (heads & full) - {path[:size] for path in kept for size in sizes}

    def _steps(self, steps: list[tuple[Path, object]]) -> Iterator[tuple[Path, object]]:
        """What is written, by its new path, in the order of the file; what is new comes last."""
        filled = {path[:-1] for path, _ in steps if path}
        made: dict[str | None, list[str]] = {}
        for name, old in self.origin.items():
            made.setdefault(old, []).append(name)
        for path, item in steps:
            if isinstance(item, Slot):
                yield from ((self.places.tensors[n], Named(n)) for n in made.get(item.name, ()))
            elif isinstance(item, Box):
                if path and path not in filled and not self._is_lost(path) | self._in_module(path):
                    yield self.places.home(path), item
            elif self._is_kept(path, item):
                yield (*self.places.home(path[:-1]), path[-1]), self._followed(path, item)
        yield from ((self.places.tensors[name], Named(name)) for name in made.get(None, ()))

    def _is_lost(self, path: Path) -> bool:
        return any(path[:size] in self.lost for size in range(1, len(path)))

    def _in_module(self, path: Path) -> bool:
        boxes = (self.boxes.get(path[:size]) for size in range(len(path)))
        return any(box is not None and box.kind == "module" for box in boxes)

    def _is_kept(self, path: Path, value: object) -> bool:
        name, why = name_of(path), ""
        if self._is_lost(path):
            why = "its tensors are left out"
        elif self._in_module(path):
            why = "no part of the module's state dict"
        else:
            why = self.leaves(name)
        if why:
            key = (str(path[0]), why)
            self.counts[key] = self.counts.get(key, 0) + 1
            return False
        why = unwritable(value)
        # What holds tensors that nobody reads was left out when tensors were chosen.
        if why and not (isinstance(value, Inert) and value.unread):
            self.made.left_out.append((name, why))
        return not why

    def _followed(self, path: Path, value: object) -> object:
        """The name of a parameter in the groups of an optimizer, as it is now."""
        if isinstance(value, str) and path[-2:-1] in (("params",), ("param_names",)):
            root = path[: path.index("param_groups")] if "param_groups" in path else None
            if root is not None:
                return self.labels(root).get(value, value)
        return value

    def _set_kind(self, node: _Node) -> None:
        path, box = self.kinds.get(node.path, (node.path, None))
        if box is None:
            return
        node.kind = box.kind
        if box.kind in _MAPPINGS:
            dots = (f"{name_of(p)}." if p else "" for p in (path, node.path))
            versions = planning.versions(self.ckpt, path, self.inventory, *dots)
            if versions is not None:
                pairs: list[tuple[object, object]] = [*versions.items()]
                node.attributes = {"_metadata": Items("collections.OrderedDict", pairs)}

    def _put(self, path: Path, item: object) -> None:
        node = self.nodes[0]
        for size in range(1, len(path)):
            node = self._inside(node, path[:size])
        if isinstance(item, Box):
            self._inside(node, path)
        elif path[-1] in node.children:
            raise self._two(path)
        else:
            node.children[path[-1]] = item

    def _inside(self, node: _Node, path: Path) -> _Node:
        found = node.children.get(path[-1])
        if isinstance(found, _Node):
            return found
        if path[-1] in node.children:
            raise self._two(path)
        made = _Node(path)
        self._set_kind(made)
        node.children[path[-1]] = made
        self.nodes.append(made)
        return made

    def _two(self, path: Path) -> NameCollision:
        return NameCollision(
            self.ckpt.path,
            expected="one thing under each key",
            got=f"two under {name_of(path)!r}",
            remedy="Rename to a key that nothing else has.",
        )

    def _say(self, described: list[Path]) -> None:
        for (top, why), count in self.counts.items():
            self.made.left_out.append((top, why if count == 1 else f"{count} values; {why}"))
        if described:
            where = _some([name_of(path) for path in described])
            self.made.notes.append(f"keys that are no plain values are written as text: {where}")

    def _finish(self) -> object:
        """Nodes as what they stand for, the innermost first."""
        plain, holes = [], []
        for node in reversed(self.nodes):
            for key, child in node.children.items():
                if isinstance(child, _Node):
                    node.children[key] = child.made
            if node.kind in _SEQUENCES and not _is_whole(node):
                holes.append(name_of(node.path))
            elif node.kind not in ("dict", "module", *_MAPPINGS, "list", "tuple", "set"):
                plain.append(f"{name_of(node.path) if node.path else 'the whole'} ({node.kind})")
            node.made = _made(node)
        if plain:
            self.made.notes.append(f"written as plain dicts and sets: {_some(plain)}")
        if holes:
            self.made.notes.append(f"lists that lost items are dicts by position: {_some(holes)}")
        return self.nodes[0].made


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _is_whole(node: _Node) -> bool:
    return all(at in node.children for at in range(len(node.children)))


def _made(node: _Node) -> object:
    children = node.children
    if node.kind in _SEQUENCES and _is_whole(node):
        items = [children[at] for at in range(len(children))]
        if node.kind in ("list", "tuple"):
            return items if node.kind == "list" else tuple(items)
        return set(items) if all(map(_hashes, items)) else items
    if node.kind in _MAPPINGS:
        made = Items(node.kind, list(children.items()))
        made.attributes = node.attributes
        return made
    return dict(children)


def _hashes(value: object) -> bool:
    return not isinstance(value, list | dict | set | Items | tuple | Named)


def unwritable(value: object) -> str:
    """Why `value`, which is no container and no tensor, cannot be written; "" if it can."""
    if isinstance(value, int):
        return "" if value.bit_length() <= _INTEGER_BITS else "an integer of over 254 bytes"
    if value is None or type(value) in (float, complex, str, bytes):
        return ""
    return f"no plain value: {repr(value).strip('<>')[:_WORDS]}"
