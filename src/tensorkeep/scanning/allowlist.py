"""The names that a pickle may use and still be safe: exact entries, never a prefix.

What is not here is at least suspicious. A new entry goes into `_allow_torch`, `_allow_stdlib` or
`_allow_numpy`, with a rule on its arguments, the effects that its instances bear, one sentence of
why it is harmless, and a test that shows who writes it.
"""

from __future__ import annotations

from tensorkeep.pickles import Call, Global, Persistent
from tensorkeep.scanning import _allow_numpy, _allow_stdlib, _allow_torch
from tensorkeep.scanning._allow_kinds import Entry, native_kind

__all__ = ["ALLOWED", "ENTRIES", "Entry", "entry_for_call", "entry_of", "kind_of", "lookup"]

ENTRIES: tuple[Entry, ...] = (
    *_allow_torch.ENTRIES,
    *_allow_stdlib.ENTRIES,
    *_allow_numpy.ENTRIES,
)

ALLOWED: dict[tuple[str, str], Entry] = {(entry.module, entry.name): entry for entry in ENTRIES}


def lookup(module: str, name: str) -> Entry | None:
    """The entry for exactly this name, or None."""
    return ALLOWED.get((module, name))


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
