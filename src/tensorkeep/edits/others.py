"""Other checkpoints that an edit takes tensors from: opened once, open until all is written."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType

from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.opening import open_checkpoint
from tensorkeep.edits.inventory import Inventory
from tensorkeep.facts import Limits


class Others:
    """Use it in a `with` block around the edits and the writing.

    `checkpoints`: what was opened so far; `notes`: what the user should know of them, such as
    which section was taken.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._stack = ExitStack()
        self._limits = limits
        self._opened: dict[str, Inventory] = {}
        self.checkpoints: list[Checkpoint] = []
        self.notes: list[str] = []

    def open(self, path: str) -> Inventory:
        """The weights of the checkpoint at `path`, by the names of its section.

        Raises `ReadError`, `StoreError`, `SelectionError`.
        """
        if path not in self._opened:
            ckpt = self._stack.enter_context(open_checkpoint(path, limits=self._limits))
            self.checkpoints.append(ckpt)
            section, notes = ckpt.choose(None)
            notes = [*ckpt.contents.notes, *ckpt.index.swept.notes, *notes]
            self.notes += [f"{path}: {note}" for note in notes]
            self._opened[path] = Inventory.of(path, ckpt.select(section))
        return self._opened[path]

    def __enter__(self) -> Others:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
