"""One word for a file, out of everything that the rules found in it."""

from __future__ import annotations

from collections.abc import Iterable

from tensorkeep.facts import Finding, Verdict

ORDER: tuple[Verdict, ...] = ("safe", "suspicious", "unknown", "dangerous")


def verdict(findings: Iterable[Finding]) -> Verdict:
    """The worst that any finding says; "safe" if there is none."""
    return worst(found.severity for found in findings)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of several: dangerous > unknown > suspicious > safe."""
    return max(verdicts, key=ORDER.index, default="safe")
