"""Files that a pickle has a loader open, out of bytes of its own: each must have been judged."""

from __future__ import annotations

from tensorkeep.facts import Finding
from tensorkeep.formats.contents import Contents, place_of
from tensorkeep.pickles import Program
from tensorkeep.scanning._allow_kinds import is_named
from tensorkeep.scanning._allow_torch import given_bytes
from tensorkeep.scanning.words import Place, finding

_UNSEEN = "The bytes are a file that loading would run, and nothing here has looked into them"


def judge_unopened(contents: Contents) -> list[Finding]:
    """A finding if a program loads bytes that no reader has opened.

    The allowlist takes `torch.storage._load_from_bytes` on the word that its bytes are judged as
    a file; a format that does not open them must not make that word empty.
    """
    if contents.unreadable:
        return []  # the verdict is unknown at best
    opened = {place for place, _ in contents.nested}
    missing = [
        (where, offset)
        for where, program in contents.programs
        for offset in _loaded(program).values()
        if place_of(where, offset) not in opened
    ]
    if not missing:
        return []
    where, offset = missing[0]
    what = "would run a file in its own bytes: torch.storage._load_from_bytes(...)"
    return [finding("pickle/dangerous-call", Place(where, offset), what, _UNSEEN)]


def _loaded(program: Program) -> dict[bytes, int]:
    """The bytes that a program has opened as files, each with where it first does so."""
    found: dict[bytes, int] = {}
    for call in program.calls_of(lambda name: is_named(name, "torch.storage", "_load_from_bytes")):
        data = given_bytes(call.args[0]) if type(call.args) is tuple and call.args else None
        if data is not None:
            found.setdefault(data, call.offset)
    return found
