"""Which tensors of a checkpoint a verb takes, and the list of what it leaves out, with reasons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from tensorkeep.checkpoints import wholes
from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.sections import ALL
from tensorkeep.checkpoints.tensor import TensorRef
from tensorkeep.errors import Amplified, NothingSelected, Unwritable
from tensorkeep.facts import Limits

_EXEMPT = 1 << 30


def check_size(ckpt: Checkpoint, refs: Iterable[TensorRef], ratio: int, remedy: str) -> None:
    """Raise `Amplified` if `refs` fill over `ratio` times the bytes of the file, and over 1 GiB."""
    size = sum(ref.nbytes for ref in refs)
    if size > max(_EXEMPT, ratio * ckpt.size):
        raise Amplified(
            ckpt.path,
            expected=f"tensors of at most {ratio} times its {ckpt.size} bytes",
            got=f"{size} bytes of views",
            remedy=remedy,
        )


class Choice:
    """The tensors of a section, less what globs leave out.

    `chosen`: by their names inside `section`; `every`: with those that globs left out.
    `left_out`: pairs of a name and why. `notes`: sentences for the user. With `drop`, tensors that
    this version cannot read are left out too; with `values`, nothing is said of values that are no
    tensors: they are written.
    Raises `SelectionError`, `Unsupported`, `Unwritable`, and `Amplified` when the tensors are
    `limits.max_ratio` times as large as the file: a few bytes, expanded, can be terabytes.
    """

    def __init__(
        self,
        ckpt: Checkpoint,
        section: str | None,
        only: Sequence[str] = (),
        skip: Sequence[str] = (),
        *,
        drop: bool = False,
        values: bool = False,
        limits: Limits | None = None,
    ) -> None:
        self.ckpt = ckpt
        self.values = values
        self.globs = (only, skip)
        self.drop = drop
        self.left_out: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.section = ALL
        self.chosen: dict[str, TensorRef] = {}
        self.every: dict[str, TensorRef] = {}
        self._choose(section, only, skip, limits)

    def _choose(
        self,
        section: str | None,
        only: Sequence[str],
        skip: Sequence[str],
        limits: Limits | None,
    ) -> None:
        if self.ckpt.kind == "values" and section is None:
            self._leave_unread()  # its sentence says more than that there is nothing
        self.section, notes = self.ckpt.choose(section)
        self.notes += [*notes, *wholes.notes(self.ckpt.index, self.section)]
        self.chosen = self.ckpt.select(self.section)
        self.every = dict(self.chosen)
        self._leave_sections()
        if not self.values:
            self._leave_values()
        self._leave_unread()
        if not self.chosen and wholes.is_empty(self.ckpt.index):
            self.notes.append(wholes.empty(self.ckpt.index))
            return
        self._glob(only, skip)
        if not self.chosen:
            where = f"section {self.section!r}" if self.section else ""
            raise nothing(self.ckpt.path, where)
        ratio = (limits or Limits()).max_ratio
        check_size(self.ckpt, self.chosen.values(), ratio, "Leave out the expanded ones: --skip.")

    def _leave_sections(self) -> None:
        if self.section == ALL:
            return
        for other in self.ckpt.sections:
            if other.name != self.section:
                self.left_out.append((other.name, f"section of {other.tensors} tensors"))

    def _leave_values(self) -> None:
        counts: dict[str, int] = {}
        known = {part.name for part in self.ckpt.sections}
        for path, _ in self.ckpt.index.leaves:
            name = str(path[0]) if path else "value"
            # The values of a section that is left out go with it.
            if self.section in (ALL, name) or name not in known:
                counts[name] = counts.get(name, 0) + 1
        for name, count in counts.items():
            self.left_out.append((name, "not a tensor" if count == 1 else f"{count} values"))

    def _leave_unread(self) -> None:
        unread = self.ckpt.unread(self.section)
        if unread and not self.drop:
            name, why = unread[0]
            packed = wholes.packed(self.ckpt.index, self.section)
            before = "Convert the model as it was before it was quantised, or leave"
            raise Unwritable(
                self.ckpt.path,
                expected="tensors that this version reads",
                got=(f"{packed}: " if packed else "")
                + (f"{why} and {len(unread) - 1} more" if len(unread) > 1 else why),
                where=name,
                remedy=f"{before if packed else 'Leave'} such tensors out with --drop-unsupported.",
            )
        self.left_out += unread

    def _glob(self, only: Sequence[str], skip: Sequence[str]) -> None:
        for pattern in [*only, *skip]:
            if not any(fnmatchcase(name, pattern) for name in self.chosen):
                self.notes.append(f"no name matches {pattern!r}")
        for name in list(self.chosen):
            why = self.why_not(name)
            if why:
                del self.chosen[name]
                self.left_out.append((name, why))

    def why_not(self, name: str) -> str:
        """Why globs leave out what is called `name` inside the section; "" if they do not."""
        only, skip = self.globs
        if only and not any(fnmatchcase(name, pattern) for pattern in only):
            return "not in --only"
        return "in --skip" if any(fnmatchcase(name, pattern) for pattern in skip) else ""


def nothing(subject: str, where: str) -> NothingSelected:
    """The error that nothing is left to be done."""
    return NothingSelected(
        subject,
        expected="at least one tensor",
        got="none",
        where=where,
        remedy="List the names with: tensorkeep inspect --tensors.",
    )
