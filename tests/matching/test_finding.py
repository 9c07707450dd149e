"""Names that wrappers and layers changed are brought back, and what cannot be is not guessed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tensorkeep.edits.names import AddPrefix
from tensorkeep.matching.finding import find
from tensorkeep.matching.rules import applied, words
from tensorkeep.matching.specs import Spec

sys.path.insert(0, str(Path(__file__).resolve().parent))

from match_nets import NET, Net, renamed, rules, specs, under, without  # noqa: E402

LEADING = [
    "module", "model", "net", "network", "state_dict", "student", "teacher", "ema", "ema_model",
    "encoder", "backbone", "base_model.model", "generator", "_forward_module", "_orig_mod",
    "_fsdp_wrapped_module", "_checkpoint_wrapped_module",
]  # fmt: skip
STACKED = [
    "_orig_mod.module", "module._orig_mod", "state_dict.model", "_forward_module.module.model",
    "model.net.module", "student.backbone", "_orig_mod._fsdp_wrapped_module.module",
]  # fmt: skip
TENSORFLOW = (
    ("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"),
)  # fmt: skip
FSDP = (
    (".attention.", "._fsdp_wrapped_module.attention."),
    (".LayerNorm.", "._fsdp_wrapped_module.LayerNorm."),
    (".fc", "._fsdp_wrapped_module.fc"),
)
CHECKPOINTED = tuple((old, new.replace("_fsdp", "_checkpoint")) for old, new in FSDP)
PEFT = tuple((f".{n}.", f".{n}.base_layer.") for n in "qkv")


HEAD = {"neck.weight": Spec("float32", (7, 8)), "neck.bias": Spec("float32", (7,))}


def undone(match, file, model):
    """The rules, applied by anybody, give the model's names; and they are as few as can be."""
    assert match.fits and match.coverage["tensors"] == 1.0
    again = applied(match.rules, file)
    assert isinstance(again, dict) and set(again) == set(model) == set(match.names)
    return len(match.rules)


@pytest.mark.parametrize("prefix", LEADING + STACKED)
def test_a_leading_prefix_is_one_rule_both_ways(prefix):
    wrapped = under(f"{prefix}.", NET)
    match = find(wrapped, NET)
    assert undone(match, wrapped, NET) == 1 and rules(match) == [f"strip `{prefix}.`"]
    match = find(NET, wrapped)
    assert undone(match, NET, wrapped) == 1 and match.rules == [AddPrefix(f"{prefix}.")]


@pytest.mark.parametrize(
    ("prefix", "changes", "stripped", "added"),
    [
        ("", TENSORFLOW, 2, 2),
        ("module.", TENSORFLOW, 3, 3),
        ("_orig_mod.module.", TENSORFLOW, 3, 3),
        ("", FSDP, 1, 1),
        ("_fsdp_wrapped_module.", FSDP, 1, 2),
        ("module._orig_mod._fsdp_wrapped_module.", FSDP, 2, 2),
        ("_orig_mod.", CHECKPOINTED, 2, 2),
        ("model.", CHECKPOINTED + TENSORFLOW, 4, 4),
        ("base_model.model.", PEFT, 2, 4),
        ("module.base_model.model.", PEFT, 2, 4),
        ("", (("layers.", "encoder.layer."),), 1, 1),
        ("bert.", (("layers.", "encoder.layer."),), 2, 2),
        ("", ((".attention.", ".attn.self."),), 1, 1),
        ("", (("layers.", "blocks."), ("attention.", "attn.")), 2, 2),
    ],
)
def test_stacks_are_undone_both_ways(prefix, changes, stripped, added):
    wrapped = under(prefix, renamed(NET, *changes))
    assert undone(find(wrapped, NET), wrapped, NET) <= stripped
    assert undone(find(NET, wrapped), NET, wrapped) <= added


def test_what_fits_needs_no_rule():
    match = find(NET, NET)
    assert match.fits and match.rules == [] and match.coverage == {"tensors": 1.0, "bytes": 1.0}


def test_a_part_that_only_holds_a_wrapper_s_name_stays():
    names = {"submodule.weight": NET["head.weight"], "module_list.0.bias": NET["head.bias"]}
    match = find(under("module.", names), names)
    assert rules(match) == ["strip `module.`"] and match.fits


def test_the_head_of_another_size():
    match = find(under("_orig_mod.module.", NET), specs(Net(classes=3)))
    assert rules(match) == ["strip `_orig_mod.module.`"] and not match.fits
    assert [(m.name, m.file, m.model) for m in match.mismatched] == [
        ("head.weight", (10, 8), (3, 8)),
        ("head.bias", (10,), (3,)),
    ]
    assert match.missing == match.unexpected == []


@pytest.mark.parametrize("both", [("backbone.", ""), ("", "backbone.")])
def test_a_backbone_in_another_place_than_its_head(both):
    sides = [
        {n if n.startswith("head") else prefix + n: s for n, s in NET.items()} for prefix in both
    ]
    assert undone(find(*sides), *sides) <= 2


def test_a_backbone_alone_fits_in_part():
    body = without(NET, "head")
    match = find(under("module.", body), under("backbone.", body) | under("x.", HEAD))
    assert match.filled == len(body) and not match.fits
    assert len(match.missing) == len(HEAD) and match.unexpected == []
    match = find(under("backbone.", NET), body)
    assert rules(match) == ["strip `backbone.`"] and match.unexpected == [
        "head.weight",
        "head.bias",
    ]


def test_two_networks_of_one_kind_under_names_of_their_own():
    file = under("module.a.", NET) | under("module.b.", renamed(NET, ("layers.", "blocks.")))
    model = under("a.", NET) | under("b.", renamed(NET, ("layers.", "blocks.")))
    match = find(file, model)
    assert rules(match) == ["strip `module.`"] and match.fits
    assert all(source == f"module.{name}" for name, source in match.names.items())


@pytest.mark.parametrize("pair", [("student", "teacher"), ("generator", "net"), ("a.x", "b.x")])
def test_several_equals_are_named_and_none_is_taken(pair):
    match = find(under(f"{pair[0]}.", NET) | under(f"{pair[1]}.", NET), NET)
    assert not match.fits and match.rules == [] and match.filled == 0
    assert {words(edit) for edit in match.rivals} == {f"strip `{one}.`" for one in pair}
    match = find(NET, under(f"{pair[0]}.", NET) | under(f"{pair[1]}.", NET))
    assert not match.fits and match.rules == [] and len(match.rivals) == 2


@pytest.mark.parametrize("averaged", ["ema", "ema_model", "model_ema.module", "shadow", "swa"])
def test_averages_are_never_taken_silently(averaged):
    match = find(under("model.", NET) | under(f"{averaged}.", NET), NET)
    assert rules(match) == ["strip `model.`"] and match.filled == len(NET)
    assert match.notes == [f"averaged weights under `{averaged}.` were not used"]
    assert len(match.unexpected) == len(NET) and not match.fits
    assert find(under(f"{averaged}.", NET), NET).fits  # they are all that there is


def test_shapes_alone_make_no_rule():
    file = renamed(NET, ("fc1", "up"), ("fc2", "down"))
    match = find(file, NET)
    assert match.rules == [] and not match.fits
    assert ("layers.0.up.weight", "layers.0.fc1.weight") in match.by_shape_only
    assert "layers.0.fc1.weight" in match.missing and "layers.0.up.weight" in match.unexpected


def test_of_three_alike_none_is_guessed():
    match = find(renamed(NET, (".q.", ".query."), (".k.", ".key."), (".v.", ".value.")), NET)
    assert match.rules == [] and match.by_shape_only == [] and len(match.missing) == 18


def test_another_model_altogether():
    other = {f"stage.{n}.conv{n}.kernel": Spec("float32", (n + 1, 7, 3, 3)) for n in range(40)}
    match = find(other, NET)
    assert not match.fits and match.rules == [] and match.filled == 0 and match.rivals == []
    assert match.by_shape_only == [] and match.coverage == {"tensors": 0.0, "bytes": 0.0}


def test_another_width_of_the_same_model_is_named_tensor_by_tensor():
    wide = {n: Spec(s.dtype, tuple(2 * size for size in s.shape)) for n, s in NET.items()}
    match = find(wide, NET)
    assert match.filled == 1 and len(match.mismatched) == len(NET) - 1 and not match.missing


@pytest.mark.parametrize("prefix", ["", "module."])
def test_counters_go_by_rule_and_come_by_themselves(prefix):
    bare = without(NET, "num_batches_tracked")
    match = find(under(prefix, NET), bare)
    assert match.fits and rules(match)[-1] == "leave out `*.num_batches_tracked`"
    match = find(under(prefix, bare), NET)
    assert match.fits and match.tolerated == ["bn.num_batches_tracked"]


def test_dtypes_are_no_mismatch():
    half = {n: Spec("float16", s.shape) for n, s in NET.items()}
    match = find(half, NET)
    assert match.fits and match.cast == [*NET]


@pytest.mark.parametrize(
    ("extra", "said"),
    [("lora_A.default.weight", "LoRA"), ("_flat_param", "flattened"), ("weight_mask", "prune")],
)
def test_what_is_left_of_layers_that_compute_their_weight(extra, said):
    match = find(NET | {f"layers.0.fc1.{extra}": Spec("float32", (4, 8))}, NET)
    assert not match.fits and said in match.notes[0]


@pytest.mark.parametrize(
    "part", ["{n}", "a*b", "^x", "y$", "é", "a b", "\\", "[0]", "0", "007", "x" * 600, "{"]
)
def test_parts_that_mean_something_to_patterns(part):
    inner = renamed(NET, (".attention.", f".{part}."))
    for file, model in ((under(f"{part}.", NET), NET), (inner, NET), (NET, inner)):
        match = find(file, model)
        again = applied(match.rules, file)
        assert isinstance(again, dict)
        assert all(again[name] == source for name, source in match.names.items())
    assert find(under(f"{part}.", NET), NET).fits


def test_names_that_would_collide():
    file = {"a.weight": Spec("float32", (2,)), "module.a.weight": Spec("float32", (2,))}
    match = find(file, {"a.weight": Spec("float32", (2,))})
    assert match.rules == [] and match.names == {"a.weight": "a.weight"}
    assert match.unexpected == ["module.a.weight"]


def test_nothing_at_all():
    assert not find({}, {}).fits and not find(NET, {}).fits and not find({}, NET).fits


@pytest.mark.parametrize(("count", "seconds"), [(500, 1), (20_000, 20)])
def test_it_takes_no_longer_than_promised(count, seconds):
    """Of the processor's time, which other work on the machine does not stretch."""
    depth = count // 10 + 1
    one = {n: s for n, s in specs(Net(depth=1)).items() if n.startswith("layers.0.")}
    model = {n.replace(".0.", f".{at}.", 1): s for at in range(depth) for n, s in one.items()}
    file = under("_orig_mod.module.", renamed(model, *TENSORFLOW, *FSDP))
    for a, b in (
        (file, model),
        (model, file),
        (file, under("x.", {n + "y": s for n, s in model.items()})),
    ):
        start = time.process_time()
        find(a, b)
        assert time.process_time() - start < seconds


def sized(*names):
    def shape(name):
        return (4,) if name.endswith("bias") else (9, 4) if "embed" in name else (4, 4)

    return {name: Spec("float32", shape(name)) for name in names}


HEADS = [
    (  # the transform of a masked language model is no pooler
        ["bert.embed.weight", "cls.transform.dense.weight", "cls.transform.dense.bias"],
        ["embed.weight", "pooler.dense.weight", "pooler.dense.bias"],
        "cls.transform.dense.weight",
    ),
    (
        ["embed.weight", "lm_head.dense.weight", "lm_head.dense.bias"],
        ["embed.weight", "classifier.dense.weight", "classifier.dense.bias"],
        "lm_head.dense.weight",
    ),
]


@pytest.mark.parametrize(("file", "model", "name"), HEADS)
def test_one_word_in_common_makes_no_head_another(file, model, name):
    match = find(sized(*file), sized(*model))
    assert name not in match.names.values() and not match.fits and match.missing
    assert name in [one for one, _ in match.by_shape_only]


def test_counts_that_differ_too_are_said_and_nothing_is_shifted():
    inner = ["q.weight", "k.weight", "fc1.weight", "fc2.weight", "norm.weight"]
    file = sized(*(f"blocks.{at}.{name}" for at in range(1, 5) for name in inner))
    model = sized(*(f"blocks.{at}.{name}" for at in range(5) for name in inner))
    model |= sized(*(f"blocks.{at}.more.weight" for at in range(5)))
    match = find(file, {n: s for n, s in model.items() if not n.startswith("blocks.4")})
    assert not match.fits and match.rules == []
    assert "`blocks.{n}` is numbered from 1 in the file and from 0 in the model" in match.notes[0]
    assert find(sized("a.0.w", "a.1.w", "a.2.w"), sized("a.0.w", "a.1.w")).notes == []
