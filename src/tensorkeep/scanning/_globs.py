"""Path patterns of the settings: `*` and `?` within a folder, `**` across folders, `[...]`."""

from __future__ import annotations

import re

from tensorkeep.errors import BadArgument


def pattern(glob: object, where: str) -> re.Pattern[str]:
    """What matches whole paths, with `/` between folders. Raises `BadArgument` for a bad glob."""
    if not isinstance(glob, str) or not glob:
        raise _bad(glob, where, "a path pattern", "Write it as text, for example 'models/**'.")
    try:
        return re.compile("".join(_pieces(glob, where)), re.DOTALL)
    except re.error as error:
        raise _bad(glob, where, "a path pattern", f"In the brackets: {error}.") from None


def _bad(glob: object, where: str, expected: str, remedy: str) -> BadArgument:
    return BadArgument(where, expected=expected, got=repr(glob), remedy=remedy)


def _pieces(glob: str, where: str) -> list[str]:
    pieces, at = [], 0
    while at < len(glob):
        char = glob[at]
        if glob.startswith("**", at):
            alone = (at == 0 or glob[at - 1] == "/") and glob[at + 2 : at + 3] in ("", "/")
            if not alone:
                remedy = "Write 'folder/**' or '**/name'."
                raise _bad(glob, where, "** as a whole part of the path", remedy)
            ends = at + 2 == len(glob)
            pieces.append(".*" if ends else "(?:.*/)?")
            at += 2 if ends else 3
        elif char == "[":
            text, at = _bracket(glob, at, where)
            pieces.append(text)
        else:
            pieces.append({"*": "[^/]*", "?": "[^/]"}.get(char) or re.escape(char))
            at += 1
    return pieces


def _bracket(glob: str, at: int, where: str) -> tuple[str, int]:
    end = glob.find("]", at + 2)
    if end < 0:
        raise _bad(glob, where, "a ] for every [", "Write [[] for the character itself.")
    inner = glob[at + 1 : end]
    negated = "^" if inner.startswith("!") else ""
    inner = inner[1:] if negated else inner
    return f"[{negated}{re.escape(inner).replace(chr(92) + '-', '-')}]", end + 1
