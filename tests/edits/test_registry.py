"""Every op of the table, three ways: an object, a line and a recipe give the same file."""

from __future__ import annotations

import ast
import json
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

import tensorkeep as tk
from tensorkeep import edits, errors
from tensorkeep.cli.main import main
from tensorkeep.edits.attention import Fuse, Split
from tensorkeep.edits.dequantized import Dequantize
from tensorkeep.edits.lines import to_line
from tensorkeep.edits.lora import MergeLora
from tensorkeep.edits.merging import Average, Ema
from tensorkeep.edits.names import AddPrefix, Drop, Keep, Rename, Strip, Swap
from tensorkeep.edits.recipe import write_recipe
from tensorkeep.edits.registry import OPS
from tensorkeep.edits.resizing import InflateConv, Resize, ResizePositions
from tensorkeep.edits.shaping import (
    CastTo,
    Pad,
    Reshape,
    Scale,
    Slice,
    Tie,
    Transpose,
    Untie,
)
from tensorkeep.edits.weight_norm import FoldWeightNorm, UnfoldWeightNorm

# The edit, and the options that say the same, where there are any but --edit.
EVERY = [
    (Rename("h.{n}", "layers.{n+1}"), ["--rename", "h.{n}=layers.{n+1}"]),
    (Swap("h", "emb"), []),
    (Strip("module."), ["--strip", "module."]),
    (AddPrefix("net"), ["--add-prefix", "net"]),
    (Drop("emb"), ["--drop", "emb"]),
    (Keep(("h.0", "module.emb")), []),
    (Slice("h.0.w", 1, 1, -1), []),
    (Pad("h.0.w", 1, before=1, after=2, value=-0.5), []),
    (Transpose("h.0.w"), []),
    (Reshape("h.0.w", (2, -1)), []),
    (CastTo("h", "float16"), []),
    (Scale("h", 0.3), []),
    (Tie("again", "module.emb"), []),
    (Untie("emb"), []),
    (Resize("emb", 9, fill="mean"), []),
    (ResizePositions("pos", (4, 4)), []),
    (InflateConv("conv", 5), []),
    (Fuse(("h.0", "h.1"), "both"), []),
    (Split("h.0.w", ("one", "two")), []),
    (FoldWeightNorm(), ["--fold-weight-norm"]),
    (UnfoldWeightNorm("h.0.w"), []),
    (MergeLora("adapter"), ["--merge-lora", "adapter"]),
    (Average(("other.pth", "third.pth")), ["--average", "other.pth", "--average", "third.pth"]),
    (Ema(("other.pth",), 0.9), []),
    (Dequantize(), ["--dequantize"]),
]


def test_the_list_has_every_op():
    assert {edit.op for edit, _ in EVERY} == OPS.keys()


def state(seed):
    torch.manual_seed(seed)
    return {
        "module.h.0.w": torch.randn(6, 4),
        "module.h.1.w": torch.randn(6, 4),
        "module.emb": torch.randn(7, 3),
        "module.pos": torch.randn(1, 10, 3),
        "module.conv": torch.randn(2, 3, 3, 3),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints by the op that wants another than `model.pth`, and what ops take from."""
    made = tmp_path_factory.mktemp("ways")
    for name, seed in (("model", 0), ("other", 1), ("third", 2)):
        torch.save(state(seed), made / f"{name}.pth")
    base = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    torch.save(base.state_dict(), made / "merge-lora.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = get_peft_model(base, LoraConfig(r=2, lora_alpha=8, target_modules=["0"]))
    nn.init.normal_(adapted.base_model.model[0].lora_B.default.weight)
    adapted.save_pretrained(made / "adapter")
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    torch.save(normed.state_dict(), made / "fold-weight-norm.pth")
    tk.quantize(made / "model.pth", made / "dequantize.pth", only=["*.w"], min_size=1)
    return made


def convert(folder, source, name, *options):
    with pytest.raises(SystemExit) as ended:
        main(["convert", source, name, *options, "--overwrite"])
    assert ended.value.code == 0
    return (folder / name).read_bytes()


@pytest.mark.parametrize(("edit", "options"), EVERY, ids=lambda value: getattr(value, "op", ""))
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_the_three_ways_agree(folder, monkeypatch, capsys, edit, options, ending):
    monkeypatch.chdir(folder)
    own = f"{edit.op}.pth"
    source = own if (folder / own).exists() else "model.pth"
    report = tk.convert(source, f"python.{ending}", edits=[edit], overwrite=True)
    assert report.effect, report.notes  # an edit that did nothing would prove nothing
    wanted = (folder / f"python.{ending}").read_bytes()
    write_recipe("r.toml", [edit], overwrite=True)
    assert convert(folder, source, f"recipe.{ending}", "--recipe", "r.toml") == wanted
    assert convert(folder, source, f"line.{ending}", "--edit", to_line(edit)) == wanted
    tk.convert(source, f"text.{ending}", edits=[to_line(edit)], overwrite=True)
    assert (folder / f"text.{ending}").read_bytes() == wanted
    if options:
        assert convert(folder, source, f"option.{ending}", *options) == wanted
        named = {"overwrite": True, **arguments(options)}
        tk.convert(source, f"argument.{ending}", **named)
        assert (folder / f"argument.{ending}").read_bytes() == wanted


def arguments(options):
    """The options as `convert` of Python takes them."""
    name = options[0].removeprefix("--").replace("-", "_")
    return {name: options[1::2] if len(options) > 1 else True}


def test_options_apply_in_the_order_in_which_they_stand(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    given = [
        *("--edit", "scale pattern=h factor=2", "--strip", "module", "--average", "other.pth"),
        *("--edit", "rename pattern=h to=g", "--drop", "emb", "--average", "third.pth"),
    ]
    with pytest.raises(SystemExit):
        main(["convert", "model.pth", "a.pth", "--dry-run", "--format", "json", *given])
    # The others have `module.` still.
    assert "expected the 5 names of model.pth" in capsys.readouterr().err
    given[2:4] = []
    with pytest.raises(SystemExit):
        main(["convert", "model.pth", "a.pth", "--dry-run", "--format", "json", *given])
    told = json.loads(capsys.readouterr().out)["edits"]
    assert [edit["op"] for edit in told] == ["scale", "average", "rename", "drop"]
    assert told[1]["others"] == ["other.pth", "third.pth"]


def test_a_mistake_on_the_command_line_is_a_sentence(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        main(["convert", "model.pth", "a.pth", "--edit", "resize patern=emb size=9"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "tensorkeep: the edit 'resize patern=emb size=9': resize, field 'patern': expected the "
        "fields pattern, size, dim, fill, got 'patern'. Did you mean 'pattern'?\n"
    )


def test_every_error_of_the_room_says_what_to_do():
    """Read off the source: an error that nobody provoked here has a remedy, too."""
    known = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    without = []
    for path in sorted(Path(edits.__path__[0]).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            given = {keyword.arg for keyword in node.keywords}
            if node.func.id in known and given and "remedy" not in given:
                without.append(f"{path.name}:{node.lineno}")
    assert without == []
