"""A training checkpoint of ours as the nesting that torch users know.

Each tracked object is a section: a module its state dict, an optimizer what `state_dict()` gives
(numbered, with `param_names`), so that `convert --section all` to a `.pth` makes a checkpoint that
torch resumes from. `runs/exp1` stands for the newest step, `runs/exp1@best`, `@newest` or `@1200`
for one of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from tensorkeep.checkpoints.keeping import Entry, best_of, moment, policy_from
from tensorkeep.checkpoints.manifest import NAME as MANIFEST
from tensorkeep.checkpoints.runs import BUFFERS, RUN, STATE, TENSORS, RunFolder, Saved
from tensorkeep.checkpoints.states import TAG, Json, decoded
from tensorkeep.errors import BadArgument, Damaged, NotFound, TensorkeepError
from tensorkeep.formats.contents import Contents, Graft, Inert, TensorRecord
from tensorkeep.stores.local.reading import LocalFolder

_NEWEST, _BEST = "newest", "best"
ReadPart = Callable[[str], Contents]


def chosen(path: Path) -> Path:
    """The folder of the step that `path` means, if it means one of a run; else `path`.

    Raises `NotFound`, `BadArgument`, and `Damaged` if no step has a manifest that can be read.
    """
    if path.is_dir():
        return _newest(RunFolder(path)).path if _is_run(path) else path
    text, at, which = str(path).rpartition("@")
    if not at or path.exists() or not _is_run(Path(text)):
        return path
    return saved_at(RunFolder(Path(text)), which).path


def _is_run(path: Path) -> bool:
    if not path.is_dir() or (path / MANIFEST).exists():
        return False
    return (path / RUN).exists() or bool(RunFolder(path).saved())


def saved_at(run: RunFolder, which: str) -> Saved:
    """`newest`, `best` or the number of a step. Raises `NotFound`, `BadArgument`, `Damaged`."""
    if which == _NEWEST:
        return _newest(run)
    if which == _BEST:
        return _best(run)
    if which.isascii() and which.isdigit():
        return run.at(int(which))
    raise BadArgument(f"{run.path}@{which}", expected="newest, best or a step", got=repr(which))


def _newest(run: RunFolder) -> Saved:
    found = run.in_time()
    for saved in reversed(found):
        if _readable(saved):
            return saved
    if found:
        return found[-1]  # reading it says what is wrong with it
    raise NotFound(run.path, expected="a run with a checkpoint", got="none yet")


def _readable(saved: Saved) -> bool:
    try:
        return saved.manifest.step == saved.step
    except TensorkeepError:
        return False


def _best(run: RunFolder) -> Saved:
    settings = run.settings()
    policy = best_of(policy_from(settings["keep"], str(run.path))) if "keep" in settings else None
    if policy is None:
        raise BadArgument(
            f"{run.path}@{_BEST}",
            expected="a run that was told which metric is best",
            got="one without KeepBest",
            remedy=f"Name a step, as in {run.path}@1200; tensorkeep runs list shows them.",
        )
    found = [saved for saved in run.saved() if _readable(saved)]
    entries = {e.step: s for s in found for e in [entry_of(s)]}
    ranked = policy.ranked([entry_of(saved) for saved in found])
    if not ranked:
        raise NotFound(run.path, expected=f"a checkpoint with metric {policy.metric}", got="none")
    return entries[ranked[0].step]


def entry_of(saved: Saved) -> Entry:
    """A checkpoint, as policies see it. Raises what reading its manifest raises."""
    made = saved.manifest
    return Entry(made.step, moment(made.created), made.metrics)


def read(
    folder: LocalFolder, read_part: ReadPart
) -> tuple[dict[str, object], dict[str, Contents], str]:
    """The root, the parts by file, and the version that wrote them.

    Raises `Damaged`, `NotFound`, and what parts raise.
    """
    saved = Saved(_step_in(folder), folder.path)
    made, state = saved.manifest, saved.state()
    parts = {name: read_part(name) for name in made.files if name.endswith(TENSORS)}
    root: dict[str, object] = {"step": made.step, "epoch": made.epoch}
    root["metrics"] = dict(made.metrics)
    try:
        for name, packed in state["tracked"].items():
            root[name] = _Section(name, packed, parts, str(folder.path)).value()
    except (KeyError, TypeError, AttributeError) as error:
        raise Damaged(folder.path / STATE, expected="tracked objects", got=repr(error)) from error
    return root, parts, str(made.facts.get("tensorkeep", "unknown"))


def _step_in(folder: LocalFolder) -> int:
    from tensorkeep.checkpoints.manifest import LONGEST, Manifest
    from tensorkeep.checkpoints.runs import read_text

    path = folder.path / MANIFEST
    return Manifest.from_bytes(read_text(path, LONGEST), str(path)).step


class _Section:
    """A tracked object's tree, its tensors as records."""

    def __init__(
        self, name: str, packed: Mapping[str, Json], parts: Mapping[str, Contents], where: str
    ) -> None:
        self._name, self._packed, self._parts, self._where = name, packed, parts, where

    def value(self) -> object:
        kind = self._packed["kind"]
        if kind == "module":
            return self._module()
        tree = {key: self._tree(each) for key, each in self._packed.items() if key != "kind"}
        if kind == "optimizer":
            return _numbered(tree)
        return tree.get("state", tree)

    def _module(self) -> object:
        own = self._parts.get(f"{self._name}{TENSORS}")
        hidden = self._parts.get(f"{self._name}{BUFFERS}")
        if own is None:
            return {}
        if hidden is not None:
            own.notes.append(
                f"{len(hidden.storages)} non-persistent buffers of {self._name} are left out"
            )
        return Graft(own)

    def _tree(self, value: Json) -> object:
        return _usual(decoded(value, self._record, self._where))

    def _record(self, item: Mapping[str, Json]) -> object:
        if item[TAG] in ("tensor", "ndarray", "numpy.generic"):
            file = f"{self._name}{TENSORS}"
            root: Any = self._parts[file].root
            record: TensorRecord = root[item["name"]]
            return record
        return Inert(f"{item[TAG]} {item.get('is', '')}".strip())


def _usual(value: object) -> object:
    """Containers of the standard library as lists and dicts, which every reader here knows."""
    if isinstance(value, dict):
        return {key: _usual(each) for key, each in value.items()}
    if isinstance(value, list | deque):
        return [_usual(each) for each in value]
    if isinstance(value, tuple):
        return tuple(_usual(each) for each in value)
    if isinstance(value, set | frozenset):
        return sorted((_usual(each) for each in value), key=repr)
    if isinstance(value, range):
        return [value.start, value.stop, value.step]
    return str(value) if isinstance(value, PurePath) else value


def _numbered(tree: Mapping[str, Any]) -> dict[str, object]:
    """What `Optimizer.state_dict()` gives, out of a tree by names."""
    numbers: dict[str, int] = {}
    groups = []
    for group in tree["groups"]:
        for name in group["params"]:
            numbers[name] = len(numbers)
        own = [numbers[name] for name in group["params"]]
        groups.append({**group["options"], "params": own, "param_names": list(group["params"])})
    state = {numbers[name]: each for name, each in tree["state"].items()}
    return {"state": state, "param_groups": groups}


def digests(parts: Mapping[str, Contents], path: Path) -> Iterator[tuple[str, str, str, str]]:
    """For `verify`: file, tensor, what the manifest says and what was found; whole ones too."""
    saved = Saved(_step_in(LocalFolder(path)), path)
    broken = {(each.file, each.tensor): each for each in saved.damage()}
    for name, facts in saved.manifest.files.items():
        for tensor in ("", *facts.tensors):
            each = broken.get((name, tensor))
            good = facts.tensors.get(tensor, facts.digest)
            # What is whole is said, too: it counts as checked.
            if each is not None:
                yield name, tensor, each.expected, each.got
            else:
                yield name, tensor, good, good
