"""Which modules a diff is told by: few enough to read, deep enough to tell something."""

from __future__ import annotations

from dataclasses import dataclass

from tensorkeep.checkpoints.folding import labels_of
from tensorkeep.diffing import DiffReport
from tensorkeep.matching.changes import ModuleChange

# A model of a hundred layers is told by its layers, one of a thousand parts by what they are in.
_MOST = 128


@dataclass(frozen=True, slots=True)
class Row:
    """A module, or a tensor that lies beside modules that are told one by one."""

    name: str
    tensors: int
    changed: int
    rel_l2: float | None


def rows_of(report: DiffReport) -> tuple[list[Row], list[str]]:
    """The modules that changed, the most changed first, and the names of those that are frozen.

    Going down from the whole, a module is replaced by what is in it as long as that does not make
    too many rows: all modules of one depth, or none.
    """
    below = _below(report.modules)
    own = {change.name: change for change in report.changed}
    rows: list[Row] = []
    frozen: list[str] = []
    level = [module for module in report.modules if not module.name]
    while level:
        ends = {name for name, inside in below.items() if not inside} | set(report.optimizers)
        rows += [_row(module) for module in level if module.name in ends]
        outer = [module for module in level if module.name not in ends]
        inner = [child for module in outer for child in below[module.name]]
        names = {module.name for module in outer}
        loose = [change for name, change in own.items() if _module(name) in names]
        if len(rows) + sum(child.changed > 0 for child in inner) + len(loose) > _MOST:
            rows += [_row(module) for module in outer]
            break
        rows += [Row(c.name, 1, 1, c.distance.rel_l2 if c.distance else None) for c in loose]
        frozen += [child.name for child in inner if child.frozen]
        level = [child for child in inner if child.changed]
    rows.sort(key=lambda row: -(float("inf") if row.rel_l2 is None else row.rel_l2))
    return rows, frozen


def _row(module: ModuleChange) -> Row:
    name = module.name or "(everything)"
    return Row(name, module.tensors, module.changed, module.rel_l2)


def _below(modules: list[ModuleChange]) -> dict[str, list[ModuleChange]]:
    found: dict[str, list[ModuleChange]] = {module.name: [] for module in modules}
    for module in modules:
        if module.name:
            found[module.name.rpartition(".")[0]].append(module)
    return found


def _module(name: str) -> str:
    """The module that a tensor lies in."""
    return ".".join(labels_of(name)[:-1])
