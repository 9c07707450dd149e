"""Objects of trusted classes, made and filled as Python's unpickler does it.

Every method that is called is one of the class: what a file put into an object is never called.
"""

from __future__ import annotations

import enum
import types
from typing import Any

from tensorkeep.pickles import Call, Effect, Global

# An effect on one of these would last beyond the file.
_SHARED = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, enum.Enum)
_BASES: dict[str, type] = {
    f"builtins.{kind.__name__}": kind
    for kind in (dict, list, set, frozenset, tuple, int, float, str, bytes, complex, bytearray)
}
_METHODS = {"APPEND": "append", "APPENDS": "append", "ADDITEMS": "add"}
_Args = tuple[Any, ...]


def new(call: Call, kind: object, args: _Args, kwargs: dict[str, Any]) -> object:
    """What `call` makes of the class or function `kind`.

    `args` are without the classes that one of copyreg's makers is given. Raises what `kind` does.
    """
    asked: Any = kind
    maker = call.func.qualified if isinstance(call.func, Global) else ""
    if maker == "copyreg.__newobj__" or call.kind.startswith("NEWOBJ"):
        return asked.__new__(asked, *args, **kwargs)
    if maker == "copyreg.__newobj_ex__":
        return asked.__new__(asked, *args[0], **args[1])
    if maker == "copyreg._reconstructor":
        return _reconstructed(call, asked, args)
    return asked(*args)


def _reconstructed(call: Call, asked: type, args: _Args) -> object:
    """As `copyreg._reconstructor(asked, base, value)`: protocols 0 and 1."""
    base = call.args[1] if isinstance(call.args, tuple) and len(call.args) == 3 else None
    kind: Any = None
    if isinstance(base, Global) and not base.computed:
        kind = _BASES.get(base.qualified)
    if kind is None:
        return object.__new__(asked)
    made = kind.__new__(asked, args[0])
    if kind.__init__ is not object.__init__:
        kind.__init__(made, args[0])
    return made


def change(made: object, effect: Effect, given: list[object]) -> None:
    """What `effect` does to an object just made; `given` are its arguments.

    Raises `TypeError` for what would last beyond the file, and what the class raises.
    """
    if isinstance(made, _SHARED):
        raise TypeError("the file would change what others use, too")
    kind: Any = type(made)
    if effect.kind == "BUILD":
        _set_state(made, given[0])
    elif effect.kind.startswith("SETITEM"):
        for key, value in zip(given[::2], given[1::2], strict=True):
            kind.__setitem__(made, key, value)
    else:
        put = getattr(kind, _METHODS[effect.kind])
        for item in given:
            put(made, item)


def _set_state(made: object, state: object) -> None:
    setter = getattr(type(made), "__setstate__", None)
    if setter is not None:
        setter(made, state)
        return
    slots: object = None
    if isinstance(state, tuple) and len(state) == 2:
        state, slots = state
    if state:
        if not isinstance(state, dict):
            raise TypeError(f"a state that is a {type(state).__name__}")
        vars(made).update(state)
    for key, value in slots.items() if isinstance(slots, dict) else ():
        # Only what is a slot: anything else would call a property, or change the class.
        if not isinstance(getattr(type(made), key, None), types.MemberDescriptorType):
            raise TypeError(f"{key!r}, which is no slot of it")
        setattr(made, key, value)
