"""Allowlisted classes of torch.nn, saved whole: an instance out of nothing, and its state.

Source: `Module.__setstate__` and those of its subclasses (torch 2.13; `tools/make_allowlist.py`
lists what each was found to do): `__dict__` is updated, and what older versions did not write is
filled in. So the state decides what the module does later, and the rule on it is what makes these
entries safe:

- no name of the state hides a method, and none is a dunder;
- every dictionary of hooks is empty: training, calling and loading would call what lies there;
- `_parameters`, `_buffers` and `_modules` are dictionaries of tensors and allowlisted modules;
- a function lies only where the class keeps one (`activation`), and is one of torch's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain

from tensorkeep.pickles import Call, Global
from tensorkeep.scanning._allow_kinds import Entry, empty_hooks, takes
from tensorkeep.scanning._allow_module_names import CLASSES_TEXT, NAMES_TEXT
from tensorkeep.scanning._allow_table import entry_for_call, entry_of, kind_of

# By APPENDS and ADDITEMS; the last is a method that transformers hangs on every module.
_CALLED = frozenset({"append", "extend", "add", "smart_apply"})
NAMES = frozenset(NAMES_TEXT.split()) | _CALLED
_NO_HOOKS = "_is_full_backward_hook"  # a flag, the one key of that name that holds none

# `_all_weights` of text is what keeps `RNNBase.__setstate__` from counting up to `num_layers`.
_RECURRENT = frozenset({"RNNBase", "RNN", "LSTM", "GRU"})
# Callable values, by the class and key that keep them: torch.nn.functional has them as pure
# functions of their arguments, and the layer calls them on its own tensors only.
_ACTIVATIONS_TEXT = (
    "relu gelu silu elu selu celu mish tanh sigmoid leaky_relu relu6 hardtanh hardswish softplus"
)
_KEEPS = {
    "TransformerEncoderLayer": frozenset({"activation"}),
    "TransformerDecoderLayer": frozenset({"activation"}),
}
# What older versions had as classes of their own: the state of Linear, the rule of Module.
_OLDER = (("torch.nn.modules.linear", "_LinearWithBias", "in_features out_features"),)

_INERT_GLOBALS = frozenset({"dtype", "qscheme", "singleton", "constant", "tensor-class"})


def fault(name: str, own: frozenset[str], _: Call, args: tuple[object, ...]) -> str:
    """The rule that this state of a module breaks, or ""."""
    state = args[0] if len(args) == 1 else None
    if type(state) is not dict or not all(type(key) is str for key in state):
        return "pickle/odd-effect"
    if any(_hides(key, own) for key in state):
        return "pickle/shadowing-key"
    if any(
        "hook" in key and key != _NO_HOOKS and not empty_hooks(value, kind_of)
        for key, value in state.items()
    ):
        return "pickle/kept-hook"
    kept = _KEEPS.get(name, frozenset())
    sound = all(_value(key, value, key in kept) for key, value in state.items())
    if sound and (name not in _RECURRENT or _recurrent(state)):
        return ""
    return "pickle/odd-effect"


def _hides(key: str, own: frozenset[str]) -> bool:
    return key.startswith("__") or (key in NAMES and key not in own)


def _value(key: str, value: object, keeps: bool) -> bool:
    if key in ("_parameters", "_buffers"):
        return _filled(value, "tensor")
    if key == "_modules":
        return _filled(value, "module")
    if key == "_non_persistent_buffers_set":
        return kind_of(value) == "set"
    if key in ("training", _NO_HOOKS):
        return value is None or type(value) is bool
    if not isinstance(value, Global):
        return True  # data, or a call that is judged where it stands
    entry = entry_of(value)
    if entry is None or entry.reference in _INERT_GLOBALS:
        return True  # what has no entry has a finding
    return keeps and entry.kept


def _filled(value: object, kind: str) -> bool:
    """Whether `value` is a dictionary of text to objects of `kind` and None."""
    pairs = _pairs(value)
    if pairs is None:
        return False
    return all(type(key) is str and _is(item, kind) for key, item in pairs)


def _pairs(value: object) -> Iterator[tuple[object, object]] | None:
    if type(value) is dict:
        return iter(value.items())
    if not isinstance(value, Call) or kind_of(value) != "ordered-dict":
        return None
    effects = value.effects or []
    if any(effect.kind not in ("SETITEM", "SETITEMS") for effect in effects):
        return None
    given = value.args[0] if type(value.args) is tuple and value.args else []
    if type(given) is not list or not all(type(pair) in (list, tuple) for pair in given):
        return None
    set_later = (zip(effect.args[::2], effect.args[1::2], strict=True) for effect in effects)
    return chain(((pair[0], pair[1]) for pair in given), chain.from_iterable(set_later))


def _is(item: object, kind: str) -> bool:
    # A call without an entry has a finding of its own: one is enough.
    return item is None or kind_of(item) == kind or (type(item) is Call and not _listed(item))


def _listed(call: Call) -> bool:
    return entry_for_call(call) is not None or entry_of(call.func) is not None


def _recurrent(state: dict[str, object]) -> bool:
    weights = state.get("_all_weights")
    if type(weights) is not list or not weights or type(weights[0]) is not list:
        return False
    if not weights[0] or type(weights[0][0]) is not str:
        return False
    lists = (state.get("_flat_weights", []), state.get("_flat_weights_names", []))
    return all(type(value) is list for value in lists)


def _entry(module: str, name: str, own: frozenset[str]) -> Entry:
    blame = partial(fault, name, own)
    return Entry(
        module,
        name,
        "an empty module of torch, whose state is data, tensors, modules and no hooks",
        instance=True,
        reference="module-class",
        rule=takes(),
        makes="module",
        effects={"BUILD": lambda target, args: not blame(target, args)},
        blame=blame,
    )


def _classes() -> Iterator[tuple[str, str, frozenset[str]]]:
    # A line that begins with a blank goes on with the one before it.
    for row in CLASSES_TEXT.replace("\n  ", " ").split("\n"):
        if row:
            path, *keys = row.split()
            module, _, name = path.rpartition(".")
            yield f"torch.nn.{module}", name, frozenset(keys)
    for module, name, text in _OLDER:
        yield module, name, frozenset(text.split())


_ACTIVATIONS = (
    *(("torch.nn.functional", name) for name in _ACTIVATIONS_TEXT.split()),
    ("torch._C._nn", "gelu"),
    ("torch._C._nn", "softplus"),
)

ENTRIES: tuple[Entry, ...] = (
    *(_entry(module, name, keys) for module, name, keys in _classes()),
    *(
        Entry(
            module,
            name,
            "a function of tensors alone, kept as the activation of a transformer layer",
            kept=True,
        )
        for module, name in _ACTIVATIONS
    ),
    Entry(
        "torch.nn.backends.thnn",
        "_get_thnn_function_backend",
        "returns None; torch before 1.2 wrote it for each module",
        call=True,
        rule=takes(),
        makes="none",
        fresh=False,
    ),
)
