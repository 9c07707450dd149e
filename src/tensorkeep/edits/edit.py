"""What an edit is. Each is a frozen record: the same object is code, flag, recipe line and JSON.

An edit's file stands in `edits/`, its line in `edits/recipe.py`'s table.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from tensorkeep.edits.inventory import Inventory


class Edit(Protocol):
    """A change of names or values, planned on the index, applied while bytes stream.

    `op` is its name in recipes; its fields are the recipe's keys.
    """

    op: ClassVar[str]

    def apply(self, inventory: Inventory) -> None:
        """Change `inventory`; no tensor is read. Raises `TensorkeepError`; notes what it missed."""

    def inverse(self) -> Edit | None:
        """The edit that takes this one back, or None where it forgets something."""
