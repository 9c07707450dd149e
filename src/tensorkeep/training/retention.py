"""Deleting what a policy does not keep, and never the last checkpoint that is good.

Before anything is deleted, everything that is to stay has been read back and compared with its
digests once, in this process. What is damaged does not count: the policy is asked again without it,
so that damage makes more stay, never less. Damaged checkpoints are left where they are.
"""

from __future__ import annotations

import warnings

from tensorkeep.checkpoints.keeping import Entry, KeepAll, Policy
from tensorkeep.checkpoints.manifest import Manifest
from tensorkeep.checkpoints.run_contents import entry_of
from tensorkeep.checkpoints.runs import RunFolder, Saved
from tensorkeep.errors import TensorkeepError, TensorkeepWarning
from tensorkeep.stores import commit


class Retention:
    """The policy of a run, and which of its checkpoints are known to be whole."""

    def __init__(self, folder: RunFolder, policy: Policy) -> None:
        self._folder, self._policy = folder, policy
        # A checkpoint by its step and what its manifest says of it, to how that was found.
        self._whole: dict[tuple[int, str], bool] = {}

    def apply(self, newest: Manifest | None = None) -> list[int]:
        """Delete what is not kept; returns the steps. A deletion that fails is a warning."""
        deleted = []
        for saved in self.plan(newest):
            try:
                commit.delete(saved.path)
                deleted.append(saved.step)
            except TensorkeepError as error:
                # The training must go on; the next save tries again.
                warnings.warn(TensorkeepWarning(f"not deleted: {error}"), stacklevel=2)
        return deleted

    def plan(self, newest: Manifest | None = None) -> list[Saved]:
        """What would be deleted, oldest first; empty unless something good stays."""
        if isinstance(self._policy, KeepAll):
            return []
        entries = self._entries()
        while entries:
            steps = [entry for entry, _ in entries]
            keep = self._policy.keeps(steps) | {steps[-1].step}
            keep |= {newest.step} if newest is not None else set()
            doomed = [saved for entry, saved in entries if entry.step not in keep]
            if not doomed:
                return []
            damaged = {e.step for e, saved in entries if e.step in keep and not self.whole(saved)}
            if not damaged:
                return doomed
            entries = [pair for pair in entries if pair[0].step not in damaged]
        return []

    def _entries(self) -> list[tuple[Entry, Saved]]:
        found = []
        for saved in self._folder.in_time():
            try:
                found.append((entry_of(saved), saved))
            except TensorkeepError:
                continue  # damaged: it neither counts nor goes
        return found

    def whole(self, saved: Saved) -> bool:
        """Whether every byte is as the manifest says; read once."""
        key = saved.step, saved.manifest.created
        if key not in self._whole:
            self._whole[key] = next(saved.damage(), None) is None
        return self._whole[key]
