"""Optimizer state by the names of the parameters it belongs to, where the file lets them be known.

torch numbers the parameters of an optimizer in the order of its groups. Newer versions also save
`param_names` (torch 2.6 on, for optimizers made from named parameters). Without them the names
follow from the weights beside them: one group, as many parameters as the weights have, and the
shape of every moment equal to that of its parameter; otherwise nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tensorkeep.checkpoints.index import Index, Path
from tensorkeep.checkpoints.tensor import TensorRef

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
Names = dict[object, str]
Weights = Callable[[], Mapping[str, TensorRef]]


def roots(index: Index) -> set[Path]:
    """Where the state dicts of optimizers lie: what has `param_groups` in it."""
    return {
        path[: path.index("param_groups")] for path, _ in index.leaves if "param_groups" in path
    }


def parameter_names(index: Index, weights: Weights) -> dict[Path, Names]:
    """For each optimizer (by the path of its state dict): parameter index to parameter name.

    `weights` gives the tensors of the model by name; it is asked only if names follow from them.
    """
    found = {}
    for prefix, groups in _groups(index).items():
        names = _saved(groups) or _deduced(index, prefix, groups, weights)
        if names:
            found[prefix] = names
    return found


def _groups(index: Index) -> dict[Path, dict[object, dict[str, list[object]]]]:
    """Per optimizer and group: the lists under "params" and "param_names"."""
    found: dict[Path, dict[object, dict[str, list[object]]]] = {}
    for path, value in index.leaves:
        if len(path) < 4 or path[-4] != "param_groups" or path[-2] not in ("params", "param_names"):
            continue
        group = found.setdefault(path[:-4], {}).setdefault(path[-3], {})
        group.setdefault(str(path[-2]), []).append(value)
    return found


def _saved(groups: dict[object, dict[str, list[object]]]) -> Names:
    names: Names = {}
    for group in groups.values():
        numbers, labels = group.get("params", []), group.get("param_names", [])
        if len(numbers) != len(labels):
            return {}
        names |= {n: label for n, label in zip(numbers, labels, strict=True) if type(label) is str}
    return names


def _deduced(
    index: Index,
    prefix: Path,
    groups: dict[object, dict[str, list[object]]],
    weights: Weights,
) -> Names:
    if len(groups) != 1:
        return {}
    numbers = next(iter(groups.values())).get("params", [])
    own = [(n, r) for n, r in weights().items() if r.tied_to is None and not n.endswith(_BUFFERS)]
    if len(own) != len(numbers):
        return {}
    paired = dict(zip(numbers, own, strict=True))
    depth = len(prefix)
    for path, record in index.tensors:
        inside = path[:depth] == prefix and len(path) == depth + 3 and path[depth] == "state"
        if inside and record.shape:
            _, ref = paired.get(path[depth + 1], ("", None))
            if ref is None or ref.shape != record.shape:
                return {}
    return {number: name for number, (name, _) in paired.items()}
