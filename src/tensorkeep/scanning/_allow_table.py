"""The table of allowed names, and what a value of a program is by it.

`allowlist` fills it from the `_allow_*` modules. It lies beneath them because a rule on an effect
has to ask what the values are that an object is given.
"""

from __future__ import annotations

from tensorkeep.pickles import Call, Global, Persistent
from tensorkeep.scanning._allow_kinds import Entry, native_kind

ALLOWED: dict[tuple[str, str], Entry] = {}


def entry_of(value: object) -> Entry | None:
    """The entry of a name that the file writes out; None for one that it computes."""
    if not isinstance(value, Global) or value.operands is not None:
        return None
    return ALLOWED.get((value.module, value.name))


def entry_for_call(call: Call) -> Entry | None:
    """The entry that says what `call` makes and which effects that bears.

    For copyreg's makers this is the entry of the class they are given.
    """
    func: object = call.func
    entry = entry_of(func)
    if entry is None or entry.module != "copyreg":
        return entry
    return entry_of(call.args[0]) if type(call.args) is tuple and call.args else None


def kind_of(value: object) -> str:
    """One word for what `value` would be, "" for what nothing here knows."""
    native = native_kind(value)
    if native:
        return native
    if isinstance(value, Persistent):
        return "storage"
    if isinstance(value, Global):
        entry = entry_of(value)
        return entry.reference if entry else ""
    if isinstance(value, Call):
        entry = entry_for_call(value)
        return entry.makes if entry else ""
    return ""
