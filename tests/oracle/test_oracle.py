"""The oracle sees what it must see: were it blind, the law would hold for everything."""

from __future__ import annotations

import pickle
import random

import pytest
import torch
from tricks import ARG, CALL, EVIL, HONEST, NAMESPACE, P2, P4, checkpoint, g, sg, state_dict, u

RELU = g("torch.nn.functional", "relu")
DEFAULTS = u("__defaults__") + b"\x88\x85s"


def test_an_honest_file_does_nothing(oracle, tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(checkpoint(HONEST))
    outcome = oracle.file(path)
    assert outcome.broken == []
    assert set(outcome.loads.values()) == {"loaded"}
    assert "torch._utils._rebuild_tensor_v2" in outcome.names


def test_a_process_is_seen_and_refused(oracle, tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(checkpoint(state_dict(CALL)))
    outcome = oracle.file(path)
    assert any(event.startswith("os.system") for event in outcome.events)
    assert "REDUCE of posix.system" in outcome.violations
    assert not outcome.loaded


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        (sg("builtins", "open") + u("/tmp/oracle-wrote-this") + u("w") + b"\x86R", "open"),
        (sg("socket", "socket") + b")R", "socket.__new__"),
        (sg("builtins", "exec") + u("1") + b"\x85R", "compile"),
        (sg("subprocess", "Popen") + ARG + b"R", "subprocess.Popen"),
        (sg("ctypes", "CDLL") + u("libm.so.6") + b"\x85R", "ctypes.dlopen"),
        (sg("os", "remove") + u("/tmp/oracle-removed-this") + b"\x85R", "os.remove"),
        (sg("os", "environ") + u("TRICK") + u("1") + b"s", "os.putenv"),
    ],
    ids=["file", "socket", "code", "process", "library", "removal", "environment"],
)
def test_what_reaches_outside_is_seen(oracle, payload, event):
    outcome = oracle.pickle(P4 + payload + b".")
    assert any(seen.startswith(event) for seen in outcome.events)


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (RELU + b"N}" + DEFAULTS + b"\x86b", "function torch.nn.functional.relu"),
        (sg("sys", "path") + u("/tmp") + b"a", "module sys.path"),
        (sg("torch", "set_default_dtype") + g("torch", "float64") + b"\x85R", "torch default"),
        (sg("random", "seed") + b"K\x07\x85R", "random"),
        (sg("argparse", "Namespace") + b"N}" + u("x") + b"K\x01s\x86b", "class argparse"),
        (sg("numpy", "seterr") + u("ignore") + b"\x85R", "numpy errors"),
    ],
    ids=["default", "path", "dtype", "seed", "class", "numpy"],
)
def test_what_lasts_outside_the_file_is_seen(oracle, payload, what):
    outcome = oracle.pickle(P4 + payload + b".")
    assert [change for change in outcome.changed if what in change]


def test_a_method_that_the_file_put_there_is_seen(oracle):
    stored = NAMESPACE + b"}" + u("extend") + g("builtins", "int") + b"sb(K\x01e"
    outcome = oracle.pickle(P4 + stored + b".")
    assert "APPENDS calls the extend that the file put there" in outcome.violations


def test_a_forward_of_the_files_choice_is_seen(oracle):
    module = torch.nn.Linear(2, 2)
    module.forward = len
    outcome = oracle.pickle(pickle.dumps(module))
    assert [later for later in outcome.later if "forward" in later]


def test_a_hook_is_seen(oracle):
    module = torch.nn.Linear(2, 2)
    module.register_forward_hook(print)
    outcome = oracle.pickle(pickle.dumps(module))
    assert [later for later in outcome.later if "hooks" in later]


def test_a_payload_in_another_way_of_loading_is_seen(oracle):
    assert oracle.pickle(EVIL).events


def test_a_child_that_dies_is_told_of(oracle):
    crash = sg("ctypes", "string_at") + b"K\x01\x85R"
    outcome = oracle.pickle(P4 + crash + b".")
    assert outcome.broken


def test_one_among_many_is_found(oracle):
    programs = [P2 + b"K" + bytes([number]) + b"." for number in range(7)]
    change = P4 + RELU + b"N}" + DEFAULTS + b"\x86b."
    programs.insert(random.Random(3).randrange(7), change)
    broken = {name for name, outcome in oracle.pickles(programs).items() if outcome.broken}
    assert broken == {change.hex()}
