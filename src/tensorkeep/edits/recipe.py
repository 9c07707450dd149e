"""Recipes: edits in a TOML file, to be kept, read by people, and applied again.

    schema = 1

    [recipe]                        # if there is something to say
    name = "what it is for"
    section = "model"               # which part of a checkpoint it is for

    [[edit]]
    op = "rename"
    pattern = "h.{n}"
    to = "layers.{n}"

Edits apply in the order of the file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorkeep.edits.edit import Edit
from tensorkeep.edits.registry import BadField, edit_of, table_of
from tensorkeep.errors import BadArgument
from tensorkeep.stores._errors import mapped
from tensorkeep.stores.local import LocalSink
from tensorkeep.stores.opening import target_path

SCHEMA = 1
_HEADER = re.compile(r"\s*\[\[\s*edit\s*\]\]")
_ABOUT = ("name", "description", "section")


@dataclass(frozen=True)
class Recipe:
    """Edits in order, and what they are for. `section`: as for `convert`, None: the weights."""

    edits: tuple[Edit, ...]
    name: str = ""
    description: str = ""
    section: str | None = None


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """The recipe in a file. Raises `StoreError`, and `BadArgument` with file, line and field."""
    where = os.fspath(path)
    with mapped(where):
        data = Path(path).read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadArgument(
            where, expected="a recipe in UTF-8", got=error, remedy="Save it as UTF-8."
        ) from None
    return parse(text, where)


def parse(text: str, where: str = "a recipe") -> Recipe:
    """The recipe in `text`; `where` is its file, for messages. Raises `BadArgument`."""
    import tomllib

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadArgument(where, expected="TOML", got=error, remedy="Mend that line.") from None
    _check_top(table, text, where)
    about = table.get("recipe", {})
    edits = []
    for number, entry in enumerate(table.get("edit", [])):
        try:
            edits.append(edit_of(entry))
        except BadField as error:
            line = line_of(text, number, error.key)
            raise BadArgument(
                f"{where}{f', line {line}' if line else ''}: {error.subject}",
                expected=error.expected,
                got=error.got,
                remedy=error.remedy,
            ) from None
    return Recipe(tuple(edits), **about)


def _check_top(table: Mapping[str, Any], text: str, where: str) -> None:
    if table.get("schema") != SCHEMA or isinstance(table["schema"], bool):
        got = repr(table["schema"]) if "schema" in table else "none"
        raise BadArgument(
            where, expected=f"schema = {SCHEMA}", got=got, remedy="Write it into the first line."
        )
    about, entries = table.get("recipe", {}), table.get("edit", [])
    if not isinstance(about, dict):
        raise BadArgument(
            where,
            expected="[recipe] as a table",
            got=repr(about),
            remedy="Write name, description and section below a line [recipe].",
        )
    for key in (*(key for key in table if key not in ("schema", "recipe", "edit")), *about):
        known = ("schema", "[recipe]", "[[edit]]") if key in table else _ABOUT
        if key not in about or key not in _ABOUT:
            line = _line_of_key(text.splitlines(), key, 0)
            raise BadArgument(
                f"{where}, line {line}: field {key!r}",
                expected=", ".join(known),
                got=repr(key),
                remedy="Take it out, or mend its name.",
            )
    for key, value in about.items():
        if not isinstance(value, str):
            line = _line_of_key(text.splitlines(), key, 0)
            raise BadArgument(
                f"{where}, line {line}: field {key!r}",
                expected="a text",
                got=repr(value),
                remedy="Put it into quotes.",
            )
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadArgument(
            where,
            expected="[[edit]] tables",
            got=repr(entries),
            remedy="Write each edit below a line [[edit]].",
        )


def line_of(text: str, number: int, key: str) -> int:
    """The line, from 1, of `key` in the edit `number`, from 0; of its header if it is not there.

    0 if the edits are not written as `[[edit]]`. `tomllib` does not say where it found what.
    """
    lines = text.splitlines()
    starts = [at for at, line in enumerate(lines) if _HEADER.match(line) and _complete(lines[:at])]
    if number >= len(starts):
        return 0
    begin = starts[number]
    end = starts[number + 1] if number + 1 < len(starts) else len(lines)
    return _line_of_key(lines[:end], key, begin + 1) or begin + 1


def _line_of_key(lines: list[str], key: str, begin: int) -> int:
    """The first line, from 1, at or behind `begin` that sets `key` or opens a table of it; or 0."""
    name = rf"(?:{re.escape(key)}|\"{re.escape(key)}\"|'{re.escape(key)}')"
    sets = re.compile(rf"\s*(?:{name}\s*[=.]|\[+\s*(?:edit\s*\.\s*)?{name}\s*[\].])")
    return next((at + 1 for at in range(begin, len(lines)) if sets.match(lines[at])), 0)


def _complete(lines: list[str]) -> bool:
    """Whether no text over several lines is open behind `lines`."""
    import tomllib

    try:
        tomllib.loads("\n".join(lines) + "\n")
    except tomllib.TOMLDecodeError:
        return False
    return True


def to_toml(recipe: Recipe | Iterable[Edit]) -> str:
    """The file that `read_recipe` reads the same edits from. Raises `BadArgument`."""
    if not isinstance(recipe, Recipe):
        recipe = Recipe(tuple(recipe))
    blocks = [[f"schema = {SCHEMA}"]]
    about = {key: value for key in _ABOUT if (value := getattr(recipe, key))}
    if about:
        blocks.append(["[recipe]", *_lines(about)])
    blocks += [["[[edit]]", *_lines(table_of(edit))] for edit in recipe.edits]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def write_recipe(
    path: str | os.PathLike[str], recipe: Recipe | Iterable[Edit], *, overwrite: bool = False
) -> None:
    """Write the recipe; whole under its name or not at all. Raises `StoreError`, `BadArgument`."""
    data = to_toml(recipe).encode("utf-8")
    with LocalSink(Path(target_path(path)), overwrite=overwrite, size=len(data)) as sink:
        sink.write_at(0, data)
        sink.commit()


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_toml(value)}" for key, value in table.items() if value is not None]


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)


def _toml(value: object) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(_lines(value)) + " }" if value else "{}"
    raise BadArgument(
        "a recipe",
        expected="texts, numbers, lists and tables",
        got=repr(value),
        remedy="Give the edit fields of these.",
    )


def _text(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadArgument(
            "a recipe",
            expected="valid Unicode",
            got=repr(text),
            remedy="Use a pattern such as {name} for what cannot be written.",
        ) from None
    # Regular expressions are read more easily without doubled backslashes.
    if "\\" in text and text.isprintable() and "'" not in text:
        return f"'{text}'"
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
