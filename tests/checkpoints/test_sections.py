"""Which part of a file are the weights: the rules of the contract, one by one."""

from __future__ import annotations

import pytest
import torch

import tensorkeep as tk
from tensorkeep.errors import (
    AmbiguousSection,
    NothingSelected,
    UnknownSection,
    Unsupported,
)

W = {"a.w": torch.ones(2), "a.b": torch.zeros(3)}
OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


@pytest.fixture
def saved(tmp_path):
    def saved(value):
        torch.save(value, tmp_path / "in.pth")
        return tmp_path / "in.pth"

    return saved


@pytest.fixture
def converted(saved, tmp_path):
    def converted(value, **options):
        report = tk.convert(saved(value), tmp_path / "out.pth", overwrite=True, **options)
        return report, torch.load(tmp_path / "out.pth", weights_only=True)

    return converted


FLAT = {
    "a module's state dict": W,
    "plain names": {"w": torch.ones(2), "b": torch.ones(3)},
    "names of parts": {"model": torch.ones(1), "optimizer": torch.ones(1)},
    "a number beside": {"a.w": torch.ones(2), "epoch": 3},
    "a dict beside": {"a.w": torch.ones(2), "extra": {"x": torch.ones(1)}},
    "one tensor": {"w": torch.ones(1)},
}


@pytest.mark.parametrize("case", FLAT)
def test_flat_files(converted, case):
    report, loaded = converted(FLAT[case])
    assert report.section == ""
    assert set(FLAT[case]) - {"epoch", "extra"} <= set(loaded)
    assert ("epoch" in dict(report.left_out)) == ("epoch" in FLAT[case])


# name of the case: (file, section expected)
CHOSEN = {
    "the only candidate": ({"net": W, "epoch": 1}, "net"),
    "any name at all": ({"my weights": W, "lr": 0.1}, "my weights"),
    "an optimizer is none": ({"net": W, "opt": OPTIMIZER}, "net"),
    "an optimizer by name": ({"net": W, "optim_g": {"m": {"x": torch.ones(1)}}}, "net"),
    "a list of optimizers": ({"net": W, "optimizer_states": [OPTIMIZER]}, "net"),
    "a scheduler is none": ({"net": W, "lr_scheduler": {"base": {"x": torch.ones(1)}}}, "net"),
    "a loose tensor is none": ({"net": W, "best_score": torch.tensor(1.0)}, "net"),
    "rng states are none": ({"net": W, "rng_state": [torch.ones(3)], "epoch": 2}, "net"),
    "a scaler is none": ({"net": W, "scaler": {"scale": {"x": torch.ones(1)}}}, "net"),
    "a config is none": ({"net": W, "config": {"anchors": torch.ones(1)}}, "net"),
    "state_dict first": ({"net": W, "params": W, "model": W, "state_dict": W}, "state_dict"),
    "then model_state_dict": ({"net": W, "model": W, "model_state_dict": W}, "model_state_dict"),
    "then model": ({"params": W, "x": W, "model": W}, "model"),
    "then params": ({"x": W, "params": W}, "params"),
    "never the average": ({"model": W, "ema": W}, "model"),
    "never the average by another name": ({"params_ema": W, "params": W}, "params"),
    "nor shadow": ({"net": W, "shadow": W}, "net"),
    "nor model_ema": ({"model_ema": W, "generator": W}, "generator"),
    "nor swa": ({"swa_model": W, "net": W}, "net"),
    "the only average": ({"ema": W, "epoch": 1}, "ema"),
    "not for its letters": ({"schema_net": W, "epoch": 1}, "schema_net"),
    "Cinema is no average": ({"cinema": W, "epoch": 1}, "cinema"),
}


@pytest.mark.parametrize("case", CHOSEN)
def test_the_weights_are(converted, case):
    value, expected = CHOSEN[case]
    report, loaded = converted(value)
    assert report.section == expected
    assert list(loaded) == list(W)
    assert any(repr(expected) in note for note in report.notes)
    left = dict(report.left_out)
    assert set(value) - {expected} <= set(left)
    assert tk.inspect(report.source).weights == expected


def test_averaged_weights_are_never_taken_silently(converted):
    assert any(
        "not used" in note and "'ema'" in note for note in converted({"m": W, "ema": W})[0].notes
    )
    assert any("EMA" in note for note in converted({"ema": W, "step": 1})[0].notes)


# name of the case: (file, names that the message must give)
UNCLEAR = {
    "a GAN": ({"generator": W, "discriminator": W}, ["generator", "discriminator"]),
    "a GAN and its training": ({"G": W, "D": W, "opt": OPTIMIZER, "epoch": 1}, ["G", "D"]),
    "two averages": ({"ema_a": W, "ema_b": W, "epoch": 1}, ["ema_a", "ema_b"]),
    "three parts": ({"enc": W, "dec": W, "vae": W}, ["enc", "dec", "vae"]),
    "an optimizer alone": ({"optimizer": OPTIMIZER, "epoch": 3}, ["optimizer"]),
    "the state dict of an optimizer": (OPTIMIZER, ["state"]),
    "a loose tensor beside": ({"optimizer": OPTIMIZER, "w": torch.ones(1)}, ["optimizer", "w"]),
}  # fmt: skip


@pytest.mark.parametrize("case", UNCLEAR)
def test_what_cannot_be_decided_is_asked(saved, tmp_path, case):
    value, names = UNCLEAR[case]
    path = saved(value)
    with pytest.raises(AmbiguousSection, match="--section") as caught:
        tk.convert(path, tmp_path / "out.pth")
    assert all(repr(name) in caught.value.got for name in names)
    report = tk.inspect(path)
    assert report.weights is None
    assert any("--section" in note for note in report.notes)
    for name in names:
        tk.convert(path, tmp_path / f"{name}.pth", section=name)


@pytest.mark.parametrize("value", [{"epoch": 3}, {}, [], 5, "text", {"a": {"b": [1]}}], ids=repr)
def test_files_without_tensors(saved, tmp_path, value):
    path = saved(value)
    report = tk.inspect(path)
    assert (report.kind, report.tensors, report.weights) == ("values", [], None)
    with pytest.raises(NothingSelected):
        tk.convert(path, tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


def test_a_section_by_name(converted):
    value = {"net": W, "ema": {"x": torch.ones(5)}, "opt": OPTIMIZER, "epoch": 3}
    assert list(converted(value, section="ema")[1]) == ["x"]
    assert list(converted(value, section="opt")[1]) == ["state.0.exp_avg"]
    report, loaded = converted(value, section="all")
    assert list(loaded) == ["net", "ema", "opt", "epoch"]
    assert [row["name"] for row in report.outputs] == [
        *("net.a.w", "net.a.b", "ema.x", "opt.state.0.exp_avg"),
    ]
    assert report.left_out == []


def test_an_unknown_section_names_those_there_are(saved, tmp_path):
    with pytest.raises(UnknownSection) as caught:
        tk.convert(saved({"net": W, "opt": OPTIMIZER}), tmp_path / "out.pth", section="model")
    assert caught.value.expected == "one of 'net', 'opt', 'all'"
    assert "'model'" in caught.value.got
    with pytest.raises(UnknownSection):
        tk.convert(saved(W), tmp_path / "out.pth", section="a")


def test_globs_hold_inside_the_section(converted):
    value = {
        "net": {"enc.w": torch.ones(1), "dec.w": torch.ones(2), "dec.b": torch.ones(3)},
        "e": 1,
    }
    assert list(converted(value, only=["dec.*"])[1]) == ["dec.w", "dec.b"]
    assert list(converted(value, skip=["*.b"])[1]) == ["enc.w", "dec.w"]
    report, loaded = converted(value, only=["dec.*", "nothing*"], skip=["*.b"])
    assert list(loaded) == ["dec.w"]
    assert any("'nothing*'" in note for note in report.notes)
    left = dict(report.left_out)
    assert left["enc.w"] == "not in --only" and left["dec.b"] == "in --skip"


def test_globs_that_leave_nothing(saved, tmp_path):
    with pytest.raises(NothingSelected, match="inspect --tensors"):
        tk.convert(saved(W), tmp_path / "out.pth", only=["z*"])


def test_sections_count_ties_once(saved):
    shared = torch.ones(10)
    report = tk.inspect(
        saved({"net": {"a": shared, "b": shared, "c": shared[:5]}, "opt": OPTIMIZER})
    )
    net, opt = report.sections
    assert (net.name, net.tensors, net.parameters, net.nbytes) == ("net", 3, 15, 60)
    assert (opt.name, opt.tensors, opt.parameters, opt.nbytes) == ("opt", 1, 2, 8)
    assert report.tied == {"net.a": ["net.b"]}


def test_dead_bytes(saved):
    whole = torch.arange(100.0)
    report = tk.inspect(saved({"a.w": whole[10:20], "a.v": whole[15:30], "a.x": torch.ones(3)}))
    assert report.dead_bytes == 80 * 4
    assert tk.inspect(saved({"a.w": whole.reshape(10, 10).t()})).dead_bytes == 0


def test_a_tie_across_sections_is_shown_and_cut_well(converted, saved):
    shared = torch.ones(10)
    value = {"ema": {"w": shared}, "model": {"w": shared}}
    tensors = {t.name: t.tied_to for t in tk.inspect(saved(value)).tensors}
    assert tensors == {"ema.w": None, "model.w": "ema.w"}
    report, loaded = converted(value)
    assert report.tied == {} and torch.equal(loaded["w"], shared)


class Opaque:
    """Holds tensors where only its own code would find them."""

    def __init__(self):
        self.inner = {"weight": torch.ones(3)}


def test_unread_objects_are_not_passed_over(saved, tmp_path):
    """An object among state dicts counts as a candidate, and is said to be unreadable."""
    path = saved({"model": Opaque(), "opt": OPTIMIZER})
    with pytest.raises(Unsupported, match=r"state_dict\(\)"):
        tk.convert(path, tmp_path / "out.pth")
    path = saved({"model": Opaque(), "extra": W})
    with pytest.raises((Unsupported, AmbiguousSection)):
        tk.convert(path, tmp_path / "out.pth")


def test_whole_models_are_sections_like_others(saved, tmp_path):
    model, ema = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    path = saved({"model": None, "ema": ema, "opt": OPTIMIZER, "epoch": 1})
    report = tk.convert(path, tmp_path / "a.pth")
    assert report.section == "ema"
    path = saved({"model": model, "ema": ema, "opt": OPTIMIZER, "epoch": 1})
    assert tk.inspect(path).kind == "training_checkpoint"
    report = tk.convert(path, tmp_path / "b.pth")
    assert report.section == "model"
    assert any("ema" in note for note in report.notes)
    assert sum("whole model" in note for note in report.notes) == 1
    tk.convert(path, tmp_path / "c.pth", section="ema")
    for name, module in {"a": ema, "b": model, "c": ema}.items():
        twin = torch.nn.Linear(2, 2)
        twin.load_state_dict(torch.load(tmp_path / f"{name}.pth"))
        assert torch.equal(twin.weight, module.weight)
