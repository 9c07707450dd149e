"""Options of `convert` that are edits: what people do most has a name, `--edit` says every other.

An option that is not listed is a recipe's table on one line: `lines`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tensorkeep.edits.edit import Edit
from tensorkeep.edits.lines import parse_line
from tensorkeep.edits.names import renaming
from tensorkeep.edits.registry import edit_of

# Option: the op and the field that its text is for; no field for those that take no text.
NAMED = {
    "strip": ("strip", "prefix"),
    "add_prefix": ("add-prefix", "prefix"),
    "drop": ("drop", "pattern"),
    "merge_lora": ("merge-lora", "adapter"),
    "fold_weight_norm": ("fold-weight-norm", ""),
    "dequantize": ("dequantize", ""),
}
# Given several times it is one edit, as one mean of all is not a mean of means.
_TOGETHER = {"average": ("average", "others")}
_WRITTEN: dict[str, Callable[[str], Edit]] = {"edit": parse_line, "rename": renaming}
OPTIONS = (*_WRITTEN, *NAMED, *_TOGETHER)


def flagged(given: Iterable[tuple[str, Any]]) -> list[Edit]:
    """The edits that options mean: pairs of an option's name and value, in order.

    What belongs together stands where the first of it was given. Raises `BadArgument`.
    """
    pairs = list(given)
    made, done = [], set()
    for option, value in pairs:
        if option in _WRITTEN:
            made.append(_WRITTEN[option](value))
        elif option in NAMED:
            op, field = NAMED[option]
            made.append(edit_of({"op": op, field: value} if field else {"op": op}))
        elif option not in done:
            op, field = _TOGETHER[option]
            done.add(option)
            made.append(
                edit_of({"op": op, field: [text for name, text in pairs if name == option]})
            )
    return made
