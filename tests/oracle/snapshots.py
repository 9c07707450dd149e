"""What a process holds outside a file's own objects: taken before a load, compared after it.

Records hold the objects themselves and compare by identity, so that neither a comparison nor a
recycled address can lie. What is looked at: the globals of every module, every class that they
name (and the classes and functions in its dictionary), every function's defaults, keyword
defaults, code, attributes and closure, and one level into every list, dict, set and instance.
"""

from __future__ import annotations

import collections
import os
import random
import sys
import types
from pathlib import Path

_CONTAINERS = (list, dict, set, frozenset, collections.deque, tuple)
_ATOMS = (int, float, str, bytes, bool, complex, type(None))

# What changes innocently, as (where it begins, what, why). One by one.
INNOCENT = (
    ("module sys", "modules", "allowlisted modules are imported when they are first named"),
    ("module sys", "path_importer_cache", "the import system remembers folders"),
    ("module sys", "last_", "the interpreter keeps the last error that was printed"),
    ("module zipimport", "_zip_directory_cache", "the import system remembers folders"),
    ("module linecache", "cache", "a traceback's source lines"),
    ("module re", "_cache", "compiled expressions of library code"),
    ("module functools", "", "counters of lru_cache in library code"),
    ("module warnings", "_onceregistry", "a library's warning was shown"),
    ("module warnings", "onceregistry", "a library's warning was shown"),
    ("module abc", "", "answers of isinstance are remembered"),
    ("module torch.serialization", "_get_layout", "the table of layouts, made when first asked"),
    ("function torch.serialization._get_layout", "cache", "the table of layouts, when first asked"),
    ("module torch.serialization", "_serialization_tls", "flags of the load under way"),
    ("module torch.storage", "_always_warn_typed_storage_removal", "a warning was shown"),
    ("function torch.storage._warn_typed_storage_removal", "", "a warning was shown once"),
    ("module torch._utils", "_sparse_tensors_to_validate", "torch.load empties it at its end"),
    ("class numpy.finfo", "_finfo_cache", "numpy remembers the limits of a type that it printed"),
    (
        "module torch.nested._internal.nested_tensor",
        "_tensor_",
        "each jagged tensor gets a number, and its sizes are kept",
    ),
    ("class weakref.finalize", "_registry", "an object of a library asks to be told of its end"),
    ("module encodings", "_cache", "codecs that the interpreter looked up"),
)
_WARNING_REGISTRY = "__warningregistry__"  # a library's warning was shown from this module


class Record:
    """The shallow state of one object, as a dict of names to objects."""

    __slots__ = ("label", "owner", "reader", "state")

    def __init__(self, label, owner, reader):
        self.label, self.owner, self.reader = label, owner, reader
        self.state = reader(owner)

    def changes(self):
        now, then = self.reader(self.owner), self.state
        if type(then) is list:
            if len(now) != len(then) or any(a is not b for a, b in zip(now, then, strict=True)):
                yield self.label, "items", f"{len(then)} items, then {len(now)}"
            return
        for name in now.keys() | then.keys():
            old, new = then.get(name, _ABSENT), now.get(name, _ABSENT)
            if old is not new and not _equal_atoms(old, new):
                yield self.label, str(name), f"{_short(old)} became {_short(new)}"


class _Absent:
    def __repr__(self):
        return "nothing"


_ABSENT = _Absent()


def _short(value):
    try:
        return repr(value)[:60] if type(value) in _ATOMS else f"<{type(value).__name__}>"
    except ValueError:
        return "a number"


def _equal_atoms(old, new):
    return type(old) in _ATOMS and type(old) is type(new) and old == new


def _module(owner):
    return dict(vars(owner))


def _class(owner):
    return {**vars(owner), " bases": owner.__bases__, " name": owner.__qualname__}


def _instance(owner):
    return dict(_own(owner) or {})


def _own(owner):
    """The instance's own dictionary; reading it runs nothing of its class."""
    try:
        own = object.__getattribute__(owner, "__dict__")
    except (AttributeError, TypeError):
        return None
    return own if type(own) is dict else None


def _items(owner):
    if isinstance(owner, dict):
        return [part for pair in dict.items(owner) for part in pair]
    if isinstance(owner, set):
        return sorted(owner, key=id)
    return list(owner)


def _function(owner):
    state = {"__code__": owner.__code__, "__defaults__": owner.__defaults__, **owner.__dict__}
    for name, value in (owner.__kwdefaults__ or {}).items():
        state[f"keyword {name}"] = value
    for index, cell in enumerate(owner.__closure__ or ()):
        try:
            state[f"closure {index}"] = cell.cell_contents
        except ValueError:
            state[f"closure {index}"] = _ABSENT
    return state


class Snapshot:
    """Everything outside, as it is now; `changes()` says what is different later."""

    def __init__(self):
        self._seen = {}
        self._records = []
        self._modules = dict(sys.modules)
        self._skip = {id(self), id(self._seen), id(self._records), id(self._modules)}
        for name, module in list(self._modules.items()):
            if isinstance(module, types.ModuleType) and not name.startswith("oracle_"):
                self._module(name, module)
        self._state = _state()
        self._pardoned = set()

    def _add(self, label, owner, reader):
        if id(owner) in self._seen or id(owner) in self._skip:
            return False
        self._seen[id(owner)] = owner
        self._records.append(Record(label, owner, reader))
        return True

    def _module(self, name, module):
        if self._add(f"module {name}", module, _module):
            for key, value in list(vars(module).items()):
                self._value(f"module {name}.{key}", value)

    def _value(self, label, value, depth=2):
        kind = type(value)
        if kind in _ATOMS or isinstance(value, types.ModuleType):
            return
        if isinstance(value, type):
            self._type(value)
        elif kind is types.FunctionType:
            self._add(f"function {value.__module__}.{value.__qualname__}", value, _function)
        elif kind in (classmethod, staticmethod):
            self._value(label, value.__func__)
        elif kind is property:
            for part in (value.fget, value.fset, value.fdel):
                self._value(label, part)
        elif isinstance(value, _CONTAINERS):
            if self._add(label, value, _items) and depth and len(value) < 2_000:
                for part in _items(value):
                    self._value(f"{label}[...]", part, depth - 1)
        elif depth and _own(value) is not None:
            self._add(label, value, _instance)

    def _type(self, cls):
        if self._add(f"class {cls.__module__}.{cls.__qualname__}", cls, _class):
            for key, value in list(vars(cls).items()):
                self._value(f"class {cls.__module__}.{cls.__qualname__}.{key}", value, depth=1)

    def after_fork(self):
        """Undo what forking does by itself: it seeds `random` anew."""
        random.setstate(self._state["random"])

    def pardon(self, changes):
        """Say nothing more of what these sentences of `changes` are about."""
        self._pardoned |= {change.rpartition(": ")[0] for change in changes}

    def changes(self):
        """Whatever is different now and not innocent, as sentences."""
        found = []
        for record in self._records:
            found += [change for change in record.changes() if not _innocent(change)]
        now = _state()
        found += [
            ("state", name, f"{_short(self._state[name])} became {_short(now[name])}")
            for name in now
            if now[name] != self._state[name]
        ]
        return [
            ": ".join(change) for change in found if ": ".join(change[:2]) not in self._pardoned
        ]

    def new_modules(self):
        return sorted(set(sys.modules) - set(self._modules))


def _innocent(change):
    label, name, _ = change
    if name == _WARNING_REGISTRY or _WARNING_REGISTRY in label:
        return True
    if label.endswith("._value2member_map_"):
        return True  # an enumeration remembers the combinations of its flags
    if name == "__slotnames__":
        return True  # copyreg remembers a class's slots when an instance is copied
    if label.startswith("module ") and label[7:] + "." + name in sys.modules:
        return True  # a submodule that was imported is set in its parent
    for where, what, _why in INNOCENT:
        if (label == where or label.startswith(where + ".")) and (
            name.startswith(what) or label[len(where) + 1 :].startswith(what or "\0")
        ):
            return True
    return False


def _state():
    """State that hides in C, or in objects that change in place."""
    state = {
        "random": random.getstate(),
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "recursion": sys.getrecursionlimit(),
        "umask": _umask(),
        "int digits": sys.get_int_max_str_digits(),
    }
    if "numpy" in sys.modules:
        state |= _numpy_state(sys.modules["numpy"])
    if "torch" in sys.modules:
        state |= _torch_state(sys.modules["torch"])
    return state


def _umask():
    mask = os.umask(0o77)
    os.umask(mask)
    return mask


def _numpy_state(np):
    kind, keys, *rest = np.random.get_state()
    shared = "?bhilqpBHILQPefdgFDGSUVOMm"
    return {
        "numpy.random": (kind, keys.tobytes(), *rest),
        "numpy errors": np.geterr(),
        "numpy printing": repr(np.get_printoptions()),
        "numpy dtypes": [_dtype(np.dtype(code)) for code in shared],
    }


def _dtype(d):
    order = (d.byteorder, d.itemsize, d.alignment, d.flags, d.kind, d.char, d.num)
    return (*order, d.names, repr(d.fields), d.metadata, d.hasobject, d.str)


def _torch_state(torch):
    return {
        "torch.random": torch.get_rng_state().numpy().tobytes(),
        "torch default dtype": torch.get_default_dtype(),
        "torch default device": str(torch.get_default_device()),
        "torch gradients": torch.is_grad_enabled(),
        "torch inference": torch.is_inference_mode_enabled(),
        "torch deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch precision": torch.get_float32_matmul_precision(),
        "torch threads": torch.get_num_threads(),
        "torch autocast": torch.is_autocast_enabled("cpu"),
        "torch invariants": torch.sparse.check_sparse_tensor_invariants.is_enabled(),
        "torch anomaly": torch.is_anomaly_enabled(),
    }
