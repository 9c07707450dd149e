"""What a verb asks of its source before it begins."""

from __future__ import annotations

from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.errors import NotSafe
from tensorkeep.facts import Verdict
from tensorkeep.scanning.examining import judge


def check_safe(
    ckpt: Checkpoint, require: str | None, called: str = "the source"
) -> tuple[Verdict, list[str]]:
    """The verdict on `ckpt`, and a note where it is not safe, in which it is `called` so.

    With `require` "safe", raises `NotSafe` then.
    """
    verdict, findings = judge(ckpt, audit=require is not None)
    if require == "safe" and verdict != "safe":
        raise NotSafe(
            ckpt.path,
            expected="a file that a scan calls safe",
            got=f"{verdict}: {findings[0].what}" if findings else verdict,
            remedy="See what the file would do: tensorkeep scan.",
        )
    if verdict == "safe":
        return verdict, []
    return verdict, [f"{called} is {verdict}: {findings[0].what}; nothing of it was run"]
