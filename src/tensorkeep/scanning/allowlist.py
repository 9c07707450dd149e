"""The names that a pickle may use and still be safe: exact entries, never a prefix.

What is not here is at least suspicious. A new entry goes into one of the `_allow_*`
modules, with a rule on its arguments, the effects that its instances bear, one sentence of
why it is harmless, and a test that shows who writes it.
"""

from __future__ import annotations

from tensorkeep.scanning import (
    _allow_dcp,
    _allow_deepspeed,
    _allow_enums,
    _allow_frameworks,
    _allow_jagged,
    _allow_joblib,
    _allow_modules,
    _allow_numpy,
    _allow_numpy_more,
    _allow_random,
    _allow_records,
    _allow_results,
    _allow_stdlib,
    _allow_torch,
    _allow_wrappers,
)
from tensorkeep.scanning._allow_kinds import Entry
from tensorkeep.scanning._allow_table import ALLOWED, entry_for_call, entry_of, kind_of

__all__ = ["ALLOWED", "ENTRIES", "Entry", "entry_for_call", "entry_of", "kind_of", "lookup"]

ENTRIES: tuple[Entry, ...] = (
    *_allow_torch.ENTRIES,
    *_allow_stdlib.ENTRIES,
    *_allow_numpy.ENTRIES,
    *_allow_numpy_more.ENTRIES,
    *_allow_records.ENTRIES,
    *_allow_results.ENTRIES,
    *_allow_wrappers.ENTRIES,
    *_allow_random.ENTRIES,
    *_allow_modules.ENTRIES,
    *_allow_dcp.ENTRIES,
    *_allow_deepspeed.ENTRIES,
    *_allow_joblib.ENTRIES,
    *_allow_jagged.ENTRIES,
    *_allow_enums.ENTRIES,
    *_allow_frameworks.ENTRIES,
)

ALLOWED.update({(entry.module, entry.name): entry for entry in ENTRIES})


def lookup(module: str, name: str) -> Entry | None:
    """The entry for exactly this name, or None."""
    return ALLOWED.get((module, name))
