"""Where each loader of a run is: saved with the run, and taken up again in the middle of an epoch.

At the beginning of an epoch the generators are remembered. To go on after `n` batches, they are put
there again, the loader begins its epoch again and gives up `n` batches, and then every generator is
put to where the checkpoint has it. What was drawn is compared with what the run had drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from tensorkeep.errors import BadArgument
from tensorkeep.training import asking, exactness, randomness
from tensorkeep.training.asking import Asked
from tensorkeep.training.carried import Carried
from tensorkeep.training.indices import chain
from tensorkeep.training.loading import Loading, loading_of
from tensorkeep.training.tracking import Tracked

Tree = dict[str, Any]
COUNTED = "train"


class Counting(Protocol):
    """The run, as far as loaders see it."""

    epoch: int


@dataclass(slots=True)
class Position:
    """Within an epoch: `start` has the generators as they were at its beginning."""

    epoch: int
    loading: Loading
    start: Tree
    taken: int = 0
    running: bool = True

    def tree(self) -> Tree:
        """As a checkpoint has it."""
        digest = self.loading.digest
        return {
            "epoch": self.epoch,
            "taken": self.taken,
            "digest": None if digest is None else digest.hex(),
            "facts": self.loading.facts(),
            "state": self.loading.state(),
            "start": self.start,
        }


@dataclass(slots=True)
class Entry:
    """What is known of the loader of a name; `epoch`: how many it has ended."""

    epoch: int = 0
    carried: Carried | None = None
    position: Position | None = None


@dataclass(slots=True)
class Loaders:
    """The loaders of a run by name. `tracked`: what the run tracks, which is put back by the run.

    `seed`: of samples that are seeded one by one.
    """

    run: Counting
    tracked: Mapping[str, Tracked]
    seed: int | None = None
    # Called when a batch is asked for; may raise, to end the loop between two batches.
    before: Callable[[], None] = lambda: None
    gave: Callable[[], None] = lambda: None
    _entries: dict[str, Entry] = field(default_factory=dict)
    # Loaders of the checkpoint that nobody has asked for yet.
    _pending: dict[str, Tree] = field(default_factory=dict)
    # The generators as the checkpoint has them, for the first loader that goes on.
    _now: Tree | None = None
    # Generators that several loaders share are put back once, by the first.
    _back: list[object] = field(default_factory=list)

    def batches(self, asked: Asked) -> Batches:
        """See `Run.batches`."""
        asking.named(asked.name)
        self._only_one(asked)
        carried = Carried.of(asked.loader, self.tracked)
        found = exactness.reasons(asked.loader, carried.generators, seeded=asked.seeded)
        if found and asked.exact:
            raise BadArgument(
                asking.called(asked),
                expected="a loader that can go on exactly in the middle of an epoch",
                got=" and ".join(what for what, _ in found),
                remedy=" ".join(dict.fromkeys(do for _, do in found)) + " Or pass exact=False.",
            )
        for what, do in found:
            asking.warn(
                asked,
                f"a run that goes on here is not the same as one that never stopped: "
                f"it has {what}. {do}",
            )
        return Batches(self, asked, carried)

    def _only_one(self, asked: Asked) -> None:
        entry = self._entries.get(asked.name)
        if entry is not None and entry.position is not None and entry.position.running:
            raise BadArgument(
                asking.called(asked),
                expected="one loop over the loader of a name at a time",
                got="a second one, while the first goes on",
                remedy="Give the second a name of its own, or end the first.",
            )

    def begin(self, asked: Asked, carried: Carried) -> tuple[Position, Iterator[Any]]:
        """The next epoch, or the one that the checkpoint is in the middle of."""
        self._only_one(asked)
        carried = carried.with_state()
        pending = self._pending.get(asked.name)
        entry = self._entries.get(asked.name) or Entry()
        if pending is None:
            made = self._fresh(asked, carried, entry)
        else:
            entry.epoch = pending["epoch"]
            made = self._after(asked, carried, entry, pending)
        self._pending.pop(asked.name, None)
        self._entries[asked.name] = entry
        entry.carried, entry.position = carried, made[0]
        return made

    def _fresh(
        self, asked: Asked, carried: Carried, entry: Entry
    ) -> tuple[Position, Iterator[Any]]:
        epoch = self.run.epoch if asked.name == COUNTED else entry.epoch
        loading = self._loading(asked, epoch, None)
        _set_epoch(asked.loader, epoch)
        position = Position(epoch, loading, self._start(carried))
        return position, loading.fresh()

    def _loading(self, asked: Asked, epoch: int, state: object) -> Loading:
        salt = None
        if asked.seeded:
            self.seed = torch.initial_seed() if self.seed is None else self.seed
            salt = f"{self.seed}/{asked.name}/{epoch}/"
        return loading_of(asked.loader, state=state, salt=salt, exact=asked.exact)

    def _start(self, carried: Carried) -> Tree:
        return {
            "globals": randomness.captured(),
            "tracked": self._generators(),
            "carried": carried.capture(),
        }

    def _generators(self) -> Tree:
        return {n: each.capture() for n, each in self.tracked.items() if each.kind == "generator"}

    def _after(
        self, asked: Asked, carried: Carried, entry: Entry, pending: Tree
    ) -> tuple[Position, Iterator[Any]]:
        if asked.exact:
            carried.check(pending["carried"], asking.called(asked))
        saved = pending["position"]
        if saved is not None:
            loading = self._loading(asked, saved["epoch"], saved["state"])
            changed = exactness.changes(saved["facts"], loading.facts())
            if not changed:
                return self._again(asked, carried, pending, loading)
            asking.refuse_changes(asked, changed)
        rest = carried.without(self._back)
        rest.restore(pending["carried"])
        self._back += rest.generators.values()
        return self._fresh(asked, carried, entry)

    def _again(
        self, asked: Asked, carried: Carried, pending: Tree, loading: Loading
    ) -> tuple[Position, Iterator[Any]]:
        saved = pending["position"]
        now = self._now or {"globals": randomness.captured(), "tracked": self._generators()}
        shared, own = carried.capture(), carried.without(self._back)
        asking.say_cost(asked, loading.cost(saved["taken"]))
        _set_epoch(asked.loader, saved["epoch"])
        carried.restore(saved["start"]["carried"])
        self._put(saved["start"])

        def put_back() -> None:
            carried.restore(shared, samplers=False)
            own.restore(pending["carried"], samplers=False)
            self._put(now)

        try:
            iterator = loading.again(saved["taken"], put_back)
            asking.same_order(asked, loading, saved)
        except BaseException:
            put_back()
            raise
        self._now = None
        self._back += own.generators.values()
        return Position(saved["epoch"], loading, saved["start"], saved["taken"]), iterator

    def _put(self, state: Tree) -> None:
        for name, tree in state["tracked"].items():
            if name in self.tracked:
                self.tracked[name].restore(tree)
        randomness.restored(state["globals"])

    def stands(self, name: str, position: Position) -> None:
        """Raises `BadArgument` if the run went back to a checkpoint since this epoch began."""
        entry = self._entries.get(name)
        if entry is None or entry.position is not position:
            raise BadArgument(
                f"batches(name={name!r})",
                expected="a loop that begins after resume()",
                got="one that began before it",
                remedy="Leave the loop, and begin it again.",
            )

    def end(self, name: str, position: Position) -> None:
        """The epoch is over."""
        self._entries[name].position = None
        self._entries[name].epoch += 1
        if name == COUNTED:
            self.run.epoch += 1

    def remaining(self, asked: Asked) -> int:
        """Raises `TypeError` if the loader has no length."""
        saved = self._pending.get(asked.name, {}).get("position")
        return max(len(asked.loader) - (saved["taken"] if saved else 0), 0)

    def midway(self, name: str) -> bool:
        """Whether the checkpoint is in the middle of an epoch of this loader, not gone on with."""
        return self._pending.get(name, {}).get("position") is not None

    def capture(self, *, left: bool = False) -> Tree:
        """Where each is. `left`: a loop that was left before its end counts as going on."""
        named = {name: self._tree(entry, left=left) for name, entry in self._entries.items()}
        return {"seed": self.seed, "named": {**named, **self._pending}}

    def _tree(self, entry: Entry, *, left: bool) -> Tree:
        position = entry.position
        if position is not None and not (position.running or left):
            position = None
        return {
            "epoch": entry.epoch,
            "carried": {} if entry.carried is None else entry.carried.capture(),
            "position": None if position is None else position.tree(),
        }

    def restore(self, tree: Tree, random: Tree) -> None:
        """`tree`: what `capture` gave, put back when a loader is asked for. `random`: as saved."""
        self.seed = tree.get("seed", self.seed)
        self._entries, self._pending = {}, dict(tree.get("named", {}))
        self._now, self._back = {"globals": random, "tracked": self._generators()}, []


class Batches:
    """One epoch, or what is left of one; iterated once. `len`: the batches to come."""

    def __init__(self, loaders: Loaders, asked: Asked, carried: Carried) -> None:
        self._loaders, self._asked, self._carried = loaders, asked, carried

    def __len__(self) -> int:
        return self._loaders.remaining(self._asked)

    def __iter__(self) -> Iterator[Any]:
        loaders, name = self._loaders, self._asked.name
        loaders.before()
        position, iterator = loaders.begin(self._asked, self._carried)
        try:
            for batch in iterator:
                position.loading.took()
                position.taken += 1
                loaders.gave()
                yield batch
                loaders.stands(name, position)
                loaders.before()
            loaders.end(name, position)
        finally:
            position.running = False


def _set_epoch(loader: object, epoch: int) -> None:
    for sampler in chain(loader).values():
        if callable(getattr(sampler, "set_epoch", None)):
            sampler.set_epoch(epoch)
