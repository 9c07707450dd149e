"""What is odd about the names and links of a tar archive's members."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from tensorkeep.archives._notes import Notes
from tensorkeep.archives._tar_members import TarMember

Say = Callable[[str, str], None]


def note_member(member: TarMember, notes: Notes) -> None:
    """A name or a link that leads outside, and members that are neither files nor folders."""

    def say(kind: str, what: str) -> None:
        notes.add(kind, what, member.name, member.header_offset)

    _note_path(member.name, say)
    if member.kind in ("symlink", "hardlink"):
        _note_link(member, say)
    elif member.kind in ("device", "fifo"):
        say("device-member", f"a {member.kind}, which unpacking would create")
    elif member.kind == "sparse":
        say("sparse-member", "a file with holes: its bytes lie elsewhere than they say")
    elif member.kind == "other":
        say("unknown-member", "a type of member that readers treat differently")


def _note_path(name: str, say: Say) -> None:
    if name.startswith(("/", "\\")) or name[1:3] in (":/", ":\\"):
        say("absolute-path", "a name that begins at the root of a disk")
    if ".." in name.replace("\\", "/").split("/"):
        say("path-traversal", "a name with '..' in it")
    elif "\\" in name or "\0" in name:
        say("path-traversal", "a name with a backslash or a NUL in it")


def _note_link(member: TarMember, say: Say) -> None:
    base = posixpath.dirname(member.name) if member.kind == "symlink" else ""
    target = posixpath.normpath(posixpath.join(base, member.link))
    if target.startswith(("/", "../")) or target == ".." or "\\" in member.link:
        say("link-outside", f"a {member.kind} to {member.link[:200]!r}, outside the archive")
    else:
        say("link-member", f"a {member.kind} to {member.link[:200]!r}: some readers follow it")


def note_names(members: list[TarMember], notes: Notes) -> None:
    """Names that are there twice, or that differ in case only, or that lie below a link."""
    groups: dict[str, list[TarMember]] = {}
    for member in members:
        if member.kind != "directory":
            groups.setdefault(posixpath.normpath(member.name).lower(), []).append(member)
    for group in groups.values():
        if len(group) > 1:
            _note_group(group, notes)
    _note_below_links(members, notes)


def _note_group(group: list[TarMember], notes: Notes) -> None:
    last, names = group[-1], {member.name for member in group}
    if len(names) < len(group):
        what = f"{len(group)} members of this name; readers differ in which one they take"
        notes.add("duplicate-member", what, last.name, last.header_offset)
    if len(names) > 1:
        what = f"{len(names)} spellings of one name: on some disks one overwrites the other"
        notes.add("case-collision", what, last.name, last.header_offset)


def _note_below_links(members: list[TarMember], notes: Notes) -> None:
    links = {posixpath.normpath(m.name) for m in members if m.kind in ("symlink", "hardlink")}
    if not links:
        return
    for member in members:
        parts = posixpath.normpath(member.name).split("/")
        # A path of thousands of parts costs its square: what is that deep is odd enough.
        if len(parts) > 200 or any("/".join(parts[:n]) in links for n in range(1, len(parts))):
            what = "the member lies below a link: unpacked, it may land outside"
            notes.add("link-outside", what, member.name, member.header_offset)
