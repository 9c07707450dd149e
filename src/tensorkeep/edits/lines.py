"""An edit on one line, as `convert --edit` takes it: the op, then the recipe's keys.

    resize pattern=wte size=50304 fill=mean
    fuse parts=q_proj,k_proj,v_proj to=qkv layout=per-head heads=12

What a value is follows from its field, so that texts need no quotes. Commas part the items of a
list; quotes, single or double, keep blanks and commas in a text. A backslash is a backslash.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tensorkeep.edits.edit import Edit
from tensorkeep.edits.registry import BadField, edit_of, kind, table_of
from tensorkeep.errors import BadArgument

_TRUTH = {"true": True, "false": False}


@dataclass
class _Word:
    """What stands between two blanks, cut at the commas outside of quotes.

    `items` hold the texts without their quotes; `quoted` says whether there were any.
    """

    items: list[str]
    quoted: bool = False

    @property
    def text(self) -> str:
        """As one text."""
        return ",".join(self.items)

    @property
    def listed(self) -> list[str]:
        """As a list: nothing at all is an empty one."""
        return self.items if self.quoted or self.items != [""] else []


def parse_line(text: str) -> Edit:
    """The edit that `text` says. Raises `BadArgument`, which names the op and the field."""
    try:
        words = _words(text)
        op = words[0].text if words else ""
        return edit_of(_table(op, words[1:]))
    except BadField as error:
        raise BadArgument(
            f"the edit {text!r}" + (f": {error.subject}" if error.subject != "op" else ""),
            expected=error.expected,
            got=error.got,
            remedy=error.remedy,
        ) from None


def _words(text: str) -> list[_Word]:
    """The words of `text`. Raises `BadArgument` for a quote without its end."""
    words: list[_Word] = []
    quote, inside = "", False
    for char in text:
        if quote and char != quote:
            words[-1].items[-1] += char
        elif not quote and char.isspace():
            inside = False
        else:
            if not inside:
                words.append(_Word([""]))
                inside = True
            if char in "\"'":
                quote, words[-1].quoted = "" if quote else char, True
            elif char == ",":
                words[-1].items.append("")
            else:
                words[-1].items[-1] += char
    if quote:
        raise BadArgument(
            f"the edit {text!r}",
            expected=f"a second {quote}",
            got="one",
            remedy=f"Put a {quote} that is meant into quotes of the other kind.",
        )
    return words


def _table(op: str, words: list[_Word]) -> dict[str, Any]:
    hints = get_type_hints(kind(op))
    table: dict[str, Any] = {"op": op}
    for word in words:
        head, *rest = word.items
        key, equals, first = head.partition("=")
        if not equals or not key:
            raise _odd(op, key, f"FIELD=VALUE after {op!r}", repr(word.text))
        if key in table:
            raise _odd(op, key, f"the field {key!r} once", "it twice", "Part items by commas.")
        table[key] = _value(_Word([first, *rest], word.quoted), hints.get(key, str))
    return table


def _odd(op: str, key: str, expected: str, got: str, remedy: str = "") -> BadField:
    remedy = remedy or "Put a value with blanks in it into quotes."
    error = BadField(op, expected=expected, got=got, remedy=remedy)
    error.key = key
    return error


def _value(word: _Word, hint: Any) -> object:  # noqa: ANN401
    """What `word` is as a value of `hint`; its text if it is none, which `edit_of` refuses."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        lists = any(get_origin(one) is tuple for one in inner)
        if str in inner and (len(word.items) == 1 or not lists):
            return word.text
        made = (_value(word, one) for one in inner if one not in (str, types.NoneType))
        return next((value for value in made if not isinstance(value, str)), word.text)
    if origin is tuple:
        return [_value(_Word([item]), inner[0]) for item in word.listed]
    if origin is Literal:
        return next((one for one in inner if str(one) == word.text), word.text)
    if hint is bool:
        return _TRUTH.get(word.text, word.text)
    if hint in (int, float):
        return _number(word.text, hint)
    return word.text


def _number(text: str, hint: type[int] | type[float]) -> object:
    try:
        return hint(text)
    except ValueError:
        return text


def to_line(edit: Edit) -> str:
    """The line that `parse_line` reads `edit` from. Raises `BadArgument` for tables in it."""
    table = table_of(edit)
    return " ".join([_quoted(table.pop("op")), *(f"{key}={_text(table[key])}" for key in table)])


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        # One item in quotes is a list as well; none is no text at all.
        return ",".join(map(_text, value)) if value else ""
    if isinstance(value, Mapping):
        raise BadArgument(
            "an edit on one line",
            expected="texts, numbers and lists",
            got="a table",
            remedy="Write it into a recipe.",
        )
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    """`text` such that it is read whole: in quotes where something in it would be cut."""
    if text and not set(text) & set("\"',") and not any(char.isspace() for char in text):
        return text
    # What holds both kinds of quotes is put together, as in a shell.
    return '"\'"'.join(f"'{part}'" for part in text.split("'"))
