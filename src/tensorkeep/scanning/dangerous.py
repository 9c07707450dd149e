"""Names that are known to do harm, and the words for it. Only the *severity* rests on this table.

Safety never does: what is on no allowlist is at least suspicious, whether it stands here or not.
A row is a module, or one name in it, and covers everything below; the longest row wins. A module
that honest checkpoints name classes of is listed by its harmful names only.
"""

from __future__ import annotations

from tensorkeep.pickles import Call, Global
from tensorkeep.scanning._danger_gains import GAINS
from tensorkeep.scanning._danger_more import METHODS, MORE
from tensorkeep.scanning._danger_names import GROUPS, RESOLVES

_TABLE: dict[str, str] = {
    name: words for words, names in (*MORE, *GROUPS) for name in names.split()
}
# A record of three numbers in a module of doors: the sizes of jagged tensors are marked with it.
_HARMLESS = frozenset({"torch._dynamo.decorators._DimRange"})
_LONGEST_ROW = 5  # parts; longer names are not looked up further, so that a long one costs no more

# Python 2 names that CPython maps in protocols 0 to 2 only; later they are tricks or mistakes.
_ALIASES = {"__builtin__": "builtins", "copy_reg": "copyreg", "_io": "io", "_pyio": "io"}

# A module's own imports are attributes of it: "torch.serialization" + "os" is os by another door.
_DOORS_TEXT = (
    "os sys subprocess builtins importlib shutil socket ctypes pickle marshal runpy posix nt pty "
    "io multiprocessing threading urllib inspect tempfile pkgutil zipfile functools operator "
    "warnings signal gc asyncio platform"
)
_DOORS = frozenset(_DOORS_TEXT.split())


def danger(module: str, name: str) -> str:
    """What a call of `module`.`name` is known to do ("would run Python code"), or ""."""
    full = f"{_ALIASES.get(module, module)}.{name}"
    if full in _HARMLESS:
        return ""
    parts = full.split(".", _LONGEST_ROW)[:_LONGEST_ROW]
    for length in range(len(parts), 0, -1):
        words = _TABLE.get(".".join(parts[:length]))
        if words:
            return words
    return METHODS.get(name.rpartition(".")[2], "") or behind_a_door(name)


def gain(module: str, name: str) -> str:
    """What whoever made the file gains from a call of `module`.`name`, a sentence, or ""."""
    return GAINS.get(danger(module, name), "")


def behind_a_door(name: str) -> str:
    """Words for a name that walks to a module, or into an object's machinery, by attributes."""
    parts = name.split(".")
    for index, part in enumerate(parts):
        if is_dunder(part):
            return RESOLVES
        door = part.lstrip("_")  # the standard library imports under such names: random._os
        if door in _DOORS:
            rest = ".".join([door, *parts[index + 1 : index + 2]])
            return _TABLE.get(rest) or _TABLE.get(door) or RESOLVES
    return ""


def is_dunder(name: str) -> bool:
    """Whether `name` belongs to Python's own machinery (`__globals__`, `__reduce__`)."""
    return name.startswith("__") and name.endswith("__")


# `torch/nn/modules/lazy.py` (2.13).
_LAZY_HOOKS = frozenset({"_infer_parameters", "_lazy_load_hook"})


def attribute_danger(args: object) -> str:
    """Words for `getattr(*args)`, "" for what protocol 2 honestly writes for a nested class.

    That is an attribute, by a plain name, of a class or module that the file names. A module with
    a layer that is lazy still keeps two of its own methods as hooks: those are no door either.
    """
    if type(args) is not tuple or len(args) != 2:
        return RESOLVES
    owner, name = args
    if isinstance(owner, Call) and type(name) is str and name in _LAZY_HOOKS:
        return ""
    if not isinstance(owner, Global) or owner.computed or type(name) is not str:
        return RESOLVES
    return danger(owner.module, f"{owner.name}.{name}")
