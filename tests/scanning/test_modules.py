"""Whole modules of torch.nn: safe while their state is data, and what is said when it is not."""

from __future__ import annotations

import copyreg
import pickle
import re
import warnings

import pytest
import torch
from torch import nn

import tensorkeep as tk
from tensorkeep.pickles import run
from tensorkeep.scanning.rules import judge_program


class Given:
    """Pickles as a class of torch.nn with a state of the test's choosing."""

    def __init__(self, cls, state):
        self.cls, self.state = cls, state

    @property
    def __class__(self):
        return self.cls  # pickle asks whether the object is one of the class it would make

    def __reduce__(self):
        return copyreg.__newobj__, (self.cls,), self.state


def rules(value, protocol=4):
    return {f.rule for f in judge_program(run(pickle.dumps(value, protocol)), "data.pkl")}


def state_of(module, **changes):
    return {**module.__getstate__(), **changes}


def given(cls, *args, **changes):
    return Given(cls, state_of(cls(*args), **changes))


def parallel(**changes):
    return Given(nn.DataParallel, {**nn.DataParallel(nn.ReLU()).__getstate__(), **changes})


BARE = {"_flat_weights": [], "_parameters": {}}  # without tensors, which pickle a tensor's bytes


def test_an_honest_state_given_by_hand_has_no_finding():
    for protocol in range(2, 6):
        assert rules(given(nn.ReLU), protocol) == set()
        assert rules(given(nn.LSTM, 2, 2, **BARE), protocol) == set()


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (given(nn.ReLU, forward=1), "pickle/shadowing-key"),
        (given(nn.ReLU, _call_impl=nn.Tanh()), "pickle/shadowing-key"),
        (given(nn.ReLU, _compiled_call_impl=nn.Tanh()), "pickle/shadowing-key"),
        (given(nn.ReLU, state_dict=dict), "pickle/shadowing-key"),
        (given(nn.ReLU, **{"__class__": 1}), "pickle/shadowing-key"),
        (given(nn.ReLU, extend=nn.Tanh()), "pickle/shadowing-key"),
        (given(nn.ReLU, _forward_hooks={1: nn.Tanh()}), "pickle/kept-hook"),
        (given(nn.ReLU, _forward_pre_hooks=nn.Tanh()), "pickle/kept-hook"),
        (given(nn.ReLU, _state_dict_hooks={1: int}), "pickle/kept-hook"),
        (given(nn.ReLU, _hf_hook=nn.Tanh()), "pickle/kept-hook"),
        (given(nn.ReLU, inplace=int), "pickle/odd-effect"),
        (given(nn.ReLU, inplace=nn.functional.relu), "pickle/odd-effect"),
        (given(nn.ReLU, other=nn.functional.relu), "pickle/odd-effect"),
        (given(nn.ReLU, _modules={"a": 1}), "pickle/odd-effect"),
        (given(nn.ReLU, _modules=[nn.Tanh()]), "pickle/odd-effect"),
        (given(nn.ReLU, _modules={1: nn.Tanh()}), "pickle/odd-effect"),
        (given(nn.ReLU, _parameters={"a": nn.Tanh()}), "pickle/odd-effect"),
        (given(nn.ReLU, _buffers={"a": {}}), "pickle/odd-effect"),
        (given(nn.ReLU, _non_persistent_buffers_set=[1]), "pickle/odd-effect"),
        (given(nn.ReLU, training=range(10**9)), "pickle/odd-effect"),
        (given(nn.LSTM, 2, 2, **BARE, _all_weights=[[1]]), "pickle/odd-effect"),
        (given(nn.LSTM, 2, 2, **BARE, _flat_weights_names=range(10**18)), "pickle/odd-effect"),
        (given(nn.TransformerEncoderLayer, 2, 1, 2, activation=int), "pickle/odd-effect"),
        (parallel(forward=nn.Tanh()), "pickle/shadowing-key"),
        (parallel(replicate=nn.Tanh()), "pickle/shadowing-key"),
        (parallel(gather=dict), "pickle/shadowing-key"),
        (parallel(_forward_pre_hooks={1: nn.Tanh()}), "pickle/kept-hook"),
        (parallel(module=nn.functional.relu), "pickle/odd-effect"),
        (parallel(_modules={"module": 1}), "pickle/odd-effect"),
        ([nn.functional.relu], "pickle/misplaced-reference"),
    ],
)  # fmt: skip
def test_a_state_that_does_more_is_named(value, rule):
    assert rule in rules(value)


def test_slot_state_is_named():
    class Slots(Given):
        def __reduce__(self):
            return copyreg.__newobj__, (self.cls,), (None, {"forward": 1})

    assert rules(Slots(nn.ReLU, None)) == {"pickle/slot-state"}


def test_a_class_of_the_users_own_is_told_from_a_function():
    program = pickle.dumps(nn.Sequential(nn.ReLU()), 2)
    own = re.sub(rb"torch.nn.modules.container", b"shop.models", program)
    findings = judge_program(run(own), "data.pkl")
    assert [(f.rule, f.severity) for f in findings] == [("pickle/unknown-class", "suspicious")]
    assert "tensorkeep convert" in findings[0].remedy


def test_many_modules_that_share_a_dictionary_cost_no_more_than_their_bytes():
    """The memo lets a few bytes name a long dictionary again and again."""
    shared = {str(n): None for n in range(2_000)}
    modules = [Given(nn.ReLU, {"_parameters": shared}) for _ in range(3_000)]
    assert "pickle/odd-effect" in rules(modules)


def test_calling_a_class_of_torch_is_not_what_a_pickle_does():
    program = b"\x80\x02ctorch.nn.modules.linear\nLinear\nK\x03K\x03\x86R."
    assert {f.rule for f in judge_program(run(program), "x")} == {"pickle/odd-arguments"}


def test_a_lazy_layer_keeps_methods_of_its_own(tmp_path):
    path = tmp_path / "lazy.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.LazyLinear(3)), path)
    report = tk.scan(path)
    assert report.verdict == "suspicious"
    assert "pickle/attribute-lookup" in {found.rule for found in report.findings}
