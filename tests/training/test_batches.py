"""A loader goes on in the middle of an epoch as if the run had never stopped."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    random_split,
)

from tensorkeep.errors import TensorkeepWarning
from tensorkeep.training.run import Run

LENGTH, SIZE = 13, 3  # 5 batches, the last of one sample
PER_EPOCH = 5


class Augmented(Dataset[torch.Tensor]):
    """A sample: its index and random numbers of all three libraries."""

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> torch.Tensor:
        noise = [random.random(), np.random.rand(), torch.rand(()).item()]
        return torch.tensor([index, *noise], dtype=torch.float64)


@dataclass
class Parts:
    """What a process builds anew each time it starts."""

    loader: Any
    tracked: dict[str, Any] = field(default_factory=dict)


def train(
    make: Callable[[], Parts],
    path: Path,
    last: int,
    *,
    seed: int = 0,
    stop: int | None = None,
    **options: Any,
) -> list[Any]:
    """Up to step `last`; what each step saw, and the generators in the end.

    `stop`: leave everything behind right after that step was saved, as a kill would.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    parts = make()
    model, seen = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Run(path, asynchronous=False) as run:
        run.track(model=model, optimizer=optimizer, **parts.tracked)
        step = run.resume()
        while step < last:
            for batch in run.batches(parts.loader, **options):
                batch = batch[0] if isinstance(batch, list) else batch
                loss = model(batch.float()).square().mean()  # draws from torch's generator
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                seen.append((step, run.epoch, batch.tolist(), loss.item(), random.random()))
                if step in (stop, last):
                    run.save(step)
                    break
            if step == stop:
                break
    return [*seen, ("end", random.random(), np.random.rand(), torch.rand(2).tolist())]


def same_as_uninterrupted(make, tmp_path: Path, stops: list[int], last: int, **options) -> None:
    whole = train(make, tmp_path / "whole", last, **options)
    assert len(whole) == last + 1
    for stop in stops:
        path = tmp_path / f"stop{stop}"
        first = train(make, path, last, stop=stop, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TensorkeepWarning)
            second = train(make, path, last, seed=99, **options)
        assert first[:-1] == whole[:stop]
        assert second == whole[stop:]


class Custom(Sampler[list[int]]):
    """Batches of its own sizes, from a generator of its own."""

    def __init__(self) -> None:
        self.random = random.Random(3)

    def __len__(self) -> int:
        return PER_EPOCH

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(PER_EPOCH):
            yield self.random.sample(range(LENGTH), self.random.randrange(1, 5))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


DATA = Augmented()
LOADERS: dict[str, Callable[[int], DataLoader[Any]]] = {
    "sequential": lambda workers: DataLoader(DATA, SIZE, num_workers=workers),
    "shuffle": lambda workers: DataLoader(DATA, SIZE, shuffle=True, num_workers=workers),
    "own generator": lambda workers: DataLoader(
        DATA, SIZE, shuffle=True, num_workers=workers, generator=generator()
    ),
    "weighted": lambda workers: DataLoader(
        DATA,
        SIZE,
        sampler=WeightedRandomSampler(torch.arange(1.0, LENGTH + 1), LENGTH),
        num_workers=workers,
    ),
    "with replacement": lambda workers: DataLoader(
        DATA,
        SIZE,
        sampler=RandomSampler(DATA, replacement=True, num_samples=15, generator=generator()),
        num_workers=workers,
    ),
    "subset": lambda workers: DataLoader(
        DATA, SIZE, sampler=SubsetRandomSampler(range(13)), num_workers=workers
    ),
    "batch sampler": lambda workers: DataLoader(
        DATA,
        num_workers=workers,
        batch_sampler=BatchSampler(RandomSampler(DATA), SIZE, drop_last=False),
    ),
    "custom batch sampler": lambda workers: DataLoader(
        DATA, num_workers=workers, batch_sampler=Custom()
    ),
    "distributed": lambda workers: DataLoader(
        DATA,
        2,
        num_workers=workers,
        sampler=DistributedSampler(DATA, num_replicas=2, rank=1, seed=4),
    ),
    "part": lambda workers: DataLoader(
        random_split(DATA, [9, 4], generator())[0], 2, shuffle=True, num_workers=workers
    ),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_interrupted_equals_uninterrupted(kind, tmp_path) -> None:
    # First, middle and last batch of an epoch, and the second epoch.
    same_as_uninterrupted(lambda: Parts(LOADERS[kind](0)), tmp_path, [1, 3, 4, 5, 7, 10], 12)


@pytest.mark.parametrize(
    "kind", ["shuffle", "own generator", "with replacement", "custom batch sampler", "distributed"]
)
def test_with_workers_too(kind, tmp_path) -> None:
    last = 7 if kind != "distributed" else 6
    same_as_uninterrupted(lambda: Parts(LOADERS[kind](2)), tmp_path, [3, 5, 6], last)


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_with_seeds_of_their_own(workers, tmp_path) -> None:
    make = lambda: Parts(LOADERS["own generator"](workers))  # noqa: E731
    same_as_uninterrupted(make, tmp_path, [1, 5, 6], 8, per_sample_seed=True)


def test_seeds_of_samples_make_the_number_of_workers_free(tmp_path) -> None:
    whole = train(lambda: Parts(LOADERS["shuffle"](0)), tmp_path / "a", 7, per_sample_seed=True)
    first = train(
        lambda: Parts(LOADERS["shuffle"](0)), tmp_path / "b", 7, per_sample_seed=True, stop=3
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is loaded twice
        second = train(
            lambda: Parts(LOADERS["shuffle"](1)), tmp_path / "b", 7, per_sample_seed=True, seed=8
        )
    batches = [step[2] for step in whole if step[0] != "end"]
    assert [step[2] for step in [*first, *second] if step[0] != "end"] == batches
    assert len({tuple(sample) for batch in batches for sample in batch}) == 13 + 6


class Transformed(Augmented):
    """Its random numbers come from generators that lie in it, of each kind."""

    def __init__(self) -> None:
        self.parts = [np.random.default_rng(1), {"old": np.random.RandomState(2)}]
        hidden = random.Random(3)
        self.jitter = lambda value: value + hidden.random()
        self.torch = generator()

    def __getitem__(self, index: int) -> torch.Tensor:
        first, old = self.parts[0].random(), self.parts[1]["old"].rand()
        third = self.jitter(torch.rand((), generator=self.torch).item())
        return torch.tensor([index, first, old, third], dtype=torch.float64)


@pytest.mark.parametrize("workers", [0, 2])
def test_generators_in_the_dataset_are_found_and_put_back(workers, tmp_path) -> None:
    make = lambda: Parts(DataLoader(Transformed(), SIZE, shuffle=True, num_workers=workers))  # noqa: E731
    same_as_uninterrupted(make, tmp_path, [2, 6], 8)


@pytest.mark.parametrize("workers", [0, 1])
def test_tracked_generators_are_put_back(workers, tmp_path) -> None:
    def make() -> Parts:
        own = generator()
        sampler = RandomSampler(DATA, replacement=True, num_samples=15, generator=own)
        return Parts(DataLoader(DATA, SIZE, sampler=sampler, num_workers=workers), {"own": own})

    same_as_uninterrupted(make, tmp_path, [2, 5], 8)


class Stateful(Sampler[int]):
    """A sampler with a state of its own, which the run tracks."""

    def __init__(self) -> None:
        self.at, self.turn = 0, 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at, "turn": self.turn}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at, self.turn = state["at"], state["turn"]

    def __len__(self) -> int:
        return LENGTH

    def __iter__(self) -> Iterator[int]:
        while self.at < LENGTH:
            self.at += 1
            yield (self.at + self.turn) % LENGTH
        self.at, self.turn = 0, self.turn + 1


@pytest.mark.parametrize("tracks", [True, False])
@pytest.mark.parametrize("workers", [0, 1])
def test_samplers_with_state(tracks, workers, tmp_path) -> None:
    def make() -> Parts:
        sampler = Stateful()
        tracked = {"sampler": sampler} if tracks else {}
        return Parts(DataLoader(DATA, SIZE, sampler=sampler, num_workers=workers), tracked)

    same_as_uninterrupted(make, tmp_path, [2, 5, 7], 9)


def test_without_batches(tmp_path) -> None:
    make = lambda: Parts(DataLoader(DATA, batch_size=None, shuffle=True))  # noqa: E731
    same_as_uninterrupted(make, tmp_path, [4], 20)


def test_a_sequence_of_batches(tmp_path) -> None:
    batches = [torch.full((2, 4), float(n)) for n in range(PER_EPOCH)]
    same_as_uninterrupted(lambda: Parts(batches), tmp_path, [2, 5], 8)


def test_nothing_is_loaded_to_skip_without_workers(tmp_path) -> None:
    class Counted(Augmented):
        loads = 0

        def __getitem__(self, index: int) -> torch.Tensor:
            type(self).loads += 1
            return super().__getitem__(index)

    make = lambda: Parts(DataLoader(Counted(), SIZE, shuffle=True))  # noqa: E731
    train(make, tmp_path / "run", 5, stop=4)
    Counted.loads = 0
    train(make, tmp_path / "run", 5)
    assert Counted.loads == 1


def test_the_position_is_in_the_checkpoint_as_json(tmp_path) -> None:
    train(lambda: Parts(LOADERS["shuffle"](0)), tmp_path / "run", 7)
    state = json.loads((tmp_path / "run/step-00000007/state.json").read_text())
    position = state["loaders"]["named"]["train"]["position"]
    assert (position["epoch"], position["taken"], state["epoch"]) == (1, 2, 1)
    assert (tmp_path / "run/step-00000007/loaders.safetensors").exists()


def test_saved_between_epochs(tmp_path) -> None:
    def epochs(path: Path, first: int, last: int) -> list[Any]:
        loader, seen = LOADERS["own generator"](0), []
        with Run(path, asynchronous=False) as run:
            assert run.resume() == first
            for epoch in range(first, last):
                assert run.epoch == epoch
                seen += [batch.tolist() for batch in run.batches(loader)]
                run.save(epoch + 1)
        return seen

    torch.manual_seed(0)
    whole = epochs(tmp_path / "whole", 0, 3)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    first = epochs(tmp_path / "cut", 0, 2)
    torch.manual_seed(1)
    second = epochs(tmp_path / "cut", 2, 3)
    order = [[int(sample[0]) for sample in batch] for batch in whole]
    assert [[int(sample[0]) for sample in batch] for batch in [*first, *second]] == order


def test_what_is_drawn_between_resume_and_the_loop_does_not_matter(tmp_path) -> None:
    def go(run: Run, stop: int | None = None) -> list[Any]:
        seen = []
        for step, batch in enumerate(run.batches(LOADERS["shuffle"](0)), 1):
            seen.append(batch.tolist())
            if step == stop:
                run.save(step)
        return seen

    with Run(tmp_path, asynchronous=False) as run:
        whole = go(run, stop=2)
        run.resume(2)
        torch.rand(5), random.random()
        assert go(run) == whole[2:]
