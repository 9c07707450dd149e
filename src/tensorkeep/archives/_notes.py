"""The growing list of anomalies of one archive."""

from __future__ import annotations

from tensorkeep.facts import Anomaly

# A directory of a million duplicates is one fact, not a million.
_MOST_OF_A_KIND = 100


class Notes:
    """Anomalies in the order in which they were met, at most 100 of one kind."""

    __slots__ = ("_counts", "anomalies")

    def __init__(self) -> None:
        self.anomalies: list[Anomaly] = []
        self._counts: dict[str, int] = {}

    def add(self, kind: str, what: str, where: str = "", offset: int | None = None) -> None:
        """Note one; the hundredth of its kind says that further ones are left out."""
        count = self._counts.get(kind, 0) + 1
        self._counts[kind] = count
        if count > _MOST_OF_A_KIND:
            return
        if count == _MOST_OF_A_KIND:
            what += " (further ones of this kind are not listed)"
        self.anomalies.append(Anomaly(kind, what, where, offset))
