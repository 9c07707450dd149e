"""What is said: sentences, JSON, a recipe; and the ways in which AGAINST is given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import tensorkeep as tk
from tensorkeep.edits.recipe import read_recipe, write_recipe
from tensorkeep.errors import BadArgument, Damaged, NothingSelected
from tensorkeep.matching.finding import Mismatch
from tensorkeep.matching.telling import because, remedy

MODELS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
        self.LayerNorm = nn.LayerNorm(8)
        self.head = nn.Linear(8, classes)
        self.register_buffer("ramp", torch.zeros(3), persistent=False)

def values(): return nn.Linear(*[int(v.item()) for v in torch.tensor([8, 8])])
def raises(): raise OSError("no such weights")
def needs(classes, depth): return Net(classes)
def on_gpu(): return Net().to("cuda")
def no_driver():
    raise RuntimeError("Found no NVIDIA driver on your system. Please check that you have one.")
class Silent(nn.Linear):
    def __init__(self): super().__init__(2, 2)
    def state_dict(self, **_): raise RuntimeError("no process group\\nmore")
def number(): return 3
def lazy(): return nn.LazyLinear(3)
def empty(): return nn.ReLU()
ready = Net()
"""


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A folder with a module of factories and a wrapped checkpoint; it is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "zoo", raising=False)  # another test's
    (tmp_path / "zoo.py").write_text(MODELS)
    names = {}
    exec(MODELS, names)
    state = names["Net"]().state_dict()
    wrapped = {}
    for name, tensor in state.items():
        for old, new in (("LayerNorm.weight", "LayerNorm.gamma"), ("Norm.bias", "Norm.beta")):
            name = name.replace(old, new)
        wrapped[f"_orig_mod.module.{name}"] = tensor
    torch.save({"state_dict": wrapped, "epoch": 3, "none": {}}, "wrapped.pth")
    torch.save(state, "plain.pth")
    yield names["Net"]
    sys.modules.pop("zoo", None)


def test_the_sentence(zoo):
    report = tk.match("wrapped.pth", zoo(3))
    assert str(report) == (
        "6 of 8 tensors fit after: strip `_orig_mod.module.`; rename `*.beta` to `*.bias`; "
        "rename `*.gamma` to `*.weight`.\n2 stay at their initial value: `head.weight`, "
        "`head.bias` (10 classes in the file, 3 in the model)."
    )
    assert not report.fits and report.section == "state_dict"


def test_json_has_what_the_contract_says(zoo):
    told = json.loads(json.dumps(tk.match("wrapped.pth", zoo(3)).to_dict()))
    assert told["schema"] == 1 and told["fits"] is False
    assert told["missing"] == [] and told["unexpected"] == [] and told["by_shape_only"] == []
    assert [(m["name"], m["file"], m["model"]) for m in told["mismatched"]] == [
        ("head.weight", [10, 8], [3, 8]),
        ("head.bias", [10], [3]),
    ]
    assert 0 < told["coverage"]["bytes"] < 1 and told["coverage"]["tensors"] == 0.75
    assert told["rules"][0] == {"op": "strip", "prefix": "_orig_mod.module."}


@pytest.mark.parametrize("against", ["zoo:Net", "zoo:ready", "plain.pth", "inventory.json"])
def test_ways_to_say_against_what(zoo, against):
    if against == "inventory.json":
        Path(against).write_text(json.dumps(tk.inspect("plain.pth").to_dict()))
    assert tk.match("wrapped.pth", against).fits


def test_an_inventory_of_a_training_checkpoint(zoo):
    Path("inventory.json").write_text(json.dumps(tk.inspect("wrapped.pth").to_dict()))
    report = tk.match("plain.pth", "inventory.json")
    assert report.fits and len(report.match.rules) == 3


@pytest.mark.parametrize(
    "text", ['{"schema": 1}', '{"schema": 1, "tensors": 3}', '{"schema": 1, "tensors": [{}]}',
             '{"schema": 1, ', '{"schema": 1, "tensors": [{"name": "a", "section": "", '
             '"dtype": "float32", "shape": [-1]}]}'],
)  # fmt: skip
def test_a_damaged_inventory(zoo, text):
    Path("inventory.json").write_text(text)
    with pytest.raises(Damaged, match="inspect --format json"):
        tk.match("plain.pth", "inventory.json")


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("zoo:raises", "got OSError: no such weights"),
        ("zoo:needs", "--model-args"),
        ("zoo:on_gpu", "no device is needed"),
        ("zoo:no_driver", "NVIDIA driver on your system. Let it build on the default device"),
        ("zoo:Silent", "expected a module that gives its state_dict, got RuntimeError: no process"),
        ("../zoo:Net", "expected an existing path, a URL, or package.module:factory"),
        ("C:\\zoo.pth", "expected an existing path, a URL, or package.module:factory"),
        ("zoo:number", "expected a torch.nn.Module, got int"),
        ("zoo:lazy", "lazy parameter"),
        ("zoo:nothing", "has no attribute 'nothing'"),
        ("zoo:torch.pi", "expected a function or class"),
        ("nowhere:build", "No module named 'nowhere'"),
        ("nowhere.pth", "expected an existing path, a URL, or package.module:factory"),
        (":build", "package.module:factory"),
    ],
)
def test_factories_that_give_no_module(zoo, factory, said):
    with pytest.raises(BadArgument) as caught:
        tk.match("wrapped.pth", factory)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_class_is_no_module(zoo):
    with pytest.raises(BadArgument, match="a type: expected a path"):
        tk.match("wrapped.pth", zoo)


def test_a_factory_that_looks_at_values_is_built(zoo):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    torch.save({"weight": torch.zeros(8, 8), "bias": torch.zeros(8)}, "linear.pth")
    report = tk.match("linear.pth", "zoo:values")
    assert report.fits and "cannot be built on the meta device" in report.notes[0]
    assert torch.equal(before, torch.get_rng_state())


def test_arguments_of_a_factory(zoo):
    assert tk.match("wrapped.pth", "zoo:needs", model_args=[10, 3]).fits
    assert tk.match("wrapped.pth", "zoo:needs", model_args={"classes": 10, "depth": 3}).fits
    with pytest.raises(BadArgument, match="an object or a list"):
        tk.match("wrapped.pth", "zoo:needs", model_args=3)
    with pytest.raises(BadArgument, match="a factory to give them to"):
        tk.match("wrapped.pth", "plain.pth", model_args=[3])


def test_a_factory_that_prints_or_exits(zoo):
    Path("loud.py").write_text(
        "import sys\nfrom torch import nn\n"
        "def prints():\n    print('loading')\n    return nn.Linear(2, 2)\n"
        "def exits():\n    sys.exit(3)\n"
    )
    torch.save(nn.Linear(2, 2).state_dict(), "linear.pth")
    call = [sys.executable, "-m", "tensorkeep", "match", "--format", "json", "linear.pth"]
    told = subprocess.run([*call, "loud:prints"], capture_output=True, text=True, check=True)
    assert json.loads(told.stdout)["fits"] and "loading" in told.stderr
    told = subprocess.run([*call, "loud:exits"], capture_output=True, text=True, check=False)
    assert told.returncode == 2 and "got SystemExit: 3" in told.stderr


def test_the_recipe_ties_what_the_model_ties(zoo):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.head.weight = self.embed.weight

    for kept in ("embed.weight", "head.weight"):
        torch.save({f"module.{kept}": torch.randn(5, 3)}, "one.pth")
        report = tk.match("one.pth", Tied())
        assert report.fits and set(report.match.tied.values()) == {kept}
        write_recipe("tied.toml", report.recipe, overwrite=True)
        tk.convert("one.pth", "both.pth", recipe="tied.toml", overwrite=True)
        Tied().load_state_dict(torch.load("both.pth"), strict=True)


def test_nothing_is_never_a_success(zoo):
    with pytest.raises(NothingSelected, match="expected parameters or buffers"):
        tk.match("wrapped.pth", "zoo:empty")
    torch.save({"state_dict": {}, "optimizer": {"state": {}, "param_groups": []}}, "empty.pth")
    with pytest.raises(tk.TensorkeepError, match="expected tensors, got none"):
        tk.match("empty.pth", "plain.pth")


def test_buffers_that_the_model_makes_are_left_out(zoo):
    state = zoo().state_dict() | {"ramp": torch.zeros(3)}
    torch.save(state, "old.pth")
    report = tk.match("old.pth", zoo())
    assert report.fits and "leave out `ramp`" in str(report)


def test_tied_tensors_are_filled_once(zoo):
    model = nn.ModuleDict({"embed": nn.Embedding(5, 4), "head": nn.Linear(4, 5, bias=False)})
    model["head"].weight = model["embed"].weight
    torch.save({"embed.weight": torch.zeros(5, 4)}, "tied.pth")
    report = tk.match("tied.pth", model)
    assert report.fits and report.match.tied == {"head.weight": "embed.weight"}
    assert report.coverage == {"tensors": 1.0, "bytes": 1.0}


def test_names_that_are_near(zoo):
    state = zoo().state_dict()
    state["LayerNorm2.weight_"] = state.pop("LayerNorm.weight")
    torch.save(state, "near.pth")
    report = tk.match("near.pth", zoo())
    assert "`LayerNorm.weight` is not in the file; near it: `LayerNorm2.weight_`" in str(report)


@pytest.mark.parametrize(
    ("name", "file", "model", "why", "what"),
    [
        ("head.weight", (10, 8), (3, 8), "10 classes in the file, 3 in the model", ""),
        ("h.0.c_fc.weight", (4, 8), (8, 4), "transposed", "Conv1D"),
        ("embed.weight", (5, 8), (7, 8), "5 words in the file", "vocabulary"),
        ("pos_embed", (1, 197, 8), (1, 577, 8), "197 positions in", "position embedding"),
        ("stem.weight", (4, 3, 7, 7), (4, 1, 7, 7), "3 input channels", "first convolution"),
        ("a.weight", (2, 3, 4), (4, 2, 3), "dimensions in another order", ""),
        ("a.weight", (2, 6), (3, 4), "as many elements in another shape", ""),
        ("a.weight", (2, 6), (3, 5), "[2, 6] in the file, [3, 5] in the model", ""),
        ("a.weight", (2, 6), (2, 5), "6 along dimension 1 in the file, 5", ""),
    ],
)
def test_why_shapes_differ(name, file, model, why, what):
    one = Mismatch(name, name, file, model)
    assert why in because(one)
    assert what in remedy(one) and bool(what) == bool(remedy(one))


def command(*words):
    """The command's exit code, stdout and stderr."""
    run = [sys.executable, "-m", "tensorkeep", "match", *words]
    done = subprocess.run(run, capture_output=True, text=True, env=os.environ, check=False)
    return done.returncode, done.stdout, done.stderr


def test_exit_codes_and_the_recipe(zoo):
    code, out, err = command("wrapped.pth", "zoo:Net", "--write-recipe", "rules.toml")
    assert code == 0 and out.startswith("fits"), err
    recipe = read_recipe("rules.toml")
    assert recipe.section == "state_dict" and len(recipe.edits) == 3
    code, out, _ = command("wrapped.pth", "zoo:Net", "--model-args", '{"classes": 3}')
    assert code == 1 and out.startswith("differs")
    code, out, err = command("wrapped.pth", "zoo:Net", "--model-args", "{")
    assert code == 2 and not out and "expected JSON" in err and "Traceback" not in err
    assert command("wrapped.pth", "plain.pth", "--format", "json")[0] == 0


def test_two_checkpoints_need_no_torch(zoo):
    code = (
        "import sys, tensorkeep as tk\n"
        "assert tk.match('wrapped.pth', 'plain.pth').fits\n"
        "assert not {'torch', 'numpy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
