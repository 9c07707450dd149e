"""What is looked at beyond the pickles themselves, each step on its own: one may fail alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tensorkeep.checkpoints import index, indices
from tensorkeep.facts import Anomaly, Limits
from tensorkeep.formats.assembled import sweep
from tensorkeep.formats.contents import Contents

Step = Callable[[Contents, bool, Limits, str], Iterable[Anomaly]]


def _walked(contents: Contents, _deep: bool, limits: Limits, subject: str) -> Iterable[Anomaly]:
    """Makes the lens look at every tensor: views beyond their storages become anomalies.

    What is grafted into the tree has a lens of its own, and indices that nobody else reads.
    """
    own = sweep(contents.lens).compounds
    if contents.error is not None:
        return ()
    found = index.build(contents, limits, subject).swept.compounds
    return indices.check(found[len(own) :], limits, subject)


def _audited(contents: Contents, deep: bool, _limits: Limits, _subject: str) -> Iterable[Anomaly]:
    return contents.audit(deep)


def _indexed(contents: Contents, _deep: bool, limits: Limits, subject: str) -> Iterable[Anomaly]:
    """What the indices of sparse and nested tensors say: a loader does not look."""
    if contents.error is not None:
        return ()
    return indices.check(sweep(contents.lens).compounds, limits, subject)


STEPS: tuple[Step, ...] = (_walked, _audited, _indexed)
