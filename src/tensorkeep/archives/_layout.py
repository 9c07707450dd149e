"""What is odd about names and about where members lie, seen from the directory alone."""

from __future__ import annotations

import re
from itertools import pairwise

from tensorkeep.archives._entries import ZipMember
from tensorkeep.archives._notes import Notes
from tensorkeep.archives._records import LOCAL, LONGEST_GAP

_ESCAPES = re.compile(r"\\|\0|\A/|\A[A-Za-z]:/|(?:\A|/)\.\.(?:/|\Z)")
# No name is odd that has none of these in it, a line end put before and after each name.
_SIGNS = ("\\", "\0", "..", "\n/", ":/", "/\n")


def note_names(members: list[ZipMember], notes: Notes) -> None:
    """Names that leave the folder they are unpacked into, end early, or hide bytes in a folder."""
    # One search over all names at once: a pattern tried on each costs more than reading them.
    joined = "\n".join(["", *[member.name for member in members], ""])
    if not any(sign in joined for sign in _SIGNS):
        return
    for member in members:
        if _ESCAPES.search(member.name):
            what = "the name has '..', a backslash, a NUL or a leading '/' in it"
            notes.add("path-traversal", what, member.name, member.header_offset)
        if member.size and member.name.endswith("/"):
            what = f"the name of a folder, with {member.size} bytes: torch leaves them unread"
            notes.add("directory-with-data", what, member.name, member.header_offset)


def note_collisions(members: list[ZipMember], keys: list[bytes], notes: Notes) -> set[bytes]:
    """Note names that are there twice; the keys of all of them."""
    groups: dict[bytes, list[ZipMember]] = {}
    for member, key in zip(members, keys, strict=True):
        groups.setdefault(key, []).append(member)
    several = {key: group for key, group in groups.items() if len(group) > 1}
    for group in several.values():
        _note_group(group, notes)
    return set(several)


def _note_group(group: list[ZipMember], notes: Notes) -> None:
    last = group[-1]
    names = {member.name for member in group}
    if len(names) < len(group):
        what = f"{len(group)} members answer to this name; readers differ in which one they take"
        notes.add("duplicate-member", what, last.name, last.header_offset)
    if len(names) > 1:
        what = f"{len(names)} names that differ in case only, and torch's lookup ignores case"
        notes.add("case-collision", what, last.name, last.header_offset)


def note_roots(members: list[ZipMember], root: str, notes: Notes) -> None:
    """Members of a torch archive that lie outside its root folder, where torch never looks."""
    prefix = root + "/"
    for member in members:
        if not member.name.startswith(prefix):
            what = "the member lies outside the root folder that the first member names"
            notes.add("several-roots", what, member.name, member.header_offset)


def note_edges(
    members: list[ZipMember], directory_offset: int, orderly: bool, notes: Notes
) -> None:
    """Bytes that no member accounts for, and members that lie in each other."""
    placed = members if orderly else sorted(members, key=lambda member: member.header_offset)
    if placed and placed[0].header_offset:
        what = f"{placed[0].header_offset} bytes lie before the first member"
        notes.add("prefix-bytes", what, "", 0)
    if not orderly:
        _note_gaps(placed, notes)
    if placed:
        last = max(placed, key=least_end) if not orderly else placed[-1]
        _note_gap(last, directory_offset, notes)
    elif directory_offset:
        notes.add("prefix-bytes", f"{directory_offset} bytes lie before the directory", "", 0)


def least_end(member: ZipMember) -> int:
    """The first offset behind the member if it has no local extra field and no descriptor."""
    name = len(member.name.encode("utf-8", "surrogateescape"))
    return member.header_offset + LOCAL.size + name + member.compressed_size


def _note_gaps(placed: list[ZipMember], notes: Notes) -> None:
    for member, following in pairwise(placed):
        _note_gap(member, following.header_offset, notes)


def _note_gap(member: ZipMember, following: int, notes: Notes) -> None:
    end = least_end(member)
    if end > following:
        what = f"the member reaches {end - following} bytes into what follows it"
        notes.add("overlapping-members", what, member.name, member.header_offset)
    elif following - end > LONGEST_GAP:
        what = f"{following - end} bytes that no member accounts for"
        notes.add("unlisted-bytes", what, member.name, end)
