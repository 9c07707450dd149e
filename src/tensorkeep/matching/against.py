"""What a checkpoint is matched against, where no torch is needed: a checkpoint or an inventory."""

from __future__ import annotations

import json
from pathlib import Path

from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.opening import Source, open_checkpoint
from tensorkeep.errors import Damaged, NothingSelected
from tensorkeep.facts import Limits
from tensorkeep.matching.codes import dequantised
from tensorkeep.matching.finding import Match, find
from tensorkeep.matching.hints import hints
from tensorkeep.matching.report import MatchReport
from tensorkeep.matching.specs import Spec, Wanted, specs_of
from tensorkeep.stores.opening import path_of

# Longer ones are no inventories: `inspect` writes a few hundred bytes for each tensor.
_LONGEST = 1 << 30


def wanted_of(source: Source, limits: Limits | None = None) -> Wanted:
    """The weights of a checkpoint, or those in an inventory that `inspect --format json` wrote.

    Raises `ReadError`, `StoreError`, `SelectionError`.
    """
    path = path_of(source)
    if path is not None and path.is_file() and _is_inventory(path):
        return _inventory(path)
    with open_checkpoint(source, limits=limits) as ckpt:
        _, specs, notes = chosen(ckpt, None)
        return Wanted(ckpt.path, specs, notes=notes)


def chosen(ckpt: Checkpoint, section: str | None) -> tuple[str, dict[str, Spec], list[str]]:
    """The section meant, its tensors by their names inside it, and notes for the user.

    Raises `SelectionError`; `NothingSelected` where it holds no tensor.
    """
    name, notes = ckpt.choose(section)
    specs = specs_of(ckpt.select(name))
    if not specs:
        what = f"section {name!r}" if name else "the file"
        raise NothingSelected(
            ckpt.path,
            expected="tensors",
            got=f"none in {what}",
            remedy="Name another part with --section; tensorkeep inspect lists them.",
        )
    return name, specs, notes


def match_checkpoint(
    source: Source, wanted: Wanted, section: str | None, limits: Limits | None
) -> MatchReport:
    """`source`'s weights against what is `wanted`. Raises `ReadError`, `SelectionError`."""
    with open_checkpoint(source, limits=limits) as ckpt:
        name, specs, notes = chosen(ckpt, section)
        match = find_in(specs, wanted)
        report = MatchReport(ckpt.path, name, wanted.subject, match)
        report.hints = hints(match, specs, wanted.tensors)
        report.notes = [*notes, *wanted.notes]
        if ckpt.unread(name):
            count = len(ckpt.unread(name))
            report.notes.append(f"{count} objects that hold tensors were not read")
        return report


def find_in(specs: dict[str, Spec], wanted: Wanted) -> Match:
    """The search. Raises `NothingSelected` where nothing is wanted."""
    if not wanted.tensors:
        raise NothingSelected(
            wanted.subject,
            expected="parameters or buffers",
            got="none",
            remedy="Name the factory of the whole model.",
        )
    floats, dequantize, names = dequantised(specs, wanted.tensors)
    match = find(floats, wanted.tensors, rebuilt=wanted.rebuilt)
    if dequantize is not None:
        match.rules.insert(0, dequantize)
        match.dequantised = names
    return match


def _is_inventory(path: Path) -> bool:
    """Bytes decide, as everywhere: JSON with `schema` in front. An index of shards has none."""
    with path.open("rb") as file:
        head = file.read(64)
    return head.lstrip().startswith(b"{") and b'"schema"' in head


def _inventory(path: Path) -> Wanted:
    try:
        table = json.loads(path.read_bytes()[:_LONGEST])
        weights, rows = table.get("weights"), table["tensors"]
        whole = {row["name"]: row for row in rows if weights in (None, row["section"])}
        inner = {name: _inside(name, row["section"], weights) for name, row in whole.items()}
        tensors = {
            inner[name]: Spec(row["dtype"], _sizes(row["shape"]), inner.get(row.get("tied_to")))
            for name, row in whole.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(
            path,
            expected="what `tensorkeep inspect --format json` writes",
            got=f"{type(error).__name__}: {error}",
            remedy="Write it again from the checkpoint.",
        ) from None
    return Wanted(str(path), tensors)


def _inside(name: str, section: str, weights: str | None) -> str:
    """As `Checkpoint.select` would name it: without its section, if one was chosen."""
    return name.removeprefix(f"{section}.") if weights else name


def _sizes(shape: list[int]) -> tuple[int, ...]:
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"a shape of {shape!r}")
    return tuple(shape)
