"""The header of a .npy file: a Python literal, read by a grammar of its own.

Source: numpy's `lib/format.py` (NEP 1). numpy hands the text to `ast.literal_eval`; what it means
to write is a dictionary of text, True and False, whole numbers, tuples and lists of these, and
nothing else is taken here. Numbers of Python 2 may have an L behind them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tensorkeep.errors import Damaged

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'[^'\\\n]*'|\"[^\"\\\n]*\")|(?P<number>-?\d{1,25})L?|(?P<word>True|False|None)"
    r"|(?P<sign>[{}()\[\],:])|(?P<end>\Z))"
)
_WORDS = {"True": True, "False": False, "None": None}
_DEEPEST = 16
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def parse(text: str, name: str) -> dict[object, object]:
    """The dictionary that the header is. Raises `Damaged` if it is none."""
    parser = _Parser(text, name)
    value = parser.value(next(parser.tokens, ("end", "")), 0)
    kind, _ = next(parser.tokens, ("end", ""))
    if not isinstance(value, dict) or kind != "end":
        raise parser.odd()
    return value


class _Parser:
    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.at = 0
        self.tokens = self._tokens(text)

    def _tokens(self, text: str) -> Iterator[tuple[str, str]]:
        while True:
            match = _TOKEN.match(text, self.at)
            if match is None:
                raise self.odd()
            self.at = match.end()
            kind = match.lastgroup or "end"
            yield kind, match[kind]
            if kind == "end":
                return

    def odd(self) -> Damaged:
        """The error of a text that is no header."""
        return Damaged(
            self.name,
            expected="a header as numpy writes it",
            got="other text",
            where=f"character {self.at} of the header",
        )

    def value(self, token: tuple[str, str], depth: int) -> object:
        """The value that begins with `token`."""
        kind, text = token
        if kind == "text":
            return text[1:-1]
        if kind == "number":
            return int(text)
        if kind == "word":
            return _WORDS[text]
        if kind != "sign" or text not in _CLOSING or depth >= _DEEPEST:
            raise self.odd()
        if text == "{":
            return self._dict(depth)
        items, commas = self._items(_CLOSING[text], depth)
        # Brackets around one value without a comma group it, as in Python.
        if text == "(" and len(items) == 1 and not commas:
            return items[0]
        return tuple(items) if text == "(" else items

    def _items(self, closing: str, depth: int) -> tuple[list[object], bool]:
        items: list[object] = []
        commas = False
        while True:
            token = next(self.tokens)
            if token == ("sign", closing):
                return items, commas
            items.append(self.value(token, depth + 1))
            token = next(self.tokens)
            if token == ("sign", closing):
                return items, commas
            if token != ("sign", ","):
                raise self.odd()
            commas = True

    def _dict(self, depth: int) -> dict[object, object]:
        found: dict[object, object] = {}
        while True:
            token = next(self.tokens)
            if token == ("sign", "}"):
                return found
            key = self.value(token, depth + 1)
            if not isinstance(key, str) or next(self.tokens) != ("sign", ":"):
                raise self.odd()
            found[key] = self.value(next(self.tokens), depth + 1)
            token = next(self.tokens)
            if token == ("sign", "}"):
                return found
            if token != ("sign", ","):
                raise self.odd()
