"""An edited training checkpoint is nested as it was, and training goes on from it."""

from __future__ import annotations

import argparse
import collections
import datetime
from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import tensorkeep as tk
from tensorkeep.edits.names import AddPrefix, Drop, Keep, Rename, Strip
from tensorkeep.edits.places import moved
from tensorkeep.errors import NameCollision, SelectionError

OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "plain": lambda p: torch.optim.SGD(p, lr=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "groups": lambda p: torch.optim.AdamW([{"params": p[:3], "lr": 0.1}, {"params": p[3:]}]),
    "lbfgs": lambda p: torch.optim.LBFGS(p, max_iter=2, history_size=3),
}


class Net(nn.Module):
    def __init__(self, body="body", head="head"):
        super().__init__()
        self.names = body, head
        setattr(self, body, nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh()))
        setattr(self, head, nn.Linear(8, 2))

    def forward(self, x):
        body, head = (getattr(self, name) for name in self.names)
        return head(body(x))


def train(model, optimizer, scheduler, steps, seed):
    torch.manual_seed(seed)
    for _ in range(steps):
        x, y = torch.randn(16, 4), torch.randn(16, 2)

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = (model(x) - y).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        scheduler.step()


def made(kind, **names):
    torch.manual_seed(0)
    model = Net(**names)
    optimizer = OPTIMIZERS[kind](list(model.parameters()))
    return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2)


def checkpoint(model, optimizer, scheduler):
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "epoch": 3,
    }


def resume(path, kind, **names):
    model, optimizer, scheduler = made(kind, **names)
    loaded = torch.load(path, weights_only=True)
    model.load_state_dict(loaded["model"])
    optimizer.load_state_dict(loaded["optimizer"])
    scheduler.load_state_dict(loaded["scheduler"])
    assert loaded["epoch"] == 3
    return model, optimizer, scheduler


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("through", ["pth", "whole"])
def test_two_more_steps_equal_training_on(tmp_path, kind, through):
    parts = made(kind)
    train(*parts, 3, seed=1)
    torch.save(checkpoint(*parts), tmp_path / "run.ckpt")
    rename = {"rename": ["body=trunk", "head=classifier"], "verify": True}
    report = tk.convert(tmp_path / "run.ckpt", tmp_path / "a.pth", section="all", **rename)
    assert report.left_out == []
    names = {"body": "trunk", "head": "classifier"}
    if through == "whole":
        # And back, by a conversion of what was converted.
        back = {"rename": ["trunk=body", "classifier=head"]}
        tk.convert(tmp_path / "a.pth", tmp_path / "b.pth", section="all", **back)
        names = {}
    resumed = resume(tmp_path / ("b.pth" if names == {} else "a.pth"), kind, **names)
    train(*parts, 2, seed=2)
    train(*resumed, 2, seed=2)
    pairs = zip(parts[0].state_dict().values(), resumed[0].state_dict().values(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
    assert parts[2].state_dict() == resumed[2].state_dict()


def test_parameters_that_the_optimizer_names_are_followed(tmp_path):
    model = Net()
    optimizer = torch.optim.AdamW(model.named_parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    train(model, optimizer, scheduler, 2, seed=1)
    torch.save(checkpoint(model, optimizer, scheduler), tmp_path / "run.ckpt")
    edits = [Rename("model.head", "model.classifier")]
    tk.convert(tmp_path / "run.ckpt", tmp_path / "a.pth", section="all", edits=edits)
    loaded = torch.load(tmp_path / "a.pth", weights_only=True)
    [group] = loaded["optimizer"]["param_groups"]
    names = dict(Net(head="classifier").named_parameters())
    assert group["param_names"] == [*names]
    assert group["params"] == [*range(len(names))]


@pytest.mark.parametrize("label", ["{}", "model.{}"])
def test_state_under_names_follows_them(tmp_path, label):
    weights = {"a.w": torch.ones(2), "b.w": torch.zeros(3)}
    state = {label.format(name): {"m": w + 1, "step": 3} for name, w in weights.items()}
    groups = [{"params": [*state], "lr": 0.1}]
    value = {"model": weights, "optimizer": {"state": state, "param_groups": groups}}
    torch.save(value, tmp_path / "run.ckpt")
    edits = [Rename("^model.a", "model.c.d")]
    report = tk.convert(
        tmp_path / "run.ckpt", tmp_path / "a.pth", section="all", edits=edits, verify=True
    )
    loaded = torch.load(tmp_path / "a.pth", weights_only=True)
    assert [*loaded["model"]] == ["c.d.w", "b.w"]
    new = [label.format("c.d.w"), label.format("b.w")]
    assert [*loaded["optimizer"]["state"]] == new
    assert loaded["optimizer"]["state"][new[0]]["step"] == 3
    assert loaded["optimizer"]["param_groups"] == [{"params": new, "lr": 0.1}]
    assert report.notes == []


def saved(tmp_path, value):
    torch.save(value, tmp_path / "run.ckpt")
    return tmp_path / "run.ckpt"


def converted(tmp_path, value, *edits, **more):
    path = saved(tmp_path, value)
    more = {"section": "all", "overwrite": True, "verify": True, **more}
    report = tk.convert(path, tmp_path / "a.pth", edits=edits, **more)
    return report, torch.load(tmp_path / "a.pth", weights_only=True)


def same(one, two):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        keys = [*map(repr, one)] == [*map(repr, two)]
        return type(one) is type(two) and keys and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        pairs = zip(one, two, strict=True)
        return type(one) is type(two) and all(same(a, b) for a, b in pairs)
    return repr(one) == repr(two) and type(one) is type(two)


ATOMS = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    *(st.binary(max_size=5), st.complex_numbers(), st.integers(-(1 << 2000), 1 << 2000)),
    st.builds(lambda n: torch.arange(n), st.integers(0, 3)),
)
KEYS = st.one_of(st.integers(), st.text(max_size=3).filter(lambda text: "." not in text))
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3).map(collections.OrderedDict),
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), VALUES, max_size=3))
def test_plain_values_come_back_as_they_were(tmp_path_factory, value):
    folder = tmp_path_factory.getbasetemp()
    value = {"zz": {"w": torch.ones(2)}, **value}
    try:
        report, loaded = converted(folder, deepcopy(value))
    except NameCollision:
        return  # the keys 1 and "1" in one dict
    assert same(value, loaded)
    assert report.left_out == []


def test_what_is_no_plain_value_is_left_out_and_named(tmp_path):
    value = {
        "model": {"w": torch.ones(2)},
        "args": argparse.Namespace(lr=0.1, since=datetime.date(2020, 1, 1)),
        "seen": {1, 2},
        "pairs": {(1, 2): "a"},
        "log": [1, datetime.date(2020, 1, 2), 3],
        "huge": 1 << 4000,
    }
    report, loaded = converted(tmp_path, value)
    kept = {"args": {"lr": 0.1}, "seen": {1, 2}, "pairs": {"(1, 2)": "a"}, "log": {0: 1, 2: 3}}
    assert same(loaded, {"model": value["model"], **kept})
    assert report.left_out == [
        ("args.since", "no plain value: 2020-01-01"),
        ("log.1", "no plain value: 2020-01-02"),
        ("huge", "an integer of over 254 bytes"),
    ]
    assert [note.partition(": ")[2] for note in report.notes] == [
        "pairs",
        "args (argparse.Namespace)",
        "log",
    ]


RUN = {
    "model": {"a.w": torch.ones(2), "b.w": torch.zeros(2)},
    "optimizer": {
        "state": {0: {"m": torch.ones(2)}, 1: {"m": torch.zeros(2)}},
        "param_groups": [{"params": [0, 1], "lr": 0.1}],
    },
    "epoch": 3,
}


def test_a_section_is_renamed_with_all_that_is_in_it(tmp_path):
    _, loaded = converted(tmp_path, RUN, Rename("^model", "net"), Rename("^optimizer", "opt"))
    assert same(loaded, {"net": RUN["model"], "opt": RUN["optimizer"], "epoch": 3})


def test_sections_below_a_new_one_or_in_none(tmp_path):
    _, loaded = converted(tmp_path, RUN, AddPrefix("run"))
    assert same(loaded["run"], {"model": RUN["model"], "optimizer": RUN["optimizer"]})
    _, loaded = converted(tmp_path, RUN, Strip("model"))
    assert [*loaded] == ["a.w", "b.w", "optimizer", "epoch"]
    assert same(loaded["optimizer"], RUN["optimizer"])


@pytest.mark.parametrize(
    "how", [{"skip": ["optimizer.*"]}, {"drop": ["^optimizer"]}, {"only": ["model.*", "epoch"]}]
)
def test_a_section_without_its_tensors_is_left_out_whole(tmp_path, how):
    report, loaded = converted(tmp_path, RUN, **how)
    assert same(loaded, {"model": RUN["model"], "epoch": 3})
    assert "optimizer" in dict(report.left_out)
    assert "epoch" not in dict(report.left_out)


@pytest.mark.parametrize(
    "how",
    [
        {"skip": ["model.a.*"]},
        {"only": ["optimizer.*", "model.b.*"]},
        {"edits": [Drop("model.a")]},
        {"edits": [Keep(("optimizer", "model.b"))]},
        {"skip": ["optimizer.state.0.*"]},
    ],
)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_parameters_left_out_while_their_state_stays_are_refused(tmp_path, how, ending):
    path = saved(tmp_path, RUN)
    with pytest.raises(SelectionError, match="that the optimizer's state still belongs to"):
        tk.convert(path, tmp_path / f"a.{ending}", section="all", **how)


def test_state_alone_is_taken_for_nobody_else_s(tmp_path):
    _, loaded = converted(tmp_path, RUN, only=["optimizer.*"])
    assert same(loaded, {"optimizer": RUN["optimizer"]})


def test_whole_modules_are_state_dicts(tmp_path):
    model = Net()
    report, loaded = converted(tmp_path, {"model": model, "epoch": 1}, Rename("head", "top"))
    assert [*loaded["model"]] == [*Net(head="top").state_dict()]
    Net(head="top").load_state_dict(loaded["model"])
    assert loaded["epoch"] == 1
    assert report.tensors == len(loaded["model"])


def test_versions_follow_their_modules(tmp_path):
    value = {"model": Net().state_dict(), "epoch": 1}
    _, loaded = converted(tmp_path, value, Rename("^model.body", "net.trunk"))
    assert set(loaded) == {"net", "model", "epoch"}
    _, loaded = converted(tmp_path, value, Rename("body", "trunk"))
    assert loaded["model"]._metadata["trunk.1"] == {"version": 2}
    assert loaded["model"]._metadata[""] == {"version": 1}
    _, loaded = converted(tmp_path, value, Rename("^model", "net"))
    assert loaded["net"]._metadata == value["model"]._metadata


def test_ties_stay_across_sections(tmp_path):
    one = torch.ones(3)
    _, loaded = converted(tmp_path, {"model": {"w": one}, "ema": [one], "n": 1})
    assert loaded["model"]["w"].data_ptr() == loaded["ema"][0].data_ptr()


def test_a_text_that_is_shared_is_written_once(tmp_path):
    text = "x" * 100_000
    report, loaded = converted(tmp_path, {"w": torch.ones(1), "many": [text] * 1000})
    assert loaded["many"][-1] == text
    assert (tmp_path / "a.pth").stat().st_size < 120_000 + report.nbytes


@pytest.mark.parametrize(
    ("path", "name", "new"),
    [
        (("model", "a.w"), "model.b.w", ("model", "b.w")),
        (("optimizer", "state", 0, "m"), "opt.state.0.m", ("opt", "state", 0, "m")),
        (("o", "state", "a.w", "m"), "o.state.b.c.w.m", ("o", "state", "b.c.w", "m")),
        (("model", "a.w"), "a.w", ("a.w",)),
        (("model", "a.w"), "x.y.model.a.w", ("x.y", "model", "a.w")),
        (("a", "a", "w"), "a.w", ("a", "w")),
        (("w",), "v", ("v",)),
        (("model", "a.w"), "net.b.w", ("net", "b.w")),
        (("layers", 0, "w"), "layers.1.w", ("layers", "1", "w")),
    ],
)
def test_where_what_was_renamed_stands(path, name, new):
    assert moved(path, name)[0] == new
