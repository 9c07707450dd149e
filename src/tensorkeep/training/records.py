"""What two runs have saved, compared step by step by the digests of their manifests.

A record is a checkpoint without its tensors: `manifest.json`, which has the digest of each, and
`state.json`. That of every step stays, whatever the run keeps of the checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorkeep.checkpoints import manifest as manifests
from tensorkeep.checkpoints.runs import BUFFERS, STATE, TENSORS, RunFolder, Saved
from tensorkeep.errors import Damaged, TensorkeepError
from tensorkeep.stores import commit
from tensorkeep.training.proof import Difference

# Of a training step: numbers are drawn, batches loaded, rates set, moments made, weights changed.
_ORDER = ("generator", "generators", "loaders", "counter", "dict", "object", "scheduler")
_MODULE, _OPTIMIZER, BUFFER = "module", "optimizer", "buffer"
_RANKS = {kind: at for at, kind in enumerate((*_ORDER, BUFFER, _OPTIMIZER, _MODULE))}
_BY_PARAMETER = (_MODULE, BUFFER, _OPTIMIZER)
_OF_BATCH_NORM = ("running_mean", "running_var", "num_batches_tracked")
Json = Any


def keep(target: Path, records: Path) -> None:
    """Copy what is small of the checkpoint `target`."""
    folder = records / target.name
    commit.make_folder(folder)
    for name in (STATE, manifests.NAME):
        commit.put(folder / name, (target / name).read_bytes())


def recorded(records: Path) -> dict[int, Saved]:
    """By step. What a kill left half copied is not among them."""
    found = {}
    for saved in RunFolder(records).saved():
        try:
            if saved.manifest.files:
                found[saved.step] = saved
        except TensorkeepError as error:
            # The kill hit the copy; the checkpoint itself is judged by `resume`.
            error.add_note("half copied")
    return found


def check_whole(run: Path) -> None:
    """Raises `Damaged` if the newest checkpoint is not what its manifest says."""
    for saved in RunFolder(run).saved()[-1:]:
        for each in saved.damage():
            raise Damaged(saved.path / each.file, expected=each.expected, got=each.got)


def counted(saved: Saved) -> tuple[int, int]:
    """How many tensors and other values a record compares."""
    tensors = sum(len(facts.tensors) for facts in saved.manifest.files.values())
    return tensors, sum(1 for _ in _leaves(saved.state()))


def _leaves(value: Json) -> Iterator[Json]:
    if not isinstance(value, dict | list):
        yield value
        return
    for each in value.values() if isinstance(value, dict) else value:
        yield from _leaves(each)


def differences(a: Saved, b: Saved) -> list[Difference]:
    """All of them between two records, in the order in which a training step makes them."""
    found = [*_of_tensors(a, b), *_of_values(a.state(), b.state())]
    return sorted(dict.fromkeys(found), key=lambda each: _RANKS.get(each.kind, 0))


def _of_tensors(a: Saved, b: Saved) -> Iterator[Difference]:
    kinds = {**_kinds(b), **_kinds(a)}
    one, other = a.manifest.files, b.manifest.files
    for name in dict.fromkeys([*one, *other]):
        if not name.endswith(TENSORS):
            continue
        left = one[name].tensors if name in one else {}
        right = other[name].tensors if name in other else {}
        component = name.partition(".")[0]
        for tensor in dict.fromkeys([*left, *right]):
            if left.get(tensor) != right.get(tensor):
                kind = _kind(kinds.get(component, "object"), name, tensor)
                # Tensors of modules and optimizers are named by parameter alone.
                named = tensor.startswith(f"{component}.") and kind not in _BY_PARAMETER
                yield Difference(component, kind, tensor if named else f"{component}.{tensor}")
        if left == right and name in one and one[name].digest != other[name].digest:
            # The same bytes in another shape.
            yield Difference(component, kinds.get(component, "object"), f"the header of {name}")


def _kind(kind: str, file: str, tensor: str) -> str:
    buffer = file.endswith(BUFFERS) or tensor.rpartition(".")[2] in _OF_BATCH_NORM
    return BUFFER if kind == _MODULE and buffer else kind


def _kinds(saved: Saved) -> dict[str, str]:
    tracked = saved.state()["tracked"]
    return {"loaders": "loaders", **{name: each["kind"] for name, each in tracked.items()}}


def _of_values(a: Mapping[str, Json], b: Mapping[str, Json]) -> Iterator[Difference]:
    one, other = a["tracked"], b["tracked"]
    for name in dict.fromkeys([*one, *other]):
        kind = (one.get(name) or other[name])["kind"]
        for path in _paths(one.get(name), other.get(name), name):
            yield Difference(name, kind, path)
    for path in _paths(a["loaders"], b["loaders"], "loaders"):
        yield Difference("loaders", "loaders", path)
    if a["epoch"] != b["epoch"]:
        yield Difference("epoch", "counter", "epoch")


def _paths(a: Json, b: Json, path: str) -> Iterator[str]:
    """Where two trees differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            if key in a and key in b:
                yield from _paths(a[key], b[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for at, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from _paths(left, right, f"{path}[{at}]")
    elif repr(a) != repr(b):  # 0.0 and -0.0 are equal, and not the same bits
        yield path
