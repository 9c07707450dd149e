"""`nn.Module` objects saved whole, from the state that the pickle would hand to `__setstate__`.

Source: `torch/nn/modules/module.py` of torch 2.13 (`__setstate__`, `_save_to_state_dict`),
`torch/fx/graph_module.py` (`reduce_graph_module`), and the same files of torch 0.4 to 2.12.
"""

from __future__ import annotations

from collections.abc import Mapping

from tensorkeep.formats import _packed
from tensorkeep.formats.assembled import Module, Pairs
from tensorkeep.formats.contents import Items, Lens
from tensorkeep.pickles import Call, Global

_RECONSTRUCTORS = ("copyreg._reconstructor", "copyreg.__newobj__", "copyreg.__newobj_ex__")
_GRAPH_MODULES = {
    f"torch.fx.graph_module.reduce_{kind}graph_module" for kind in ("", "package_", "deploy_")
}
_COMPILED = "torch._dynamo.eval_frame.OptimizedModule"
_PARTS = ("_parameters", "_buffers", "_modules")
_DEEPEST_NAME = 16
# Classes of torch that put more, or other things, into their state dict than they hold.
_OWN_STATE = (
    "torch.ao.nn.quantized.",
    "torch.ao.nn.intrinsic.quantized.",
    "torch.ao.nn.sparse.quantized.",
    "torch.nn.quantized.",
    "torch.nn.intrinsic.quantized.",
    "torch.distributed.nn.api.remote_module.",
)
# Writes a version number beside the state dict and leaves its tensors alone.
_HARMLESS_HOOK = "torch.nn.utils.spectral_norm.SpectralNormStateDictHook"
_HOOKS = {
    "_state_dict_hooks": "hooks change its state dict when it is made",
    "_state_dict_pre_hooks": "hooks run before its state dict is made",
    "_load_state_dict_pre_hooks": "hooks change a state dict before it is loaded into it",
}


def module_of(call: Call, look: Lens, changed: Mapping[int, int]) -> Module | None:
    """The module that `call` would make, None if it makes something else.

    `changed` is that of the program (`pickles.Program`).
    """
    name = class_name(call)
    if name == _COMPILED and isinstance(call.args, tuple) and call.args:
        return Module(name, [], [], [("_orig_mod", call.args[0])])
    state = _graph_module(call, name) if name in _GRAPH_MODULES else _state(call, changed)
    state = state or _packed.convolution(call, name)
    if state is None or any(part not in state for part in _PARTS):
        return None
    found = [_pairs(state[part], look) for part in _PARTS]
    if None in found:
        return None
    parameters, buffers, modules = (pairs or [] for pairs in found)
    dropped = _names(state.get("_non_persistent_buffers_set"), look)
    buffers = [(key, value) for key, value in buffers if key not in dropped]
    more = _packed.saved(name, state, modules, call.offset)
    buffers += _script_objects(state) if more is None else more
    module = Module(_shown(name, state), parameters, buffers, modules)
    module.training = state.get("training") is not False
    known = dict(buffers)
    module.attributes = {k: v for k, v in state.items() if not k.startswith("_") and k not in known}
    module.attributes.pop("training", None)
    module.packed = _packed.is_packed(name)
    module.doubt = _doubt(name if more is None else "", state, look)
    return module


def _script_objects(state: Mapping[str, object]) -> Pairs:
    """Objects of C++ in a `__dict__`: weights may be packed in them, and nothing may be lost."""
    return [
        (key, value)
        for key, value in state.items()
        if isinstance(value, Call) and class_name(value) == _packed.SCRIPT_OBJECT
    ]


def class_name(call: Call) -> str:
    """The class that `call` makes an instance of; "a computed class" if only running would tell.

    At protocols below 4 a class inside a class is written as `getattr(Outer, "Inner")`.
    """
    node: object = call.func
    if isinstance(node, Global) and node.qualified in _RECONSTRUCTORS:
        node = call.args[0] if isinstance(call.args, tuple) and call.args else None
    inner: list[str] = []
    for _ in range(_DEEPEST_NAME):
        if isinstance(node, Global) and not node.computed:
            return ".".join([node.qualified, *reversed(inner)])
        args = node.args if isinstance(node, Call) else None
        if not isinstance(args, tuple) or len(args) != 2 or not isinstance(args[1], str):
            break
        if not _is_getattr(node):
            break
        inner.append(args[1])
        node = args[0]
    return "a computed class"


def _is_getattr(node: object) -> bool:
    func = node.func if isinstance(node, Call) else None
    return isinstance(func, Global) and func.qualified == "builtins.getattr"


def _state(call: Call, changed: Mapping[int, int]) -> dict[str, object] | None:
    """The `__dict__` that the object would end with, None if only running it would tell."""
    state: dict[str, object] = {}
    for effect in call.effects or ():
        given = effect.args[0] if effect.kind == "BUILD" else None
        if isinstance(given, tuple) and len(given) == 2 and not given[1]:
            given = given[0]
        if not isinstance(given, dict) or changed.get(id(given), -1) > effect.offset:
            return None
        state.update((key, value) for key, value in given.items() if isinstance(key, str))
    return state or None


def _graph_module(call: Call, name: str) -> dict[str, object] | None:
    """The `__dict__` of a module of torch.fx: it is pickled as an argument, with its code."""
    args = call.args if isinstance(call.args, tuple) else ()
    found = next((arg for arg in args if isinstance(arg, dict)), None)
    if found is None or call.effects:
        return None
    return {key: value for key, value in found.items() if isinstance(key, str)}


def _shown(name: str, state: Mapping[str, object]) -> str:
    if name not in _GRAPH_MODULES:
        return name
    own = state.get("_graphmodule_cls_name")
    return own if isinstance(own, str) else "torch.fx.graph_module.GraphModule"


def _pairs(value: object, look: Lens) -> Pairs | None:
    """Names and values of a dict or OrderedDict, without those that are None."""
    value = look(value)
    pairs = value.pairs if isinstance(value, Items) else None
    if isinstance(value, dict):
        pairs = list(value.items())
    if pairs is None:
        return None
    return [(key, item) for key, item in pairs if item is not None and isinstance(key, str)]


def _names(value: object, look: Lens) -> set[str]:
    """Names in a set; torch before 1.6 has none."""
    value = look(value)
    if not isinstance(value, set | frozenset | list | tuple):
        return set()
    return {item for item in value if isinstance(item, str)}


def _doubt(name: str, state: Mapping[str, object], look: Lens) -> str:
    if name.startswith(_OWN_STATE):
        return "its class saves its state in a way of its own"
    for key, words in _HOOKS.items():
        if any(not _harmless(hook) for hook in _hooks(look(state.get(key)))):
            return words
    return ""


def _hooks(value: object) -> list[object]:
    """The hooks of one kind: a dict or OrderedDict by number."""
    if isinstance(value, Items):
        return [hook for _, hook in value.pairs]
    return list(value.values()) if isinstance(value, dict) else []


def _harmless(hook: object) -> bool:
    return isinstance(hook, Call) and class_name(hook) == _HARMLESS_HOOK
