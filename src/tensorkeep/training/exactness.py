"""What keeps a loader from going on exactly, in words; and what became of it since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import IterableDataset

from tensorkeep.training.generators import has_state
from tensorkeep.training.loading import is_plain, is_stateful

# (what is in the way, what to do about it)
Reason = tuple[str, str]


def reasons(loader: Any, sources: Mapping[str, Any], *, seeded: bool) -> list[Reason]:  # noqa: ANN401
    """All of them. `sources`: the generators that the loader carries, by their paths."""
    made = [*_of_loader(loader)]
    for path, source in sources.items():
        if not has_state(source):
            made.append((f"{path}, which draws from the operating system", "Use random.Random."))
        elif seeded and path.startswith("dataset") and _workers(loader):
            made.append(
                (f"{path}, of which every worker has a copy", "Draw from the global generators.")
            )
    return made


def _of_loader(loader: Any) -> list[Reason]:  # noqa: ANN401
    workers = _workers(loader)
    made: list[Reason] = []
    if getattr(loader, "persistent_workers", False):
        made.append(
            (
                "workers that persist, whose generators go on from epoch to epoch",
                "Pass persistent_workers=False.",
            )
        )
    if workers and not getattr(loader, "in_order", True):
        made.append(("batches in the order of their arrival", "Pass in_order=True."))
    if is_stateful(loader):
        if workers:
            made.append(
                (
                    f"the state of a {type(loader).__qualname__} with {workers} workers, whose "
                    "generators are not in it",
                    "Load in the main process (num_workers=0), or use torch's DataLoader.",
                )
            )
    elif not is_plain(loader):
        if not isinstance(loader, Sequence):
            kind = f"{type(loader).__module__}.{type(loader).__qualname__}"
            made.append((f"a {kind} without a state", _METHODS.format("it")))
    elif isinstance(loader.dataset, IterableDataset):
        made.extend(_of_stream(loader.dataset, workers))
    return made


_METHODS = "Give {} state_dict() and load_state_dict()."


def _of_stream(dataset: object, workers: int) -> list[Reason]:
    kind = type(dataset).__qualname__
    if not is_stateful(dataset):
        return [(f"{kind}, an iterable dataset without a state", _METHODS.format("it"))]
    if workers:
        return [(f"{kind}, whose state is in {workers} workers", "Pass num_workers=0.")]
    return []


def changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs, each as "batch size 8, now 16"."""
    return [
        f"{name} {was.get(name)}, now {now.get(name)}"
        for name in {**was, **now}
        if was.get(name) != now.get(name)
    ]


def _workers(loader: Any) -> int:  # noqa: ANN401
    found = getattr(loader, "num_workers", 0)
    return found if isinstance(found, int) else 0
