"""A checkpoint whose learning rate was changed on disk goes on as a run in which it was."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import warnings

import pytest
import torch
from tests.training.schedules import SCHEDULES, built_on, model, rates, step
from torch.optim import lr_scheduler

import tensorkeep as tk
from tensorkeep.checkpoints.manifest import FileFacts
from tensorkeep.checkpoints.runs import RunFolder
from tensorkeep.errors import (
    AlreadyExists,
    BadArgument,
    Damaged,
    NoSpace,
    NotFound,
    StoreError,
    TensorkeepError,
)
from tensorkeep.training import learning_rate

pytestmark = pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")
NAMES = pytest.mark.parametrize("name", SCHEDULES)
LRS = [0.1, 0.02]


def saved(path, name: str, count: int = 5, **options):
    """A run that is saved after `count` steps; its parts go on in memory."""
    net = model()
    optimizer, scheduler = built_on(net, name, LRS, **options)
    step(optimizer, scheduler, count)
    with tk.Run(path) as run:
        run.track(model=net, optimizer=optimizer, scheduler=scheduler)
        run.save(count)
    return optimizer, scheduler


def resumed(path, name: str, **options):
    net = model()
    optimizer, scheduler = built_on(net, name, LRS, **options)
    with tk.Run(path) as run:
        run.track(model=net, optimizer=optimizer, scheduler=scheduler)
        run.resume()
    return optimizer, scheduler


@NAMES
@pytest.mark.parametrize("mode", ["base", "now"])
def test_it_is_what_set_lr_gives(tmp_path, name, mode) -> None:
    known = saved(tmp_path / "run", name, adam=True)
    moments = [t.clone() for s in known[0].state.values() for t in s.values()]
    before = rates(known[0])
    made = learning_rate.offline(tmp_path / "run", 0.3, mode)
    tk.set_lr(*known, 0.3, mode)
    edited = resumed(tmp_path / "run", name, adam=True)
    assert (made.step, made.optimizer, made.scheduler) == (5, "optimizer", "scheduler")
    assert (made.before, made.after) == (before, rates(edited[0]))
    assert not made.notes
    now = [t for s in edited[0].state.values() for t in s.values()]
    assert all(torch.equal(a, b) for a, b in zip(moments, now, strict=True))
    # A schedule whose functions are not saved is scaled, and not computed again.
    exact = SCHEDULES[name].exact and not SCHEDULES[name].functions
    for _ in range(8):
        if exact:
            assert rates(edited[0]) == rates(known[0])
        else:
            assert rates(edited[0]) == pytest.approx(rates(known[0]), rel=1e-12, abs=1e-17)
        step(*known)
        step(*edited)


@pytest.mark.parametrize("name", ["Step", "Sequential", "Chained, deep", "Cyclic", "OneCycle"])
def test_rates_that_are_tensors(tmp_path, name) -> None:
    known = saved(tmp_path / "run", name, tensors=True)
    learning_rate.offline(tmp_path / "run", [0.3, 0.2])
    tk.set_lr(*known, [0.3, 0.2])
    edited = resumed(tmp_path / "run", name, tensors=True)
    for _ in range(6):
        assert rates(edited[0]) == pytest.approx(rates(known[0]), rel=1e-6, abs=1e-12)
        step(*known)
        step(*edited)


def test_it_is_a_new_checkpoint_that_verifies_and_says_what_was_done(tmp_path) -> None:
    saved(tmp_path / "run", "Cosine", adam=True)
    (old,) = RunFolder(tmp_path / "run").saved()
    before = old.manifest
    held = (old.path / "state.json").open()
    weights = (old.path / "model.safetensors").stat().st_ino
    learning_rate.offline(tmp_path / "run", 0.3)
    learning_rate.set_lr_in(tmp_path / "run/step-00000005", 0.4, "now")
    (new,) = RunFolder(tmp_path / "run").saved()
    assert not list(new.damage())
    with held:  # never in place: who has the old one open still reads it
        assert json.load(held)["tracked"]["optimizer"]["groups"][0]["options"]["initial_lr"] == 0.1
    assert (new.path / "model.safetensors").stat().st_ino == weights  # linked, not copied
    made = new.manifest
    assert made.created == before.created
    assert [each["mode"] for each in made.facts["edited"]] == ["base", "now"]
    first = json.loads((new.path / "manifest.json").read_text())["edited"][0]
    assert (first["what"], first["lr"]) == ("set_lr", 0.3)
    assert first["from"] != first["to"]
    same = {name: each for name, each in made.files.items() if name != "state.json"}
    assert same == {name: each for name, each in before.files.items() if name != "state.json"}
    assert sorted(each.name for each in (tmp_path / "run").iterdir()) == [
        ".lock",
        "run.json",
        "step-00000005",
    ]


def test_where_there_are_no_links_files_are_copied(tmp_path, monkeypatch) -> None:
    known = saved(tmp_path / "run", "Step")

    def refuse(source: object, *_: object, **options: object) -> None:
        if str(source).endswith(".safetensors"):
            raise PermissionError(1, "Operation not permitted")
        link(source, *_, **options)

    link = os.link
    monkeypatch.setattr(os, "link", refuse)
    learning_rate.offline(tmp_path / "run", 0.3)
    (new,) = RunFolder(tmp_path / "run").saved()
    assert not list(new.damage())
    tk.set_lr(*known, 0.3)
    assert rates(resumed(tmp_path / "run", "Step")[0]) == rates(known[0])


@pytest.mark.parametrize("call", range(4))
def test_a_full_disk_leaves_the_old_one(tmp_path, monkeypatch, call) -> None:
    run = tmp_path / "run"
    saved(run, "Step", tensors=True)
    before, calls, fsync = contents(run), [], os.fsync

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == call + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpace):
        learning_rate.offline(run, 0.3)
    assert contents(run) == before
    assert not list(run.glob("*.tmp"))


def three_steps(path) -> None:
    net = model()
    optimizer, scheduler = built_on(net, "Step", LRS)
    with tk.Run(path) as run:
        run.track(model=net, optimizer=optimizer, scheduler=scheduler)
        for at in (1, 2, 3):
            step(optimizer, scheduler)
            run.save(at)


def damage(path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_the_newest_that_is_whole_or_the_step_that_is_named(tmp_path) -> None:
    run = tmp_path / "run"
    three_steps(run)
    damage(run / "step-00000003/model.safetensors")
    assert learning_rate.offline(run, 0.3).step == 2
    assert learning_rate.offline(run, 0.3, step=1).step == 1
    with pytest.raises(Damaged, match=r"model\.safetensors"):
        learning_rate.offline(run, 0.3, step=3)
    with pytest.raises(NotFound, match="step 7"):
        learning_rate.offline(run, 0.3, step=7)
    damage(run / "step-00000001/model.safetensors")
    damage(run / "step-00000002/state.json")
    with pytest.raises(StoreError, match="whole"):
        learning_rate.offline(run, 0.3)


def contents(path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name != ".lock"}


def refused(run, kind, why: str, *arguments, **options) -> None:
    before = contents(run)
    with pytest.raises(kind, match=why):
        learning_rate.offline(run, *arguments, **options)
    assert contents(run) == before


def test_what_is_refused_leaves_the_checkpoint_as_it_was(tmp_path) -> None:
    run = tmp_path / "run"
    three_steps(run)
    refused(run, BadArgument, "0 or more", -1)
    refused(run, BadArgument, "each of the 2", [1.0])
    refused(run, BadArgument, "'base' or 'now'", 0.1, "then")
    refused(run, BadArgument, "optimizer 'other'", 0.1, optimizer="other")
    with tk.Run(run):
        refused(run, AlreadyExists, "nobody else", 0.1)
    with pytest.raises(NotFound, match="folder of a run"):
        learning_rate.offline(tmp_path / "none", 0.1)
    with pytest.raises(BadArgument, match="folder of a step"):
        learning_rate.set_lr_in(run, 0.1)


def rewritten(run, change) -> None:
    """Change the state of a checkpoint as somebody who can compute digests could."""
    (found,) = RunFolder(run).saved()
    state = found.state()
    change(state["tracked"])
    text = json.dumps(state).encode()
    facts = FileFacts(len(text), "sha256:" + hashlib.sha256(text).hexdigest())
    made = dataclasses.replace(found.manifest, files={**found.manifest.files, "state.json": facts})
    (found.path / "state.json").write_bytes(text)
    (found.path / "manifest.json").write_bytes(made.to_bytes())


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t["optimizer"].pop("groups"),
        lambda t: t["optimizer"].update(groups=[]),
        lambda t: t["optimizer"]["groups"][0].update(options=7),
        lambda t: t["optimizer"]["groups"][0]["options"].pop("lr"),
        lambda t: t["optimizer"]["groups"][0]["options"].update(lr="high"),
        lambda t: t["optimizer"]["groups"][0]["options"].update(lr={"$": "tensor", "name": "no"}),
        lambda t: t["scheduler"].update({"class": "os.system"}),
        lambda t: t["scheduler"].update({"class": ["x"]}),
        lambda t: t["scheduler"].pop("state"),
        lambda t: t["scheduler"].pop("parts"),
        lambda t: t["scheduler"]["parts"].pop(),
        lambda t: t["scheduler"]["state"].update(last_epoch=10**15),
        lambda t: t["scheduler"]["state"].update(_milestones="x"),
        lambda t: t["scheduler"]["state"]["_schedulers"][0].update(base_lrs="x"),
        lambda t: t["scheduler"]["state"]["_schedulers"][0].update(get_lr=3, optimizer=4),
        lambda t: t["scheduler"]["state"]["_schedulers"].append({}),
    ],
)
def test_state_that_nobody_saved_so(tmp_path, change) -> None:
    saved(tmp_path / "run", "Sequential")
    rewritten(tmp_path / "run", change)
    refused(tmp_path / "run", TensorkeepError, "expected", 0.3)


class Own(lr_scheduler.LRScheduler):
    def get_lr(self):
        raise AssertionError("run for a checkpoint")


Own._initial_step = lambda self: None  # type: ignore[method-assign]


def with_scheduler(path, make, **more):
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with tk.Run(path) as run:
        made = make(optimizer)
        run.track(model=net, optimizer=optimizer, **({"scheduler": made} if made else {}), **more)
        run.save(1)
    return net, optimizer, made


@pytest.mark.parametrize(
    "make", [Own, lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.StepLR(o, 2), Own(o)])]
)
@pytest.mark.parametrize("mode", ["base", "now"])
def test_no_code_of_the_user_is_run(tmp_path, make, mode) -> None:
    with_scheduler(tmp_path / "run", make)
    refused(tmp_path / "run", BadArgument, "no other code is run", 0.3, mode)


def test_a_floor_beside_a_function_needs_the_function(tmp_path) -> None:
    def make(o):
        parts = [
            lr_scheduler.LambdaLR(o, lambda s: 1.0),
            lr_scheduler.CosineAnnealingLR(o, 9, 0.01),
        ]
        return lr_scheduler.SequentialLR(o, parts, [4])

    with_scheduler(tmp_path / "run", make)
    refused(tmp_path / "run", BadArgument, "eta_min", 0.3)
    assert learning_rate.offline(tmp_path / "run", 0.3, "now").after == [0.3]


def test_plateau(tmp_path) -> None:
    def reduced(o, known: bool):
        scheduler = lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=0)
        if known:
            o.param_groups[0]["initial_lr"] = 0.1
        for _ in range(3):
            scheduler.step(1.0)
        return scheduler

    with_scheduler(tmp_path / "run", lambda o: reduced(o, known=False))
    refused(tmp_path / "run", BadArgument, "initial_lr", 0.3)
    assert learning_rate.offline(tmp_path / "run", 0.3, "now").after == [0.3]
    with_scheduler(tmp_path / "known", lambda o: reduced(o, known=True))
    assert learning_rate.offline(tmp_path / "known", 0.8).after == [0.2]


def test_without_a_scheduler(tmp_path) -> None:
    with_scheduler(tmp_path / "run", lambda o: None)
    made = learning_rate.offline(tmp_path / "run", 0.3)
    assert (made.scheduler, made.after, made.notes) == (None, [0.3], [])
    made = learning_rate.offline(tmp_path / "run", 0.4)
    assert "a scheduler was at work" in made.notes[0]


def test_several_must_be_named(tmp_path) -> None:
    generator, critic = model(), model()
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in (generator, critic)]
    schedulers = [lr_scheduler.StepLR(each, 2) for each in optimizers]
    with tk.Run(tmp_path / "run") as run:
        run.track(generator=generator, critic=critic)
        run.track(opt_g=optimizers[0], opt_c=optimizers[1], s_g=schedulers[0], s_c=schedulers[1])
        run.save(1)
    refused(tmp_path / "run", BadArgument, "one optimizer, got opt_g, opt_c", 0.3)
    refused(tmp_path / "run", BadArgument, "do not say whose", 0.3, optimizer="opt_c")
    made = learning_rate.offline(tmp_path / "run", 0.3, optimizer="opt_c", scheduler="s_c")
    assert made.after == [0.3]
    state = RunFolder(tmp_path / "run").at(1).state()["tracked"]
    assert state["opt_g"]["groups"][0]["options"]["lr"] == 0.1
    assert state["opt_c"]["groups"][0]["options"]["lr"] == 0.3


def test_a_rate_set_by_hand_is_noted(tmp_path) -> None:
    def make(o):
        scheduler = lr_scheduler.StepLR(o, 2)
        o.param_groups[0]["lr"] = 0.07
        return scheduler

    with_scheduler(tmp_path / "run", make)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = learning_rate.offline(tmp_path / "run", 0.3)
    assert made.after == [0.3]
    assert "0.07 where its schedule gives 0.1" in made.notes[0]
