"""CPython's own Python unpickler with every call and every change of an object written down.

`pickle._Unpickler` does what the C unpickler does, opcode for opcode, and lets one look. What
the allowlist does not name is a *violation*: a name looked up, a callable called, a method that
an opcode found in the instance's own attributes instead of its class.
"""

from __future__ import annotations

import importlib
import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING

from tensorkeep.scanning.allowlist import ENTRIES

_NATIVE = (list, dict, set, bytearray)


def _resolve(module, name):
    target = importlib.import_module(module)
    for part in name.split("."):
        target = getattr(target, part)
    return target


class Allowed:
    """The objects that the allowlist's entries are, by role. Needs what they name installed."""

    def __init__(self, entries=ENTRIES):
        self.names = set()
        self.call, self.instance = {}, {}
        self.absent = []
        for entry in entries:
            self.names.add((entry.module, entry.name))
            try:
                target = _resolve(entry.module, entry.name)
            except (ImportError, AttributeError):
                self.absent.append((entry.module, entry.name))
                continue
            if entry.call:
                self.call[id(target)] = target
            if entry.instance:
                self.instance[id(target)] = target


def resolved(module, name):
    """The name that CPython looks up for one of Python 2's (protocols below 3)."""
    return NAME_MAPPING.get((module, name)) or (IMPORT_MAPPING.get(module, module), name)


class Log:
    """What a load did: names looked up, calls, changes; and what of it was outside the list."""

    def __init__(self, allowed):
        self.allowed = allowed
        self.names, self.calls, self.violations = [], [], []

    def found(self, module, name):
        self.names.append((module, name))
        if (module, name) not in self.allowed.names:
            self.violations.append(f"name {module}.{name}")

    def asked(self, module, name):
        """As `found`, for a name whose protocol is not known: as written, or as mapped."""
        if resolved(module, name) not in self.allowed.names:
            self.found(module, name)

    def called(self, opcode, func):
        self.calls.append(func)
        table = self.allowed.instance if opcode.startswith("NEWOBJ") else self.allowed.call
        if id(func) not in table:
            self.violations.append(f"{opcode} of {_name(func)}")

    def changed(self, opcode, target, method):
        """An opcode is about to look `method` up in `target`."""
        own = getattr(target, "__dict__", None)
        if isinstance(target, type) or type(target).__name__ in _OUTSIDE:
            self.violations.append(f"{opcode} on {_name(target)}")
        elif type(own) is dict and method in own:
            self.violations.append(f"{opcode} calls the {method} that the file put there")


_OUTSIDE = ("function", "builtin_function_or_method", "module", "method_descriptor")


def _name(func):
    module, name = getattr(func, "__module__", None), getattr(func, "__qualname__", None)
    return f"{module}.{name}" if name else f"a {type(func).__name__}"


class Unpickler(pickle._Unpickler):
    """The Python unpickler; `log` is set by a subclass (see `module`)."""

    log = None
    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module, name):
        # As it is resolved: Python 2's names are mapped before the allowlist is asked.
        mapped = self.proto < 3 and self.fix_imports
        self.log.found(*(resolved(module, name) if mapped else (module, name)))
        return super().find_class(module, name)

    def load_reduce(self):
        self.log.called("REDUCE", self.stack[-2])
        pickle._Unpickler.load_reduce(self)

    def load_newobj(self):
        self.log.called("NEWOBJ", self.stack[-2])
        pickle._Unpickler.load_newobj(self)

    def load_newobj_ex(self):
        self.log.called("NEWOBJ_EX", self.stack[-3])
        pickle._Unpickler.load_newobj_ex(self)

    def _instantiate(self, klass, args):
        self.log.called("INST", klass)
        pickle._Unpickler._instantiate(self, klass, args)

    def load_build(self):
        self.log.changed("BUILD", self.stack[-2], "__setstate__")
        pickle._Unpickler.load_build(self)

    def load_append(self):
        self.log.changed("APPEND", self.stack[-2], "append")
        pickle._Unpickler.load_append(self)

    def load_appends(self):
        target = self.metastack[-1][-1]
        self.log.changed("APPENDS", target, "extend")
        self.log.changed("APPENDS", target, "append")
        pickle._Unpickler.load_appends(self)

    def load_setitem(self):
        self.log.changed("SETITEM", self.stack[-3], "__setitem__")
        pickle._Unpickler.load_setitem(self)

    def load_setitems(self):
        self.log.changed("SETITEMS", self.metastack[-1][-1], "__setitem__")
        pickle._Unpickler.load_setitems(self)

    def load_additems(self):
        self.log.changed("ADDITEMS", self.metastack[-1][-1], "add")
        pickle._Unpickler.load_additems(self)


for _opcode, _loader in {
    pickle.REDUCE: Unpickler.load_reduce,
    pickle.NEWOBJ: Unpickler.load_newobj,
    pickle.NEWOBJ_EX: Unpickler.load_newobj_ex,
    pickle.BUILD: Unpickler.load_build,
    pickle.APPEND: Unpickler.load_append,
    pickle.APPENDS: Unpickler.load_appends,
    pickle.SETITEM: Unpickler.load_setitem,
    pickle.SETITEMS: Unpickler.load_setitems,
    pickle.ADDITEMS: Unpickler.load_additems,
}.items():
    Unpickler.dispatch[_opcode[0]] = _loader


def logging_module(log):
    """Something that torch.load takes for the pickle module, whose unpickler writes to `log`."""
    made = type("Logging", (Unpickler,), {"log": log})

    class Module:
        Unpickler = made
        Pickler = pickle.Pickler
        UnpicklingError = pickle.UnpicklingError

        @staticmethod
        def load(file, **options):
            return made(file, **options).load()

    return Module
