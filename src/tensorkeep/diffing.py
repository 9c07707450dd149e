"""`diff`: what changed from one checkpoint to another, tensor by tensor and module by module.

Reads both side by side in pieces: memory does not grow with the tensors. Nothing is run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from tensorkeep.checkpoints.choosing import check_size
from tensorkeep.checkpoints.opening import Source, open_checkpoint
from tensorkeep.checkpoints.tensor import TensorRef
from tensorkeep.edits.comparing import compare
from tensorkeep.edits.distances import Distance
from tensorkeep.errors import BadArgument, NothingSelected
from tensorkeep.facts import Limits
from tensorkeep.matching import renames, values
from tensorkeep.matching.changes import (
    DTYPE,
    SHAPE,
    VALUE,
    Change,
    ModuleChange,
    ValueChanges,
    roll_up,
)
from tensorkeep.matching.sides import Side, sides
from tensorkeep.progress import SILENT, Reporter
from tensorkeep.scanning.requiring import check_safe


@dataclass(slots=True)
class DiffReport:
    """What changed from A to B. Names are those that both share, without the wrappers in `aligned`.

    `tensors` counts those of A and of B; `identical` are equal in every value, `close` differ
    within the tolerance. `renamed` is pairs (from, to). `values_read` is False for a comparison
    of metadata alone. `optimizers` are the parts that hold optimizer state. `not_compared` is
    pairs of a name and why: with any, nothing is called same.
    """

    a: str
    b: str
    sections: tuple[str, str]
    tensors: tuple[int, int] = (0, 0)
    identical: int = 0
    close: int = 0
    values_read: bool = True
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    changed: list[Change] = field(default_factory=list)
    modules: list[ModuleChange] = field(default_factory=list)
    values: ValueChanges = field(default_factory=ValueChanges)
    optimizers: list[str] = field(default_factory=list)
    aligned: list[tuple[str, str]] = field(default_factory=list)
    not_compared: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def differs(self) -> bool:
        """Whether any difference was found."""
        parts = (self.added, self.removed, self.renamed, self.changed, self.values)
        return any(len(part) for part in parts)

    @property
    def same(self) -> bool:
        """Whether all was compared and nothing differs."""
        return not self.differs and not self.not_compared

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return {
            "schema": 1,
            "same": self.same,
            "a": self.a,
            "b": self.b,
            "sections": list(self.sections),
            "values_read": self.values_read,
            "tensors": list(self.tensors),
            "identical": self.identical,
            "close": self.close,
            "added": self.added,
            "removed": self.removed,
            "renamed": [{"from": old, "to": new} for old, new in self.renamed],
            "changed": [change.to_dict() for change in self.changed],
            "modules": [module.to_dict() for module in self.modules],
            "values": self.values.to_dict(),
            "optimizers": self.optimizers,
            "aligned": [{"side": side, "dropped": what} for side, what in self.aligned],
            "not_compared": [{"name": name, "why": why} for name, why in self.not_compared],
            "notes": self.notes,
        }


def diff(
    a: Source,
    b: Source,
    *,
    section: str | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    metadata_only: bool = False,
    atol: float = 0.0,
    rtol: float = 0.0,
    limits: Limits | None = None,
    reporter: Reporter = SILENT,
) -> DiffReport:
    """Say what changed from checkpoint `a` to `b`, which may be of different formats.

    `section`: a top-level part, "all", or None: everything of two training checkpoints, else the
    weights. `only`, `skip`: globs over the shared names, of values too. `metadata_only` compares
    names, shapes, dtypes and values, and reads no tensor. A tensor is unchanged if
    |a - b| <= `atol` + `rtol` |b| for all elements; by default only if all are equal.

    Raises `ReadError` (`Amplified` for views of a hundred times the file's size), `StoreError`,
    `SelectionError` (also where a side has no tensors) and `BadArgument`.
    """
    if a == b == "-":
        raise BadArgument("A and B", expected="at most one of them from stdin", got="- and -")
    _check_arguments(only, skip, atol, rtol)
    with open_checkpoint(a, limits=limits) as first, open_checkpoint(b, limits=limits) as second:
        left, right = sides(first, second, section)
        job = _Job(left, right, (atol, rtol), read=not metadata_only)
        job.glob(only, skip)
        if not metadata_only:
            job.check_size((limits or Limits()).max_ratio)
        for ckpt in (first, second):
            # Two files of the same tensors are not the same to whoever loads them.
            job.report.notes += check_safe(ckpt, None, ckpt.path)[1]
        job.compare(reporter)
        first.check_unchanged()
        second.check_unchanged()
        return job.report


def _check_arguments(only: object, skip: object, *tolerance: object) -> None:
    if isinstance(only, str) or isinstance(skip, str):
        raise BadArgument("only, skip", expected="a list of globs", got="one string")
    for value in tolerance:
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise BadArgument(
                "atol, rtol", expected="numbers that are not negative", got=repr(value)
            )


class _Job:
    """One comparison, on its way to a report."""

    def __init__(
        self, left: Side, right: Side, tolerance: tuple[float, float], *, read: bool
    ) -> None:
        self.left, self.right = left, right
        self.tolerance = tolerance
        self.read = read
        self.report = DiffReport(
            left.ckpt.path, right.ckpt.path, (left.section, right.section), values_read=read
        )
        self.report.notes = list(dict.fromkeys([*left.notes, *right.notes]))
        self.report.optimizers = [
            name for name, part in left.ckpt.parts.items() if part.optimizer and name
        ]
        self.report.aligned = [
            (name, what) for name, side in (("a", left), ("b", right)) for what in side.dropped
        ]

    def glob(self, only: Sequence[str], skip: Sequence[str]) -> None:
        """Keep what the globs want. Raises `NothingSelected` if that is no tensor of a side."""
        every = [*self.left.tensors, *self.right.tensors, *self.left.values, *self.right.values]
        for pattern in [*only, *skip]:
            if not any(fnmatchcase(name, pattern) for name in every):
                self.report.notes.append(f"no name matches {pattern!r}")
        for side in (self.left, self.right):
            for names in (side.tensors, side.values, side.unread):
                for name in [n for n in names if not _wanted(n, only, skip)]:
                    del names[name]
            if not side.tensors:
                raise NothingSelected(
                    side.ckpt.path,
                    expected="at least one tensor to compare",
                    got="none",
                    where=f"section {side.section!r}" if side.section else "",
                    remedy="Loosen --only and --skip."
                    if only or skip
                    else "List the names with: tensorkeep inspect --tensors.",
                )

    def check_size(self, ratio: int) -> None:
        """Raise `Amplified` if a file makes views that are far larger than itself altogether.

        A few bytes can be a tensor of many terabytes, all of them the same element.
        """
        for side in (self.left, self.right):
            check_size(
                side.ckpt,
                side.tensors.values(),
                ratio,
                "Leave out the expanded ones with --skip, or compare --metadata-only.",
            )

    def compare(self, reporter: Reporter) -> None:
        """Fill the report."""
        left, right, report = self.left.tensors, self.right.tensors, self.report
        report.tensors = (len(left), len(right))
        shared = [name for name in left if name in right]
        self._names(shared)
        level = [name for name in shared if left[name].shape == right[name].shape]
        distances: dict[str, Distance | None] = dict.fromkeys(shared)
        if self.read:
            distances |= self._distances(level, reporter)
        for name in shared:
            self._judge(name, left[name], right[name], distances[name])
        changed = {change.name for change in report.changed}
        report.modules = roll_up(distances, changed, [*report.added, *report.removed])
        self._values()

    def _names(self, shared: list[str]) -> None:
        left, right, report = self.left.tensors, self.right.tensors, self.report
        known = set(shared)
        removed = {name: ref for name, ref in left.items() if name not in known}
        added = {name: ref for name, ref in right.items() if name not in known}
        if self.read and removed and added:
            found = renames.find(removed, added)
            report.renamed = list(found.pairs.items())
            if found.ambiguous:
                report.notes.append(
                    f"{found.ambiguous} of the removed tensors have the bytes of several added "
                    "ones (all zeros, say): which is which cannot be told"
                )
        gone, came = set(dict(report.renamed)), {new for _, new in report.renamed}
        report.removed = [name for name in removed if name not in gone]
        report.added = [name for name in added if name not in came]

    def _distances(self, names: list[str], reporter: Reporter) -> dict[str, Distance]:
        pairs = [(self.left.tensors[name], self.right.tensors[name]) for name in names]
        reporter.start("comparing", sum(a.nbytes + b.nbytes for a, b in pairs))
        for side in (self.left, self.right):
            side.ckpt.advise_sequential()
        try:
            atol, rtol = self.tolerance
            found = compare(pairs, atol=atol, rtol=rtol, reporter=reporter)
        finally:
            reporter.finish()
        self._remarks(found)
        return dict(zip(names, found, strict=True))

    def _remarks(self, found: Iterable[Distance]) -> None:
        nans = [d.nans for d in found if d.nans]
        if nans:
            self.report.notes.append(
                f"NaN stands at the same place in both at {sum(nans)} places of {len(nans)} "
                "tensors: counted as equal"
            )
        recoded = sum(d.recoded and not d.apart for d in found)
        if recoded:
            self.report.notes.append(
                f"{recoded} tensors of equal values differ in their bytes: the sign of a zero, "
                "or what is in a NaN"
            )

    def _judge(self, name: str, a: TensorRef, b: TensorRef, distance: Distance | None) -> None:
        report, before, after = self.report, (a.dtype, a.shape), (b.dtype, b.shape)
        if before != after:
            what = SHAPE if a.shape != b.shape else DTYPE
        elif distance is None or not distance.apart:
            report.identical += 1
            return
        elif any(self.tolerance) and not distance.beyond:
            report.close += 1
            return
        else:
            what = VALUE
        measured = None if distance is None or distance.unmeasured else distance
        report.changed.append(Change(name, what, before, after, measured))

    def _values(self) -> None:
        left, right, found = self.left.values, self.right.values, self.report.values
        found.added = [name for name in right if name not in left]
        found.removed = [name for name in left if name not in right]
        for name in left:
            if name in right and not values.same(left[name], right[name]):
                found.changed.append((name, left[name], right[name]))
        unread = {**self.left.unread, **self.right.unread}
        for name, value in left.items():
            if name in right and not values.whole(value):
                unread[name] = "too long to compare beyond its beginning"
        self.report.not_compared = list(unread.items())


def _wanted(name: str, only: Sequence[str], skip: Sequence[str]) -> bool:
    if only and not any(fnmatchcase(name, pattern) for pattern in only):
        return False
    return not any(fnmatchcase(name, pattern) for pattern in skip)
