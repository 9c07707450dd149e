"""A learning rate set by hand is that of the same schedule built with it, over every scheduler."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.schedules import SCHEDULES, built, model, optimizer_of, rates, step
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

import tensorkeep as tk
from tensorkeep.errors import BadArgument, TensorkeepWarning
from tensorkeep.training.rates import kinds

# Where torch does not keep what was given (OneCycle's div_factor; Cyclic's ratio is ours to form),
# a rate is a product of the same numbers in another order.
CLOSE = 1e-12
# torch says so of some that are built with parts that are chained, before anything was stepped.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")
NAMES = pytest.mark.parametrize("name", SCHEDULES)


def same(name: str, got, expected) -> None:
    if SCHEDULES[name].exact:
        assert got == expected
    else:
        assert got == pytest.approx(expected, rel=CLOSE, abs=1e-18)


def test_every_scheduler_of_torch_is_known() -> None:
    own = {
        each
        for each in vars(lr_scheduler).values()
        if isinstance(each, type)
        and issubclass(each, lr_scheduler.LRScheduler)
        and not each.__name__.endswith("LRScheduler")
    }
    assert {*kinds.KNOWN} == own | {SWALR}
    tested = {type(node) for name in SCHEDULES for node in kinds.nodes(built(name, [0.1])[1])}
    assert tested == own - {lr_scheduler.ReduceLROnPlateau} | {SWALR}


@NAMES
@settings(max_examples=12)
@given(
    before=st.integers(0, 14),
    after=st.integers(0, 14),
    new=st.sampled_from([0.5, 0.03, 1e-4, 1.0]),
    adam=st.booleans(),
)
def test_base_is_the_schedule_built_with_it(name, before, after, new, adam) -> None:
    real, expected = built(name, [0.1], adam=adam), built(name, [new], adam=adam)
    step(*real, before)
    assert tk.set_lr(*real, new) == rates(real[0])
    step(*expected, before)
    same(name, rates(real[0]), rates(expected[0]))
    for _ in range(after):
        step(*real)
        step(*expected)
        same(name, rates(real[0]), rates(expected[0]))
        same(name, real[1].get_last_lr(), expected[1].get_last_lr())


@NAMES
def test_at_every_step(name) -> None:
    for before in range(16):
        real, expected = built(name, [0.1, 0.1]), built(name, [0.4, 0.4])
        step(*real, before)
        tk.set_lr(*real, 0.4)
        step(*expected, before)
        for _ in range(3):
            same(name, rates(real[0]), rates(expected[0]))
            step(*real)
            step(*expected)


@NAMES
def test_groups_keep_their_ratio_or_get_their_own(name) -> None:
    for given_lr, became in ((0.5, [0.5, 0.05, 1.0]), ([0.5, 0.2, 0.3], [0.5, 0.2, 0.3])):
        real, expected = built(name, [0.1, 0.01, 0.2]), built(name, became)
        step(*real, 6)
        tk.set_lr(*real, given_lr)
        step(*expected, 6)
        for _ in range(8):
            assert rates(real[0]) == pytest.approx(rates(expected[0]), rel=CLOSE, abs=1e-18)
            step(*real)
            step(*expected)


@NAMES
def test_rates_that_are_tensors_are_changed_in_place(name) -> None:
    real, expected = built(name, [0.1, 0.02], tensors=True), built(name, [0.5, 0.1], tensors=True)
    step(*real, 6)
    held = [group["lr"] for group in real[0].param_groups]
    tk.set_lr(*real, [0.5, 0.1])
    step(*expected, 6)
    for _ in range(6):
        assert all(g["lr"] is t for g, t in zip(real[0].param_groups, held, strict=True))
        assert rates(real[0]) == pytest.approx(rates(expected[0]), rel=1e-6, abs=1e-12)
        step(*real)
        step(*expected)


@NAMES
@pytest.mark.parametrize("mode", ["base", "now"])
def test_nothing_else_changes(name, mode) -> None:
    optimizer, scheduler = built(name, [0.1, 0.02])
    step(optimizer, scheduler, 5)
    before = copy.deepcopy(optimizer.state_dict())
    steps = [vars(node).get("last_epoch") for node in kinds.nodes(scheduler)]
    params = [p for group in optimizer.param_groups for p in group["params"]]
    weights = [p.detach().clone() for p in params]
    tk.set_lr(optimizer, scheduler, 0.3, mode=mode)
    after = optimizer.state_dict()
    assert repr(after["state"]) == repr(before["state"])
    rest = {"lr", *kinds.group_keys(scheduler)}
    for old, new in zip(before["param_groups"], after["param_groups"], strict=True):
        assert old.keys() == new.keys()
        assert {k: v for k, v in old.items() if k not in rest} == {
            k: v for k, v in new.items() if k not in rest
        }
    assert steps == [vars(node).get("last_epoch") for node in kinds.nodes(scheduler)]
    assert all(torch.equal(p, w) for p, w in zip(params, weights, strict=True))
    assert all(node.optimizer is optimizer for node in kinds.nodes(scheduler))


@NAMES
@pytest.mark.parametrize("mode", ["base", "now"])
def test_the_state_goes_into_a_schedule_built_with_the_old_base(name, mode) -> None:
    first, second = built(name, [0.1, 0.02]), built(name, [0.1, 0.02])
    step(*first, 5)
    tk.set_lr(*first, 0.3, mode=mode)
    states = [copy.deepcopy(each.state_dict()) for each in first]
    for each, state in zip(second, states, strict=True):
        each.load_state_dict(state)
    for _ in range(8):
        assert rates(first[0]) == rates(second[0])
        step(*first)
        step(*second)


@NAMES
def test_now_scales_what_follows(name) -> None:
    for before in (1, 5, 6, 7):
        real, untouched = built(name, [0.1, 0.02]), built(name, [0.1, 0.02])
        for each in (real, untouched):
            step(*each, before)
        lr = 2.5 * rates(untouched[0])[0]
        if not lr:
            continue
        assert tk.set_lr(*real, lr, mode="now")[0] == lr
        for _ in range(8):
            expected = [2.5 * rate for rate in rates(untouched[0])]
            assert rates(real[0]) == pytest.approx(expected, rel=CLOSE, abs=1e-17)
            step(*real)
            step(*untouched)


@NAMES
def test_set_twice_is_set_once(name) -> None:
    once, twice = built(name, [0.1, 0.02]), built(name, [0.1, 0.02])
    for each in (once, twice):
        step(*each, 5)
    tk.set_lr(*twice, 0.7)
    step(*once, 2)
    step(*twice, 2)
    tk.set_lr(*twice, 0.3)
    tk.set_lr(*once, 0.3)
    for _ in range(6):
        assert rates(once[0]) == pytest.approx(rates(twice[0]), rel=CLOSE, abs=1e-17)
        step(*once)
        step(*twice)


def test_now_after_base_and_base_after_now() -> None:
    optimizer, scheduler = built("Step", [0.1])
    step(optimizer, scheduler, 3)
    tk.set_lr(optimizer, scheduler, 0.06, mode="now")
    assert tk.set_lr(optimizer, scheduler, 1.0) == [0.3]


def test_eta_min_stays_with_base_and_scales_with_now() -> None:
    _, scheduler = pair = built("Cosine with a floor", [0.1])
    step(*pair, 2)
    tk.set_lr(*pair, 0.5)
    assert scheduler.eta_min == 0.003
    tk.set_lr(*pair, 2 * rates(pair[0])[0], mode="now")
    assert scheduler.eta_min == 0.006


def test_without_a_scheduler() -> None:
    optimizer = optimizer_of(model(), [0.1, 0.02])
    assert tk.set_lr(optimizer, None, 0.5) == [0.5, 0.1]
    assert [group["initial_lr"] for group in optimizer.param_groups] == [0.5, 0.1]
    assert tk.set_lr(optimizer, None, [1, 2], mode="now") == [1.0, 2.0]


def test_restarts_that_are_stepped_by_fractions() -> None:
    pairs = [built("WarmRestarts with a floor", [base]) for base in (0.1, 0.5)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for at in range(30):
            for _, scheduler in pairs:
                scheduler.step(at / 7)
    tk.set_lr(*pairs[0], 0.5)
    assert rates(pairs[0][0]) == rates(pairs[1][0])


# --- ReduceLROnPlateau


def plateau(lrs, **options):
    optimizer = optimizer_of(model(), lrs, tensors=options.pop("tensors", False))
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, **options)
    return optimizer, scheduler


def worsen(pair, steps: int) -> None:
    for _ in range(steps):
        pair[1].step(1.0)


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("before", [0, 1, 2, 5, 9])
def test_plateau_keeps_its_reductions(before, tensors) -> None:
    options = {"factor": 0.3, "min_lr": 1e-4, "tensors": tensors}
    real, expected = plateau([0.1, 0.02], **options), plateau([0.4, 0.08], **options)
    for group, lr in zip(real[0].param_groups, [0.1, 0.02], strict=True):
        group["initial_lr"] = lr
    worsen(real, before)
    worsen(expected, before)
    held = [group["lr"] for group in real[0].param_groups]
    tk.set_lr(*real, [0.4, 0.08])
    for _ in range(4):
        assert rates(real[0]) == rates(expected[0])
        assert real[1].get_last_lr() == expected[1].get_last_lr()
        worsen(real, 2)
        worsen(expected, 2)
    if tensors:
        assert all(g["lr"] is t for g, t in zip(real[0].param_groups, held, strict=True))
    assert real[1].min_lrs == expected[1].min_lrs


def simple_plateau(lr: float):
    optimizer = torch.optim.SGD(model().parameters(), lr=lr)
    return optimizer, lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)


def test_plateau_whose_base_the_optimizer_tells() -> None:
    pair = simple_plateau(0.1)
    worsen(pair, 5)
    (reduced,) = rates(pair[0])
    assert reduced == 0.1 * 0.1 * 0.1
    assert tk.set_lr(*pair, 0.5) == [0.5 * 0.1 * 0.1]
    assert tk.set_lr(*pair, 0.2) == [0.2 * 0.1 * 0.1]


def test_plateau_that_was_resumed_with_another_rate_in_the_config_is_refused() -> None:
    saved, resumed = simple_plateau(0.1), simple_plateau(1.0)
    worsen(saved, 1)
    for a, b in zip(saved, resumed, strict=True):
        b.load_state_dict(copy.deepcopy(a.state_dict()))
    with pytest.raises(BadArgument, match="initial_lr"):
        tk.set_lr(*resumed, 1.0)
    resumed[0].param_groups[0]["initial_lr"] = 0.1
    assert tk.set_lr(*resumed, 1.0) == [1.0]


def test_plateau_now() -> None:
    pair = plateau([0.1, 0.02], factor=0.5)
    worsen(pair, 3)
    assert tk.set_lr(*pair, 0.2, mode="now") == pytest.approx([0.2, 0.04])
    worsen(pair, 2)
    assert rates(pair[0]) == pytest.approx([0.1, 0.02])


# --- a rate that is not its schedule's


def test_a_rate_set_by_hand_is_said_and_overruled() -> None:
    real, expected = built("Step", [0.1]), built("Step", [0.5])
    step(*real, 4)
    step(*expected, 4)
    real[0].param_groups[0]["lr"] = 0.007
    with pytest.warns(TensorkeepWarning, match=r"0\.007 where its schedule gives 0\.03"):
        tk.set_lr(*real, 0.5)
    assert rates(real[0]) == rates(expected[0])


def test_an_object_that_counts_its_calls_does_not_count_ours() -> None:
    optimizer, scheduler = built("Lambda object", [0.1])
    step(optimizer, scheduler, 3)
    counted = scheduler.lr_lambdas[0].calls
    tk.set_lr(optimizer, scheduler, 0.5)
    assert scheduler.lr_lambdas[0].calls == counted


# --- schedulers of the user's own


class Root(lr_scheduler.LRScheduler):
    def get_lr(self):
        return [base / (1 + self.last_epoch) ** 0.5 for base in self.base_lrs]


class Offset(lr_scheduler.LRScheduler):
    def get_lr(self):
        return [0.01 + base * 0.9**self.last_epoch for base in self.base_lrs]


class Halving(lr_scheduler.LRScheduler):
    def get_lr(self):
        return [group["lr"] * 0.5 for group in self.optimizer.param_groups]


class Fixed(lr_scheduler.LRScheduler):
    def get_lr(self):
        return [0.1 / (1 + self.last_epoch) for _ in self.base_lrs]


class MyStep(lr_scheduler.StepLR):
    pass


@pytest.mark.parametrize("kind", [Root, Offset])
def test_one_that_follows_its_bases(kind) -> None:
    real, expected = ((o, kind(o)) for o in (optimizer_of(model(), [b]) for b in (0.1, 0.5)))
    step(*real, 4)
    step(*expected, 4)
    tk.set_lr(*real, 0.5)
    for _ in range(3):
        assert rates(real[0]) == rates(expected[0])
        step(*real)
        step(*expected)


def test_one_that_follows_its_bases_in_proportion() -> None:
    optimizer = optimizer_of(model(), [0.1])
    scheduler = Root(optimizer)
    step(optimizer, scheduler, 3)
    assert tk.set_lr(optimizer, scheduler, 0.5, mode="now") == pytest.approx([0.5], rel=CLOSE)
    step(optimizer, scheduler)
    assert rates(optimizer) == pytest.approx([0.5 * (4 / 5) ** 0.5])


@pytest.mark.parametrize(
    ("kind", "mode", "why"),
    [
        (Halving, "base", "another rate than the present"),
        (Fixed, "base", "does not follow base_lrs"),
        (Offset, "now", "do not scale"),
        (lambda o: MyStep(o, 2), "base", "rate before"),
        (lambda o: lr_scheduler.ChainedScheduler([Root(o)]), "base", "a subclass, or one inside"),
        (lambda o: lr_scheduler.SequentialLR(o, [Root(o)], []), "now", "a subclass, or one inside"),
    ],
)
def test_others_are_refused(kind, mode, why) -> None:
    optimizer = optimizer_of(model(), [0.1])
    scheduler = kind(optimizer)
    step(optimizer, scheduler, 3)
    refused(optimizer, scheduler, 0.5, mode, why)


# --- errors leave everything as it was


def refused(optimizer, scheduler, lr, mode: str, why: str) -> None:
    before = repr([copy.deepcopy(each.state_dict()) for each in (optimizer, scheduler)])
    with pytest.raises(BadArgument, match=why):
        tk.set_lr(optimizer, scheduler, lr, mode)
    assert repr([each.state_dict() for each in (optimizer, scheduler)]) == before


@pytest.mark.parametrize("mode", ["base", "now"])
@pytest.mark.parametrize(
    ("lr", "why"),
    [
        (-0.1, "0 or more"),
        (float("nan"), "0 or more"),
        (float("inf"), "0 or more"),
        ("0.1", "0 or more"),
        (True, "0 or more"),
        (None, "0 or more"),
        (torch.tensor([0.1, 0.2]), "0 or more"),
        ([0.1], "each of the 2"),
        ([0.1, 0.2, 0.3], "each of the 2"),
        ([0.1, -1], "0 or more"),
        ([0.1, 1e400], "0 or more"),
    ],
)
def test_rates_that_mean_nothing(lr, why, mode) -> None:
    pair = built("Sequential", [0.1, 0.02])
    step(*pair, 3)
    refused(*pair, lr, mode, why)


def test_other_arguments_that_mean_nothing() -> None:
    first, second = built("Step", [0.1]), built("Sequential", [0.1])
    refused(*first, 0.1, "then", "'base' or 'now'")
    refused(first[0], second[1], 0.1, "base", "of this optimizer")
    with pytest.raises(BadArgument, match="an optimizer of torch"):
        tk.set_lr(first[1], first[0], 0.1)
    with pytest.raises(BadArgument, match="without an optimizer"):
        tk.set_lr(first[0], "cosine", 0.1)
    first[0].add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1})
    refused(*first, 0.1, "base", "2 parameter groups")


def test_a_rate_of_nothing_has_no_factor() -> None:
    optimizer = optimizer_of(model(), [0.1])
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    refused(optimizer, scheduler, 0.5, "now", "not 0, to scale")
    assert tk.set_lr(optimizer, scheduler, 0.5) == [0.0]
    step(optimizer, scheduler)
    assert rates(optimizer) == [0.05]


def test_a_present_rate_that_is_no_number() -> None:
    pair = built("Step", [0.1, 0.02])
    pair[0].param_groups[1]["lr"] = float("nan")
    refused(*pair, 0.5, "now", "that are numbers")


def test_rates_that_no_float_can_hold() -> None:
    refused(*built("OneCycle", [1e-5, 1.0]), 1e306, "base", "a float can hold")


def test_one_floor_for_groups_that_scale_differently() -> None:
    pair = built("Cosine with a floor", [0.1, 0.02])
    step(*pair, 2)
    refused(*pair, [0.1, 0.3], "now", "one factor for all groups")


def test_parts_that_were_stepped_apart() -> None:
    optimizer = optimizer_of(model(), [0.1])
    parts = [lr_scheduler.ExponentialLR(optimizer, 0.9), lr_scheduler.StepLR(optimizer, 2)]
    step(optimizer, parts[1], 3)
    refused(optimizer, lr_scheduler.ChainedScheduler(parts), 0.5, "base", "stepped by it alone")


def test_a_function_that_fails() -> None:
    optimizer = optimizer_of(model(), [0.1])
    table = [1.0, 0.5, 0.25]
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: table[step])
    step(optimizer, scheduler, 2)
    table.clear()
    refused(optimizer, scheduler, 0.5, "base", "IndexError")


def test_one_tensor_for_two_groups() -> None:
    parts = [list(layer.parameters()) for layer in model()][:2]
    shared = torch.tensor(0.1)
    optimizer = torch.optim.SGD([{"params": part, "lr": shared} for part in parts], lr=shared)
    scheduler = lr_scheduler.StepLR(optimizer, 2)
    refused(optimizer, scheduler, [0.1, 0.3], "base", "a tensor of its own")
    assert tk.set_lr(optimizer, scheduler, 0.5) == [0.5, 0.5]
    assert optimizer.param_groups[1]["lr"] is shared


def test_a_tensor_that_cannot_be_changed() -> None:
    pair = built("Step", [0.1, 0.02], tensors=True)
    with torch.inference_mode():
        pair[0].param_groups[1]["lr"] = torch.tensor(0.02)
    refused(*pair, 0.5, "base", "inference mode")


class Stubborn(Root):
    locked = False

    def __setattr__(self, name: str, value: object) -> None:
        if self.locked and name == "_last_lr":
            raise RuntimeError("no")
        super().__setattr__(name, value)


def test_a_change_that_fails_undoes_those_before_it(monkeypatch) -> None:
    optimizer = optimizer_of(model(), [0.1, 0.02])
    optimizer.param_groups[1]["lr"] = torch.tensor(0.02)
    scheduler = Stubborn(optimizer)
    step(optimizer, scheduler, 3)
    before = repr([each.state_dict() for each in (optimizer, scheduler)])
    monkeypatch.setattr(Stubborn, "locked", True)
    with pytest.raises(RuntimeError, match="no"):
        tk.set_lr(optimizer, scheduler, 0.5)
    assert repr([each.state_dict() for each in (optimizer, scheduler)]) == before
