"""Optimizer state follows the parameters that it belongs to, or the edits are refused.

torch's optimizers number the parameters of a model in their order and keep what they have learned
about each under its number; some savers write names instead. What is left of a model must have the
same parameters in the same order, or the momentum of one is taken for that of another, and nothing
says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

from tensorkeep.checkpoints import optimizers
from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.index import Path, name_of
from tensorkeep.checkpoints.tensor import TensorRef
from tensorkeep.edits.arrays import Cast, Stored
from tensorkeep.edits.inventory import Inventory
from tensorkeep.errors import SelectionError

Labels = Callable[[Path], Mapping[str, str]]


def follow(ckpt: Checkpoint, chosen: Mapping[str, TensorRef], after: Inventory) -> Labels:
    """Let state that is kept under names of parameters follow them; check that all state fits.

    `chosen`: the tensors of the section, also those that are left out. `after`: what globs and
    edits of names, shapes and values made of them. State that is dropped whole, and parameters
    that are only called otherwise, are fine.

    Returns what tells, for the path of an optimizer, the new names of the parameters that it
    names. Raises `SelectionError` if state would no longer fit.
    """
    roots = optimizers.roots(ckpt.index)
    if not roots:
        return lambda _root: {}
    following = _Following(ckpt, chosen, after, roots)
    following.rename()
    following = _Following(ckpt, chosen, after, roots)
    following.run()
    return lambda _root: following.labels


class _Following:
    def __init__(
        self,
        ckpt: Checkpoint,
        chosen: Mapping[str, TensorRef],
        after: Inventory,
        roots: set[Path],
    ) -> None:
        self.ckpt, self.chosen, self.after = ckpt, chosen, after
        indexed = zip(ckpt.tensors.values(), ckpt.index.tensors, strict=True)
        self.paths = {ref.name: path for ref, (path, _) in indexed}
        self.became: dict[str, list[str]] = {}
        for new in after:
            for old in after.origin.get(new, ()):
                self.became.setdefault(old, []).append(new)
        self.states: dict[Path, dict[str, Path]] = {}
        self.weights = {}
        for name, ref in chosen.items():
            path = self.paths[ref.name]
            root = next((path[:n] for n in range(len(path)) if path[:n] in roots), None)
            if root is None:
                self.weights[name] = ref
            else:
                self.states.setdefault(root, {})[name] = path[len(root) :]

    def run(self) -> None:
        for root, state in self.states.items():
            if any(name in self.became for name in state):
                parameters = self._parameters(root)
                if not any(name in self.became for name in self.weights):
                    parameters = []  # the state alone: nothing here that it could be taken for
                for name in parameters:
                    self._parameter(root, name)
                if any(isinstance(inner[1], int) for inner in state.values() if len(inner) > 1):
                    self._order(root, parameters)
                for name in self.after:
                    if not self.after.origin.get(name):
                        raise self._refused(root, f"{name!r} added")
                for name, inner in state.items():
                    self._entry(root, name, inner)

    def _parameters(self, root: Path) -> list[str]:
        """The chosen weights that the optimizer is for; all of them where nothing says which."""
        try:
            own = self.ckpt.select(self.ckpt.choose(None)[0], strict=False)
        except SelectionError:
            return list(self.weights)
        by_name = {ref.name: name for name, ref in self.weights.items()}
        labels = optimizers.parameter_names(self.ckpt.index, lambda: own).get(root, {})
        refs = [own[label] for label in labels.values() if label in own] or own.values()
        return [by_name[ref.name] for ref in refs if ref.name in by_name]

    def _parameter(self, root: Path, name: str) -> None:
        """Still one tensor, with the values that the state was learned on."""
        new = self.became.get(name, [])
        if len(new) == 1 and self.after.origin[new[0]] == (name,) and self._same(name, new[0]):
            return
        raise self._refused(root, f"{name!r} {'changed' if new else 'dropped'}")

    def _order(self, root: Path, parameters: list[str]) -> None:
        """Names that parameters had before still come in that order: state goes by numbers.

        Two that exchange their names would each meet the other's state in the same model.
        """
        places = {name: at for at, name in enumerate(parameters)}
        moved = {name: now for name in parameters if (now := self.became[name][0]) in places}
        order = [places[now] for now in moved.values()]
        if order != sorted(order):
            name, now = next((old, new) for old, new in moved.items() if old != new)
            raise self._refused(root, f"{name!r} as {now!r}, a name in another place")

    def _entry(self, root: Path, name: str, inner: Path) -> None:
        """Still there, under the number or the name of its parameter."""
        new = self.became.get(name, [])
        if not new:
            raise self._refused(root, f"{name!r} dropped and other state kept")
        tails = [
            "." + ".".join([*map(str, inner[:1]), key, *map(str, inner[2:])])
            for key in self._keys(inner)
        ]
        if len(new) > 1 or not self._same(name, new[0]) or not f".{new[0]}".endswith(tuple(tails)):
            raise self._refused(root, f"{name!r} as {new[0]!r}")

    def rename(self) -> None:
        """Give state under the name of a parameter that was renamed its new name."""
        new: dict[str, str] = {}
        for root, state in self.states.items():
            for name, inner in state.items():
                label = self.labels.get(str(inner[1])) if len(inner) > 2 else None
                if label and type(inner[1]) is str and self.became.get(name) == [name]:
                    new[name] = name_of((*root, inner[0], label, *inner[2:]))
        self.after.rename(lambda name: new.get(name, name))

    @cached_property
    def labels(self) -> dict[str, str]:
        """What a saver that writes names may call a parameter, and what it is to be called now."""
        found = {}
        for label, name in self._named.items():
            now, section = self.became.get(name, []), _section(self.weights[name])
            if len(now) == 1:
                inside = label != name and now[0].startswith(section)
                stays = label != name and now[0].endswith(f".{label}")
                new = now[0].removeprefix(section) if inside else now[0]
                found[label] = label if stays else new
        return found

    def _keys(self, inner: Path) -> list[str]:
        """What the state's parameter may be called now: its number, or its name as it became."""
        key = inner[1] if len(inner) > 1 else ""
        if not isinstance(key, str) or key not in self._named:
            return [str(key)]
        return [self.labels[key]] if key in self.labels else []

    @cached_property
    def _named(self) -> dict[str, str]:
        """The weights by what a saver that writes names may call them."""
        inside = {name.removeprefix(_section(ref)): name for name, ref in self.weights.items()}
        return inside | {name: name for name in self.weights}

    def _same(self, old: str, new: str) -> bool:
        """Whether it is the same tensor of the file, as it was but for its dtype."""
        array = self.after[new]
        while isinstance(array, Cast):
            array = array.of
        before = Stored(self.chosen[old])
        return array == before or (not before.numel and array.shape == before.shape)

    def _refused(self, root: Path, got: str) -> SelectionError:
        first = ".".join(map(str, root))
        return SelectionError(
            self.after.subject,
            expected="parameters that the optimizer's state still belongs to",
            got=got,
            remedy=f"Edit only the weights' names, or leave the state out: --skip '{first}.*'."
            if first
            else "Edit only the weights' names, or leave the state out.",
        )


def _section(ref: TensorRef) -> str:
    return f"{ref.section}." if ref.section else ""
