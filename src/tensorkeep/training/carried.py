"""What a loader carries that has state: generators wherever they lie, and samplers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tensorkeep.errors import DoesNotFit
from tensorkeep.training.generators import found, has_state
from tensorkeep.training.indices import chain
from tensorkeep.training.loading import is_stateful
from tensorkeep.training.tracking import TrackedGenerator, TrackedObject

Tree = dict[str, Any]
_ROOTS = ("generator", "sampler", "batch_sampler", "dataset", "collate_fn", "worker_init_fn")


@dataclass(frozen=True, slots=True)
class Carried:
    """By their paths. What the run tracks itself is not among the generators."""

    generators: Mapping[str, Any]
    samplers: Mapping[str, Any]

    @classmethod
    def of(cls, loader: Any, tracked: Mapping[str, Any]) -> Carried:  # noqa: ANN401
        """Those of `loader`."""
        roots = {name: getattr(loader, name, None) for name in _ROOTS}
        # The state of a loader that has one says where its sampler is.
        samplers = {} if is_stateful(loader) else chain(loader)
        made = cls(found(roots), {path: s for path, s in samplers.items() if is_stateful(s)})
        own = [getattr(each, "target", None) for each in tracked.values()]
        return Carried(made.without(own).generators, made.samplers)

    def with_state(self) -> Carried:
        """Without the generators that have none."""
        kept = {path: each for path, each in self.generators.items() if has_state(each)}
        return Carried(kept, self.samplers)

    def capture(self) -> Tree:
        """Their state now."""
        return {path: each.capture() for path, each in self._all().items()}

    def _all(self, *, samplers: bool = True) -> dict[str, TrackedGenerator | TrackedObject]:
        made: dict[str, TrackedGenerator | TrackedObject] = {}
        if samplers:
            made |= {path: TrackedObject(path, each) for path, each in self.samplers.items()}
        return made | {p: TrackedGenerator(p, each) for p, each in self.generators.items()}

    def check(self, tree: Tree, subject: str) -> None:
        """Raises `DoesNotFit` if `tree` is not the state of just these."""
        own = self._all()
        gone, new = sorted(tree.keys() - own.keys()), sorted(own.keys() - tree.keys())
        if gone or new:
            got = [f"{', '.join(gone)} only in the checkpoint"] if gone else []
            got += [f"{', '.join(new)} only in the loader"] if new else []
            raise DoesNotFit(
                subject,
                expected="the generators that the run's loader carried",
                got="; ".join(got),
                remedy="Build the loader as the run did, or pass exact=False.",
            )
        for path, each in own.items():
            each.check(tree[path])

    def restore(self, tree: Tree, *, samplers: bool = True) -> None:
        """Put them back. Without `samplers`, which a replay has brought to where they were."""
        for path, each in self._all(samplers=samplers).items():
            if path in tree:
                each.restore(tree[path])

    def without(self, others: Iterable[object]) -> Carried:
        """Those that are none of `others`."""
        own = {id(each) for each in others}
        return Carried(
            {path: each for path, each in self.generators.items() if id(each) not in own},
            {path: each for path, each in self.samplers.items() if id(each) not in own},
        )
