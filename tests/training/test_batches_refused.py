"""What a loop over a loader may be, what is refused in words, and what `exact=False` does."""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    Sampler,
    SequentialSampler,
)

from tensorkeep.errors import BadArgument, Damaged, DoesNotFit, TensorkeepWarning
from tensorkeep.training.batches import Loaders
from tensorkeep.training.run import Run


class Numbers(Dataset[int]):
    def __init__(self, length: int = 6, **extra: object) -> None:
        self.length = length
        self.__dict__.update(extra)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index


class Stream(IterableDataset[int]):
    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Iterator[int]:
        while self.at < 6:
            self.at += 1
            yield self.at - 1
        self.at = 0


class StatefulStream(Stream):
    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


class OwnState:
    """A loader as torchdata's is, as far as a protocol says."""

    def __init__(self, num_workers: int = 0) -> None:
        self.num_workers, self.at, self._resumed = num_workers, 0, 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._resumed = state["at"]

    def __iter__(self) -> Iterator[float]:
        start, self._resumed = self._resumed, 0
        for self.at in range(start + 1, 7):
            yield self.at - 1 + random.random()


class Lazy(Sampler[int]):
    """Draws from the global generator, sample by sample."""

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[int]:
        for _ in range(6):
            yield random.randrange(6)


@pytest.fixture
def run(tmp_path) -> Iterator[Run]:
    with Run(tmp_path / "run", asynchronous=False) as made:
        yield made


def whole(loader: DataLoader[Any]) -> list[Any]:
    return [batch.tolist() for batch in loader]


INEXACT = {
    "workers that persist": lambda: DataLoader(Numbers(), num_workers=1, persistent_workers=True),
    "order of their arrival": lambda: DataLoader(Numbers(), num_workers=1, in_order=False),
    "Stream, an iterable dataset without a state": lambda: DataLoader(Stream()),
    "StatefulStream, whose state is in 1 workers": lambda: DataLoader(
        StatefulStream(), num_workers=1
    ),
    "OwnState with 2 workers": lambda: OwnState(2),
    "dataset.rng, which draws from the operating system": lambda: DataLoader(
        Numbers(rng=random.SystemRandom())
    ),
    "builtins.dict without a state": lambda: {1: 2},
    "builtins.generator without a state": lambda: (n for n in range(3)),
}


@pytest.mark.parametrize("what", INEXACT)
def test_what_cannot_be_exact_is_refused_or_warned_of(what, run) -> None:
    with pytest.raises(BadArgument, match=f"{what}.*exact=False"):
        run.batches(INEXACT[what]())
    with pytest.warns(TensorkeepWarning, match=what):
        run.batches(INEXACT[what](), exact=False)


def test_a_generator_of_which_each_worker_has_a_copy_and_seeds_of_samples(run) -> None:
    data = Numbers(deep=[{"rng": np.random.default_rng(0)}])
    with pytest.raises(BadArgument, match=r"dataset\.deep\.0\.rng.*every worker has a copy"):
        run.batches(DataLoader(data, num_workers=1), per_sample_seed=True)
    run.batches(DataLoader(data), per_sample_seed=True)
    with pytest.raises(BadArgument, match="per_sample_seed=True: expected a DataLoader over"):
        list(run.batches([1, 2], per_sample_seed=True))


def test_a_sampler_that_draws_from_the_global_generator_in_between(run) -> None:
    loader = DataLoader(Numbers(), sampler=Lazy())
    with pytest.raises(BadArgument, match="sampler Lazy.*generator of its own"):
        list(run.batches(numbers(sampler=Lazy())))
    assert len(list(run.batches(loader, exact=False))) == 6


def numbers(length: int = 6, batch: int = 2, **options: Any) -> DataLoader[Any]:
    return DataLoader(Numbers(length), batch, **options)


def saved_in_the_middle(path, loader: Any, after: int = 2, **options: Any) -> None:
    with Run(path, asynchronous=False) as run:
        for step, _ in enumerate(run.batches(loader, **options), 1):
            if step == after:
                run.save(step)
                break


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (lambda: numbers(batch=3), "batch size 2, now 3"),
        (lambda: numbers(num_workers=1), "workers 0, now 1"),
        (lambda: numbers(length=8), "length of the dataset 6, now 8"),
        (lambda: numbers(shuffle=True), "sampler SequentialSampler, now RandomSampler"),
        (lambda: numbers(drop_last=True), "drop_last False, now True"),
        (lambda: [1, 2, 3], "way map-style, now a sequence"),
    ],
)
def test_a_loader_that_changed_in_the_middle_of_an_epoch(changed, words, tmp_path) -> None:
    saved_in_the_middle(tmp_path, numbers())
    with Run(tmp_path) as run:
        run.resume()
        with pytest.raises(DoesNotFit, match=words):
            list(run.batches(changed()))
        with pytest.warns(TensorkeepWarning, match=f"begins anew.*{words}"):
            assert len(list(run.batches(changed(), exact=False))) == len(changed())


def test_between_epochs_a_loader_may_change(tmp_path) -> None:
    with Run(tmp_path) as run:
        assert len(list(run.batches(numbers()))) == 3
        run.save(1)
    with Run(tmp_path) as run:
        run.resume()
        with pytest.warns(TensorkeepWarning, match="workers: 0 in the checkpoint, 1 now"):
            batches = run.batches(numbers(length=9, num_workers=1))
        assert len(list(batches)) == 5
        assert run.epoch == 2


class From(SequentialSampler):
    """An order that comes out of something that nobody saved."""

    first = 0

    def __iter__(self) -> Iterator[int]:
        return iter([(n + self.first) % 6 for n in range(6)])


def test_another_order_is_refused_and_nothing_is_changed(tmp_path) -> None:
    saved_in_the_middle(tmp_path, numbers(sampler=From([0])))
    other = From([0])
    other.first = 1
    with Run(tmp_path) as run:
        run.resume()
        before = torch.get_rng_state()
        with pytest.raises(DoesNotFit, match="2 batches in the order that the run had"):
            list(run.batches(numbers(sampler=other)))
        assert torch.equal(torch.get_rng_state(), before)
        with pytest.warns(TensorkeepWarning, match="order"):
            assert len(list(run.batches(numbers(sampler=other), exact=False))) == 1


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda loader: loader.pop("position"), "position"),
        (lambda loader: loader.update(epoch="1"), "without its epoch"),
        (lambda loader: loader["position"].update(taken=-1), "without its numbers"),
        (lambda loader: loader["position"]["start"].update(globals=[]), "beginning of its epoch"),
    ],
)
def test_a_position_that_we_never_write_is_damage_and_nothing_is_changed(
    spoil, words, tmp_path, monkeypatch
) -> None:
    capture = Loaders.capture

    def spoiled(self: Loaders, **how: bool) -> dict[str, Any]:
        made = capture(self, **how)
        for loader in made["named"].values():
            spoil(loader)
        return made

    monkeypatch.setattr(Loaders, "capture", spoiled)
    saved_in_the_middle(tmp_path, numbers())
    before = torch.get_rng_state()
    torch.rand(3)
    after = torch.get_rng_state()
    assert not torch.equal(before, after)
    with Run(tmp_path) as run, pytest.raises(Damaged, match=words):
        run.resume(2)
    assert torch.equal(torch.get_rng_state(), after)


def test_a_generator_that_is_gone_is_refused(tmp_path) -> None:
    given = torch.Generator()
    saved_in_the_middle(tmp_path, numbers(shuffle=True, generator=given))
    with Run(tmp_path) as run:
        run.resume()
        with pytest.raises(DoesNotFit, match="generator only in the checkpoint"):
            list(run.batches(numbers(shuffle=True)))


def test_the_cost_of_workers_is_said(tmp_path) -> None:
    saved_in_the_middle(tmp_path, numbers(num_workers=1))
    with Run(tmp_path) as run:
        run.resume()
        with pytest.warns(TensorkeepWarning, match="2 batches are loaded a second time"):
            assert whole(run.batches(numbers(num_workers=1))) == [[4, 5]]


@pytest.mark.parametrize("make", [OwnState, lambda: DataLoader(StatefulStream())])
def test_loaders_and_datasets_with_a_state_of_their_own(make, tmp_path) -> None:
    random.seed(1)
    everything = list(make())
    random.seed(1)
    saved_in_the_middle(tmp_path, make(), after=4)
    random.seed(2)
    with Run(tmp_path) as run:
        run.resume()
        rest = run.batches(make())
        assert list(rest) == everything[4:]
        assert len(list(run.batches(make()))) == 6


def test_streams_are_replayed_when_nothing_better_is_asked_for(tmp_path) -> None:
    with pytest.warns(TensorkeepWarning, match="without a state"):
        saved_in_the_middle(tmp_path, DataLoader(Stream()), exact=False)
    with Run(tmp_path) as run:
        run.resume()
        with pytest.warns(TensorkeepWarning) as warned:
            rest = [n.item() for n in run.batches(DataLoader(Stream()), exact=False)]
    assert rest == [2, 3, 4, 5]
    assert "2 batches are loaded a second time" in str(warned[1].message)


def test_one_loop_at_a_time_for_a_name(run) -> None:
    loader = numbers()
    for _ in run.batches(loader):
        with pytest.raises(BadArgument, match="one loop over the loader of a name at a time"):
            run.batches(loader)
        assert len(list(run.batches(loader, "other"))) == 3
    with pytest.raises(BadArgument, match="a name of letters"):
        run.batches(loader, "no/name")
    first, second = run.batches(loader), run.batches(loader)
    with pytest.raises(BadArgument, match="at a time"):
        list(zip(first, second, strict=True))


def test_a_loop_that_is_left_is_begun_anew(run, tmp_path) -> None:
    loader = numbers()
    for _ in run.batches(loader):
        break
    assert run.epoch == 0
    with pytest.raises(ZeroDivisionError):
        for _ in run.batches(loader):
            1 / 0  # noqa: B018
    assert run._loaders.capture()["named"]["train"]["position"] is None
    assert run._loaders.capture(left=True)["named"]["train"]["position"]["taken"] == 1
    assert len(list(run.batches(loader))) == 3
    assert run.epoch == 1


def test_epochs_are_counted_for_train_and_told_to_samplers(run) -> None:
    data = Numbers(8)
    samplers = [DistributedSampler(data, num_replicas=2, rank=0) for _ in range(2)]
    train, other = (DataLoader(data, 2, sampler=sampler) for sampler in samplers)
    orders = []
    for _ in range(2):
        orders.append(whole(run.batches(train)))
        whole(run.batches(other, "valid"))
        whole(run.batches(other, "valid"))
    assert (run.epoch, samplers[0].epoch, samplers[1].epoch) == (2, 1, 3)
    assert orders[0] != orders[1]


def test_len_is_what_is_left(tmp_path) -> None:
    saved_in_the_middle(tmp_path, numbers(12), after=4)
    with Run(tmp_path) as run:
        assert len(run.batches(numbers(12))) == 6
        run.resume()
        assert len(run.batches(numbers(12))) == 2


def test_a_loop_that_began_before_a_resume_is_refused(run) -> None:
    loader = numbers()
    with pytest.raises(BadArgument, match="began before it"):
        for step, _ in enumerate(run.batches(loader), 1):
            if step == 1:
                run.save(step)
            else:
                run.resume()
    assert whole(run.batches(loader)) == [[2, 3], [4, 5]]


@pytest.mark.parametrize("shared", [True, False])
def test_two_loaders_and_what_nobody_asked_for_yet(shared, tmp_path) -> None:
    """The one that comes later is still put back, through a second checkpoint."""

    def make() -> tuple[DataLoader[Any], DataLoader[Any]]:
        one = torch.Generator().manual_seed(1)
        two = one if shared else torch.Generator().manual_seed(2)
        return (
            numbers(9, shuffle=True, generator=one),
            numbers(9, shuffle=True, generator=two),
        )

    def go(path, stops: tuple[int, ...]) -> list[Any]:
        seen: list[Any] = []
        while len(seen) < 20:
            train, valid = make()
            with Run(path, asynchronous=False) as run:
                step, at = run.resume(), len(seen)
                while step < 13:
                    for batch in run.batches(train):
                        seen.append(batch.tolist())
                        step += 1
                        if step in stops and step != run.step:
                            run.save(step)
                            break
                    else:
                        seen.extend(whole(run.batches(valid, "valid")))
                        continue
                    break
                if at == len(seen) or step >= 13:
                    return seen
        return seen

    assert go(tmp_path / "a", ()) == go(tmp_path / "b", (6, 8))


def test_loops_in_each_other_go_on(tmp_path) -> None:
    outer, inner = numbers(shuffle=True), numbers(shuffle=True)

    def go(run: Run, seen: list[Any]) -> None:
        for a in run.batches(outer):
            for b in run.batches(inner, "inner"):
                seen.append((a.tolist(), b.tolist()))
                if len(seen) == 5:
                    run.save(5)

    torch.manual_seed(0)
    seen: list[Any] = []
    with Run(tmp_path, asynchronous=False) as run:
        go(run, seen)
        run.resume(5)
        # The outer batch that was worked on counts as consumed; the inner loop goes on.
        again: list[Any] = []
        go(run, again)
    assert [b for _, b in again[:1]] == [seen[5][1]]
    assert again[0][0] == seen[6][0]
    assert len(again) == 1


def test_seeds_of_samples_leave_the_generators_of_the_process_alone(run) -> None:
    class Drawing(Numbers):
        def __getitem__(self, index: int) -> Any:
            return torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])

    loader = DataLoader(Drawing(), 2, sampler=[0, 1, 1, 2], generator=torch.Generator())
    states = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].copy()
    first = torch.cat(list(run.batches(loader, per_sample_seed=True)))
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert (np.random.get_state()[1] == states[2]).all()
    assert torch.equal(first[1], first[2])
    assert not torch.equal(first[0], first[1])
    second = torch.cat(list(run.batches(loader, per_sample_seed=True)))
    assert not torch.equal(first, second)


def _set_offset(worker: int) -> None:
    info = torch.utils.data.get_worker_info()
    assert info is not None
    info.dataset.offset = 10


def test_seeds_of_samples_hide_nothing_of_the_dataset(run) -> None:
    class Offset(Numbers):
        def __getitem__(self, index: int) -> int:
            return index + self.offset

    loader = DataLoader(Offset(offset=0), 6, num_workers=1, worker_init_fn=_set_offset)
    assert whole(run.batches(loader, per_sample_seed=True)) == [[10, 11, 12, 13, 14, 15]]


def test_an_iterator_is_refused_in_words_of_a_line(run) -> None:
    with pytest.raises(BadArgument) as caught:
        run.batches(iter([1, 2]))
    assert re.match(r"batches\(list_iterator, name='train'\): expected a loader", str(caught.value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert list(run.batches(iter([1, 2]), exact=False)) == [1, 2]
