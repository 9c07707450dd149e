"""Which names of a module were filled and which were not, and what share of it that is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod

from torch import nn

from tensorkeep.live.filling import Filling
from tensorkeep.live.layout import Layout
from tensorkeep.live.report import LoadReport
from tensorkeep.matching.finding import Match
from tensorkeep.matching.specs import Specs


def plan(report: LoadReport, match: Match, layout: Layout, after: Mapping[str, str]) -> None:
    """What names and shapes promise. `after`: every name of the file after the rules."""
    report.missing = list(match.missing)
    report.missing += [name for name in layout.values if name not in after]
    report.missing += [name for name in layout.lazy if name not in match.names]
    report.unexpected = list(match.unexpected)
    report.mismatched = list(match.mismatched)


def settle(
    report: LoadReport, match: Match, layout: Layout, filling: Filling, given: Collection[str]
) -> None:
    """The same, now that modules that load themselves have had their say. `given`: filled."""
    bent = {one.name for one in match.mismatched}
    known = {*match.tolerated, *match.tied, *bent, *given}
    special = layout.is_special
    report.missing = [name for name in match.missing if not special(name)]
    report.missing += sorted({*filling.missing} - known)
    report.unexpected = [name for name in match.unexpected if not special(name)]
    report.unexpected += sorted({*filling.unexpected} - {*given})
    report.mismatched = [
        one for one in match.mismatched if not special(one.name) or one.name in filling.bent
    ]


def cover(report: LoadReport, match: Match, layout: Layout, specs: Specs) -> None:
    """The shares, each parameter once."""
    first, tolerated = layout.shared, set(match.tolerated)
    away = {first.get(name, name) for name in (*report.initialised, *tolerated)}
    sizes = {n: _elements(n, match, layout, specs) for n, own in first.items() if n == own}
    parameters = {n: c for n, c in sizes.items() if isinstance(layout.tensors[n], nn.Parameter)}
    nbytes = {n: count * layout.tensors[n].dtype.itemsize for n, count in sizes.items()}
    report.loaded = sum(own not in away for own in first.values())
    report.coverage = {
        "tensors": report.loaded / len(first) if first else 1.0,
        "parameters": _share(parameters, away),
        "bytes": _share({n: size for n, size in nbytes.items() if n not in tolerated}, away),
    }


def _share(sizes: Mapping[str, int], away: set[str]) -> float:
    whole = sum(sizes.values())
    return sum(size for n, size in sizes.items() if n not in away) / whole if whole else 1.0


def _elements(name: str, match: Match, layout: Layout, specs: Specs) -> int:
    if name not in layout.lazy:
        return layout.tensors[name].numel()
    source = match.names.get(name)
    return prod(specs[source].shape) if source else 1
