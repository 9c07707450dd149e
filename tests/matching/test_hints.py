"""What is hinted at mends: each hint is applied, as a recipe, and the result matched again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

import tensorkeep as tk
from tensorkeep.edits.recipe import write_recipe
from tensorkeep.edits.registry import edit_of
from tensorkeep.matching.against import find_in
from tensorkeep.matching.hints import hints
from tensorkeep.matching.specs import Spec, Wanted

sys.path.insert(0, str(Path(__file__).resolve().parent))

from match_nets import NET, Net, specs, under  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def norm(how):
    return nn.Sequential(how(nn.Conv1d(4, 6, 3)), nn.ReLU(), how(nn.Conv1d(6, 4, 3)))


def plain(module):
    return module


def shaped(**shapes):
    """Random tensors; __ in a name is a dot."""
    return {name.replace("__", "."): torch.randn(*size) for name, size in shapes.items()}


def attention(*names, rows=(8, 8, 8), bias=True, front="blocks"):
    made = {}
    for at in range(2):
        for name, count in zip(names, rows, strict=True):
            made[f"{front}.{at}.attn.{name}.weight"] = torch.randn(count, 8)
            if bias:
                made[f"{front}.{at}.attn.{name}.bias"] = torch.randn(count)
    return made | {"norm.weight": torch.randn(8)}


QKV, FUSED = attention("q_proj", "k_proj", "v_proj"), attention("qkv", rows=(24,))
CONV1D = {n.replace("qkv", "c_attn"): t.T if t.dim() > 1 else t for n, t in FUSED.items()}
GROUPED = attention("q_proj", "k_proj", "v_proj", rows=(8, 4, 4), bias=False)
IN_PROJ = {n.replace("qkv.", "in_proj_"): t for n, t in FUSED.items()}
ELSEWHERE = attention("query", "key", "value", front="encoder.layer") | {
    f"encoder.layer.{at}.mlp.fc.weight": torch.randn(4, 8) for at in range(2)
}
DENSE = {f"h.{at}.{n}.weight": torch.randn(8, 32) for at in range(2) for n in ("up", "gate")}
SQUARE = {f"h.{at}.out.weight": torch.randn(8, 8) for at in range(2)}
TURNED = {name: tensor.T for name, tensor in DENSE.items()}
TF = shaped(stem__weight=(3, 3, 4, 16), dw__weight=(3, 5, 16, 1), line__weight=(7, 4, 16))
TORCH = shaped(stem__weight=(16, 4, 3, 3), dw__weight=(16, 1, 3, 5), line__weight=(16, 4, 7))

CASES = {
    "words added": (shaped(embed__weight=(20, 8)), shaped(embed__weight=(24, 8)), "resize"),
    "words cut": (shaped(lm_head__weight=(20, 8), lm_head__bias=(20,)),
                  shaped(lm_head__weight=(18, 8), lm_head__bias=(18,)), "resize"),
    "image": (shaped(pos_embed=(1, 17, 8)), shaped(pos_embed=(1, 37, 8)), "resize-positions"),
    "image, no class": (shaped(pos_embed=(1, 16, 8)), shaped(pos_embed=(1, 9, 8)),
                        "resize-positions"),
    "image, embedding": (shaped(visual__position_embedding__weight=(16, 8)),
                         shaped(visual__position_embedding__weight=(25, 8)), "resize-positions"),
    "windows": (shaped(a__relative_position_bias_table=(49, 2)),
                shaped(a__relative_position_bias_table=(169, 2)), "resize-positions"),
    "text longer": (shaped(wpe__weight=(16, 8)), shaped(wpe__weight=(36, 8)), "resize-positions"),
    "text shorter": (shaped(wpe__weight=(36, 8)), shaped(wpe__weight=(16, 8)), "resize"),
    "grey": (shaped(stem__weight=(8, 3, 7, 7)), shaped(stem__weight=(8, 1, 7, 7)), "inflate-conv"),
    "more channels": (shaped(conv1__weight=(8, 4, 3)), shaped(conv1__weight=(8, 9, 3)),
                      "inflate-conv"),
    "Conv1D": (DENSE, TURNED, "transpose"),
    "kernels": (TF, TORCH, "transpose"),
    "linear as convolution": (shaped(fc__weight=(8, 4)), shaped(fc__weight=(8, 4, 1, 1)),
                              "reshape"),
    "split": (FUSED, QKV, "split"),
    "fuse": (QKV, FUSED, "fuse"),
    "split in_proj": (IN_PROJ, QKV, "split"),
    "fuse in_proj": (QKV, IN_PROJ, "fuse"),
    "split Conv1D": (CONV1D, QKV, "transpose"),
    "fuse Conv1D": (QKV, CONV1D, "fuse"),
    "grouped": (attention("qkv", rows=(16,), bias=False), GROUPED, "split"),
    "grouped back": (GROUPED, attention("qkv", rows=(16,), bias=False), "fuse"),
    "gates": (attention("gate_up_proj", rows=(64,), bias=False),
              attention("gate_proj", "up_proj", rows=(32, 32), bias=False), "split"),
    "norm, old names": (norm(weight_norm).state_dict(), norm(plain).state_dict(),
                        "fold-weight-norm"),
    "norm, new names": (norm(parametrizations.weight_norm).state_dict(),
                        norm(plain).state_dict(), "fold-weight-norm"),
    "no norm, old names": (norm(plain).state_dict(), norm(weight_norm).state_dict(),
                           "unfold-weight-norm"),
    "no norm, new names": (norm(plain).state_dict(),
                           norm(parametrizations.weight_norm).state_dict(), "unfold-weight-norm"),
}  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "_orig_mod.module."])
@pytest.mark.parametrize("name", CASES)
def test_a_hint_mends(name, prefix, tmp_path):
    file, model, op = CASES[name]
    torch.save({"model": {prefix + n: t.contiguous() for n, t in file.items()}}, tmp_path / "a.pth")
    torch.save({n: t.contiguous() for n, t in model.items()}, tmp_path / "b.pth")
    report = tk.match(tmp_path / "a.pth", tmp_path / "b.pth")
    assert not report.fits and report.hints[0].edits[0].op == op, str(report)
    assert all(hint.lines[0] in str(report) for hint in report.hints)
    write_recipe(tmp_path / "mend.toml", report.mended)
    tk.convert(tmp_path / "a.pth", tmp_path / "c.pth", recipe=tmp_path / "mend.toml")
    again = tk.match(tmp_path / "c.pth", tmp_path / "b.pth")
    assert again.fits and not again.match.rules and not again.hints
    mends = {one for hint in report.hints for one in hint.mends}
    assert mends == set(again.match.names) - set(report.match.names)


def test_the_tables_of_json_are_the_edits(tmp_path):
    torch.save(FUSED, tmp_path / "a.pth")
    torch.save(QKV, tmp_path / "b.pth")
    report = tk.match(tmp_path / "a.pth", tmp_path / "b.pth")
    (told,) = json.loads(json.dumps(report.to_dict()))["hints"]
    assert [edit_of(table) for table in told["edits"]] == list(report.hints[0].edits)
    assert told["mends"] == list(report.hints[0].mends) and told["asks"] == []
    assert "shapes do not show its layout" in told["caution"]


def told(file, model):
    """The hints for tensors against tensors."""
    ours, theirs = specs(file), specs(model)
    return hints(find_in(ours, Wanted("the model", theirs)), ours, theirs)


def test_where_other_layers_have_the_same_part_the_whole_name_is_said():
    other = {f"text.{at}.attn.qkv.weight": torch.zeros(24, 8) for at in range(2)}
    (hint,) = told(FUSED | other, QKV | other)
    assert hint.lines[0].startswith("split pattern=^blocks.{n}.attn.qkv parts=")
    assert len(hint.mends) == 12


def test_parts_under_another_name_of_the_layer():
    file = {n.replace("blocks", "encoder.layer"): t for n, t in FUSED.items()}
    file |= {n: t for n, t in ELSEWHERE.items() if "mlp" in n}
    (hint,) = told(file, ELSEWHERE)
    assert len(hint.mends) == 12 and "query," in hint.lines[0]


def test_head_by_head_asks_for_the_heads():
    file = {n.replace("qkv", "query_key_value"): t for n, t in FUSED.items()}
    (hint,) = told(file, QKV)
    assert hint.asks == ("heads",) and "layout=per-head heads=HEADS" in hint.lines[0]
    assert "heads" not in hint.tables[0] and "shapes do not show its layout" in hint.caution


def test_square_weights_beside_transposed_ones_are_named():
    (hint,) = told(DENSE | SQUARE, TURNED | SQUARE)
    assert len(hint.edits) == 2 and "`h.{n}.out.weight`" in hint.caution
    (hint,) = told(DENSE, TURNED)
    assert hint.caution == ""


def test_adapters_beside_the_weights():
    peft = pytest.importorskip("peft")
    module = peft.get_peft_model(Net(), peft.LoraConfig(target_modules=["q", "fc1"], r=2))
    file, model = specs(module), specs(Net())
    for ours in (file, under("module.", file)):
        match = find_in(ours, Wanted("the model", model))
        (hint,) = hints(match, ours, model)
        assert hint.asks == ("alpha",) and hint.tables == [{"op": "merge-lora"}]
        assert hint.lines == ["merge-lora alpha=ALPHA"]


def test_an_adapter_alone(tmp_path):
    peft = pytest.importorskip("peft")
    module = peft.get_peft_model(Net(), peft.LoraConfig(target_modules=["q"], r=2))
    torch.save(peft.get_peft_model_state_dict(module), tmp_path / "adapter.pth")
    report = tk.match(tmp_path / "adapter.pth", Net())
    assert (
        report.coverage["tensors"] == 0
        and "give it to the edit merge-lora" in (report.match.notes[0])
    )


@pytest.mark.parametrize(
    ("file", "model"),
    [
        (shaped(head__weight=(10, 8)), shaped(head__weight=(3, 8))),  # other classes
        (shaped(fc__weight=(64, 32)), shaped(fc__weight=(32, 32))),  # another width
        (shaped(mid__weight=(8, 64, 3, 3)), shaped(mid__weight=(8, 32, 3, 3))),
        (shaped(a__weight=(2, 3, 4)), shaped(a__weight=(4, 2, 3))),
        (shaped(pos_embed=(1, 17, 8)), shaped(pos_embed=(1, 17, 16))),
        ({"pos_embed": torch.zeros(1, 17, 8, dtype=torch.int64)}, shaped(pos_embed=(1, 37, 8))),
        (attention("qkv", rows=(25,), bias=False), GROUPED),
        (attention("qkv", rows=(26,), bias=False),
         attention("q_proj", "k_proj", "v_proj", rows=(9, 9, 8), bias=False)),
        (attention("fc", rows=(24,), bias=False), attention("q_proj", "k_proj", "v_proj",
                                                            bias=False)),
    ],
)  # fmt: skip
def test_what_nothing_is_known_about_gets_no_hint(file, model):
    common = {"other.weight": torch.zeros(3, 3)}
    assert told(file | common, model | common) == []


def test_hints_cost_little():
    many = {f"h.{n}.q{k}.weight": Spec("float32", (4, 8)) for n in range(300) for k in range(60)}
    turned = {name: Spec("float32", (8, 4)) for name in many}
    import time

    match = find_in(many, Wanted("the model", turned))
    start = time.process_time()
    found = hints(match, many, turned)
    assert found and time.process_time() - start < 10


def test_the_command_writes_what_it_hints_at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(FUSED, "a.pth")
    torch.save(QKV, "b.pth")
    run = [sys.executable, "-m", "tensorkeep", "match", "a.pth", "b.pth"]
    done = subprocess.run([*run, "--write-recipe", "r.toml", "--mend"], capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 1 and "--edit 'split pattern=qkv" in done.stdout
    assert 'op = "split"' in Path("r.toml").read_text()
    done = subprocess.run([*run, "--mend"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--write-recipe FILE" in done.stderr


def test_nothing_is_hinted_where_all_fits():
    match = find_in(NET, Wanted("the model", NET))
    assert hints(match, NET, NET) == []


def test_layers_that_are_called_alike_may_be_of_another_kind():
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 8))
    file = model.state_dict()
    file["0.weight"] = file["0.weight"].T
    match = find_in(specs(file), Wanted("m", specs(model.state_dict())))
    (hint,) = hints(match, specs(file), specs(model.state_dict()))
    assert hint.lines == ["transpose pattern=^0.weight$"]
    assert hint.mends == ("0.weight",)
    assert hint.caution.endswith("look at `2.weight` too")
