"""`quantize`: what becomes int8, what does not and why, the report, bad input."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import tensorkeep as tk
from tensorkeep.errors import (
    AlreadyExists,
    BadArgument,
    NameCollision,
    NothingSelected,
    NotSafe,
    Unwritable,
)


@pytest.fixture
def state():
    torch.manual_seed(0)
    embedding = torch.randn(50, 100)
    return {
        "model.embed_tokens.weight": embedding,
        "model.layers.0.q_proj.weight": torch.randn(64, 100),
        "model.layers.0.q_proj.bias": torch.randn(64),
        "model.layers.0.down.weight": torch.randn(100, 64).half(),
        "model.layers.0.input_layernorm.weight": torch.randn(100),
        "model.layers.0.rms_norm.weight": torch.randn(70, 70),
        "model.layers.0.conv.weight": torch.randn(20, 30, 3, 3),
        "model.layers.0.router.weight": torch.randn(8, 100),
        "model.layers.0.experts.gate_up_proj": torch.randn(64, 100),
        "model.rotary.inv_freq": torch.arange(6000).reshape(60, 100),
        "lm_head.weight": embedding,
    }


@pytest.fixture
def source(tmp_path, state):
    torch.save(state, tmp_path / "model.pth")
    return tmp_path / "model.pth"


def dequantized(tensors):
    found = {}
    for name, tensor in tensors.items():
        scale = tensors.get(f"{name}_scale")
        if scale is not None:
            found[name] = tensor.float() * scale
        elif not name.endswith("_scale"):
            found[name] = tensor
    return found


def reasons(report):
    return {one.name: one.why for one in report.kept}


def test_what_becomes_int8(source, state, tmp_path):
    report = tk.quantize(source, tmp_path / "a.safetensors")
    made = load_file(tmp_path / "a.safetensors")
    names = ["model.layers.0.q_proj.weight", "model.layers.0.down.weight"]
    assert [weight.name for weight in report.quantized] == names
    for name in names:
        assert made[name].dtype is torch.int8
        assert made[f"{name}_scale"].dtype is torch.float32
        assert made[f"{name}_scale"].shape == (state[name].shape[0], 1)
        wide = state[name].float()
        scale = wide.abs().amax(1, keepdim=True) / 127
        assert torch.equal(made[f"{name}_scale"], scale)
        assert torch.equal(made[name], torch.round(wide / scale).to(torch.int8))
    kept = {name for name in state if name not in names}
    assert {name for name in made if made[name].dtype is not torch.int8} >= kept - {
        "model.embed_tokens.weight"
    }
    assert torch.equal(made["model.layers.0.conv.weight"], state["model.layers.0.conv.weight"])
    assert reasons(report) == {
        "model.embed_tokens.weight": "embedding (--embeddings)",
        "model.layers.0.q_proj.bias": "fewer than 2 dimensions",
        "model.layers.0.input_layernorm.weight": "fewer than 2 dimensions",
        "model.layers.0.rms_norm.weight": "norm",
        "model.layers.0.conv.weight": "more than 2 dimensions (--conv)",
        "model.layers.0.router.weight": "fewer than 4096 elements (--min-size)",
        "model.layers.0.experts.gate_up_proj": "not called weight",
        "model.rotary.inv_freq": "not floating point (int64)",
        "lm_head.weight": "head (--lm-head)",
    }


def test_the_report_adds_up(source, state, tmp_path):
    report = tk.quantize(source, tmp_path / "a.safetensors")
    once = {name: tensor for name, tensor in state.items() if name != "lm_head.weight"}
    assert report.bytes_before == sum(tensor.nbytes for tensor in once.values())
    made = load_file(tmp_path / "a.safetensors")
    assert report.bytes_after == sum(tensor.nbytes for tensor in made.values())
    assert report.ratio == pytest.approx(report.bytes_before / report.bytes_after)
    back = dequantized(made)
    for weight in report.quantized:
        true = state[weight.name].double()
        noise = ((true - back[weight.name].double()) ** 2).sum()
        assert weight.sqnr_db == pytest.approx(10 * math.log10((true**2).sum() / noise), abs=0.01)
        assert weight.bytes_before == state[weight.name].nbytes
    rows = [weight.sqnr_db for weight in report.worst]
    assert rows == sorted(rows)
    assert min(rows) <= report.sqnr_db <= max(rows)
    told = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert told["schema"] == 1
    assert [row["name"] for row in told["quantized"]] == [w.name for w in report.quantized]


def test_by_choice(source, tmp_path):
    both = tk.quantize(source, tmp_path / "a.pth", embeddings=True, lm_head=True, conv=True)
    quantized = {weight.name: weight for weight in both.quantized}
    assert quantized["model.embed_tokens.weight"].tied_to == "lm_head.weight"
    assert len(both.worst) == len(both.quantized) - 1
    made = torch.load(tmp_path / "a.pth", weights_only=True)
    for leaf in ("weight", "weight_scale"):
        one, two = made[f"lm_head.{leaf}"], made[f"model.embed_tokens.{leaf}"]
        assert one.data_ptr() == two.data_ptr()
    conv = made["model.layers.0.conv.weight"], made["model.layers.0.conv.weight_scale"]
    assert conv[1].shape == (20, 1, 1, 1)
    only = tk.quantize(source, tmp_path / "b.pth", only=["*.experts.*", "nothing"])
    assert [weight.name for weight in only.quantized] == ["model.layers.0.experts.gate_up_proj"]
    assert reasons(only)["model.layers.0.q_proj.weight"] == "not in --only"
    assert "no name matches 'nothing'" in only.notes
    skip = tk.quantize(source, tmp_path / "c.pth", skip=["*.q_proj.*"], min_size=0)
    assert [weight.name for weight in skip.quantized] == [
        "model.layers.0.down.weight",
        "model.layers.0.router.weight",
    ]
    assert reasons(skip)["model.layers.0.q_proj.weight"] == "in --skip"


def test_ties_are_kept_tied(source, tmp_path):
    report = tk.quantize(source, tmp_path / "a.safetensors", lm_head=True)
    assert reasons(report)["lm_head.weight"] == (
        "tied to model.embed_tokens.weight, which stays: embedding (--embeddings)"
    )
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata()["model.embed_tokens.weight"] == "lm_head.weight"
        lineage = json.loads(file.metadata()["tensorkeep.lineage"])
    assert lineage[-1]["quantize"].startswith("int8")


@pytest.mark.parametrize("ending", ["a.pth", "a.safetensors", "folder/", "parts/"])
def test_everywhere_the_same(source, state, tmp_path, ending):
    size = 10_000 if ending == "parts/" else None
    path = f"{tmp_path}/{ending}"
    report = tk.quantize(source, path, shard_size=size, verify=True, min_size=0)
    with tk.open(path) as ckpt:
        made = {name: ref.torch() for name, ref in ckpt.tensors.items()}
    # The tied embedding is one tensor.
    assert report.verified == len(made) - 1
    wanted = tk.quantize(source, tmp_path / "b.safetensors", min_size=0)
    plain = load_file(tmp_path / "b.safetensors")
    assert [w.sqnr_db for w in wanted.quantized] == [w.sqnr_db for w in report.quantized]
    assert all(torch.equal(made[name], plain[name]) for name in plain)
    if ending == "parts/":
        index = json.loads((tmp_path / "parts/model.safetensors.index.json").read_text())
        where = index["weight_map"]
        for name in where:
            assert where.get(f"{name}_scale", where[name]) == where[name]


def test_config(source, tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["Ü"], "hidden_size": 100}')
    report = tk.quantize(source, f"{tmp_path}/out/", conv=True)
    assert "config.json" in report.files
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["architectures"] == ["Ü"]
    said = config["quantization_config"]
    assert said["quant_method"] == "compressed-tensors"
    assert said["ignore"] == ["model.layers.0.rms_norm", "model.layers.0.router", "lm_head"]
    assert said["config_groups"]["group_0"]["targets"] == ["Linear"]
    assert any("not for model.layers.0.conv.weight" in note for note in report.notes)
    tk.quantize(source, f"{tmp_path}/out/", overwrite=True, embeddings=True, lm_head=True)
    said = json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]
    assert said["config_groups"]["group_0"]["targets"] == ["Linear", "Embedding"]
    (tmp_path / "out/mine.txt").touch()
    with pytest.raises(AlreadyExists, match=r"mine\.txt"):
        tk.quantize(source, f"{tmp_path}/out/", overwrite=True)


@pytest.mark.parametrize("text", ["[]", "{", '{"quantization_config": {}}', "[" * 100_000])
def test_config_that_cannot_be_extended(source, tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(Unwritable, match=r"config\.json"):
        tk.quantize(source, f"{tmp_path}/out/")
    assert not (tmp_path / "out").exists()
    tk.quantize(source, f"{tmp_path}/out.safetensors")


def test_config_beside_a_url(source, tmp_path):
    (tmp_path / "config.json").write_text('{"hidden_size": 100}')
    tk.quantize(source.as_uri(), f"{tmp_path}/out/")
    assert json.loads((tmp_path / "out/config.json").read_text())["hidden_size"] == 100


def test_dry_run(source, tmp_path):
    report = tk.quantize(source, f"{tmp_path}/out/", dry_run=True)
    wet = tk.quantize(source, f"{tmp_path}/wet/")
    assert not (tmp_path / "out").exists()
    assert (report.bytes_after, report.files) == (wet.bytes_after, wet.files)
    assert report.sqnr_db is None
    assert report.worst == []
    assert report.to_dict()["quantized"][0]["sqnr_db"] is None


def test_back_by_a_recipe(source, state, tmp_path):
    tk.quantize(source, tmp_path / "a.safetensors")
    (tmp_path / "r.toml").write_text('schema = 1\n[[edit]]\nop = "dequantize"\nto = "float16"\n')
    tk.convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", recipe=tmp_path / "r.toml")
    made, wanted = load_file(tmp_path / "b.safetensors"), load_file(tmp_path / "a.safetensors")
    for name, tensor in dequantized(wanted).items():
        same = tensor.half() if f"{name}_scale" in wanted else tensor
        assert torch.equal(made[name], same)
    assert made.keys() == dequantized(wanted).keys()


def test_a_whole_model_and_a_training_checkpoint(tmp_path):
    model = nn.Sequential(nn.Linear(128, 64), nn.LayerNorm(64), nn.Linear(64, 64))
    torch.save(model, tmp_path / "whole.pt")
    report = tk.quantize(tmp_path / "whole.pt", tmp_path / "a.safetensors")
    assert [weight.name for weight in report.quantized] == ["0.weight", "2.weight"]
    torch.save({"model": model.state_dict(), "epoch": 1}, tmp_path / "run.ckpt")
    report = tk.quantize(tmp_path / "run.ckpt", tmp_path / "b.safetensors")
    assert report.left_out == [("epoch", "not a tensor")]
    a, b = (load_file(tmp_path / f"{name}.safetensors") for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_nothing_to_make_codes_of_stays(tmp_path):
    odd = {"a.weight": torch.empty(0, 5), "b.weight": torch.empty(5, 0)}
    torch.save({**odd, "c.weight": torch.ones(9, 9)}, tmp_path / "a.pth")
    report = tk.quantize(tmp_path / "a.pth", tmp_path / "b.safetensors", min_size=0)
    assert reasons(report) == {"a.weight": "no elements", "b.weight": "no elements"}
    made = load_file(tmp_path / "b.safetensors")
    assert [made[name].shape for name in odd] == [(0, 5), (5, 0)]


def test_exact_weights(tmp_path):
    torch.save({"weight": torch.zeros(64, 64)}, tmp_path / "zeros.pth")
    report = tk.quantize(tmp_path / "zeros.pth", tmp_path / "a.safetensors")
    assert report.quantized[0].sqnr_db == math.inf
    assert report.to_dict()["sqnr_db"] == "Infinity"
    made = dequantized(load_file(tmp_path / "a.safetensors"))
    assert torch.equal(made["weight"], torch.zeros(64, 64))


def refused(error, match, source, target, **options):
    with pytest.raises(error, match=match) as caught:
        tk.quantize(source, target, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_input(source, state, tmp_path):
    out = tmp_path / "out.safetensors"
    refused(NothingSelected, "none: .*1 norm", source, out, min_size=10**9)
    refused(NothingSelected, "not in --only", source, out, only=["zzz"])
    refused(AlreadyExists, "source itself", source, source, overwrite=True)
    refused(BadArgument, "list of globs", source, out, only="*")
    refused(BadArgument, "--min-size", source, out, min_size=-1)
    refused(BadArgument, "require", source, out, require="maybe")
    tk.quantize(source, out)
    refused(AlreadyExists, "--overwrite", source, out)
    refused(Unwritable, r"quantised yet.*down\.weight", out, tmp_path / "twice.safetensors")
    packed = {"l.weight_packed": torch.ones(64, 64, dtype=torch.int32), **state}
    torch.save(packed, tmp_path / "packed.pth")
    refused(Unwritable, "weight_packed", tmp_path / "packed.pth", tmp_path / "x.pth")
    eight = torch.ones(64, 64).to(torch.float8_e4m3fn)
    torch.save({"e.weight": eight, "e.weight_scale_inv": torch.ones(1), **state}, source)
    refused(Unwritable, r"float8_e4m3fn.*e\.weight", source, tmp_path / "x.pth")
    torch.save({"w.weight": torch.ones(64, 64), "w.weight_scale": torch.ones(1)}, tmp_path / "s.pt")
    refused(NameCollision, "--skip 'w.weight'", tmp_path / "s.pt", tmp_path / "x.pth")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model.pth",
        "out.safetensors",
        "packed.pth",
        "s.pt",
    ]


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_values_that_no_code_stands_for(state, tmp_path, odd):
    state["model.layers.0.q_proj.weight"][7, 3] = odd
    torch.save(state, tmp_path / "model.pth")
    for target in ("a.safetensors", "a.pth", "a/"):
        text = refused(Unwritable, "row 7", tmp_path / "model.pth", f"{tmp_path}/{target}")
        assert text.startswith("model.layers.0.q_proj.weight: ")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]
    report = tk.quantize(tmp_path / "model.pth", tmp_path / "a.pth", skip=["*.q_proj.weight"])
    assert [weight.name for weight in report.quantized] == ["model.layers.0.down.weight"]


def test_require_safe(hostile_digits, tmp_path):
    refused(NotSafe, "calls safe", hostile_digits, tmp_path / "a.safetensors", require="safe")
    report = tk.quantize(hostile_digits, tmp_path / "a.safetensors")
    assert any("nothing of it was run" in note for note in report.notes)


PEAK = """
import re, sys
import tensorkeep as tk
tk.quantize(sys.argv[1], sys.argv[2], verify=True)
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


@pytest.mark.parametrize("shape", [(1, 1 << 27), (1 << 14, 1 << 13)])
def test_memory_does_not_grow_with_the_tensor(tmp_path, shape):
    # 256 MB of holes: read as zeros; twice as much as may be in memory.
    with torch.serialization.skip_data():
        torch.save({"weight": torch.empty(shape, dtype=torch.float16)}, tmp_path / "a.pth")
    command = [sys.executable, "-c", PEAK, tmp_path / "a.pth", tmp_path / "b.safetensors"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stdout) < 150


def test_views_are_gathered(tmp_path):
    weight = torch.randn(300, 200)
    torch.save({"weight": weight.t()}, tmp_path / "a.pth")
    save_file({"weight": weight.t().contiguous()}, tmp_path / "b.safetensors")
    for name in ("a.pth", "b.safetensors"):
        tk.quantize(tmp_path / name, tmp_path / f"{name}.out.safetensors")
    one, two = (
        load_file(tmp_path / f"{name}.out.safetensors") for name in ("a.pth", "b.safetensors")
    )
    assert torch.equal(one["weight"], two["weight"])
    assert torch.equal(one["weight_scale"], two["weight_scale"])
