"""What the JSON of an exported program asks its loader for: operators, expressions, imports.

Source: `torch/_export/serde` (`schema.py`, `serialize.py`), `torch/export/_unlift.py` and
`torch/utils/_pytree.py` of torch 2.13. The loader looks operators up by their dotted names,
gives symbolic sizes to sympy, which evaluates them as Python, makes a function of the guards,
and imports the classes that a tree of inputs names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

# A context inside a tree inside a field is JSON in JSON in JSON.
_DEEPEST = 4
_KEYS = ("in_spec", "out_spec")


def parsed(text: bytes | str) -> object:
    """The JSON in `text`; None if it is none."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value


def requests(program: object) -> Iterator[tuple[str, str]]:
    """Kind and text of all that `program` asks for, each once.

    Kinds: "target" (a dotted name that is called), "expression" (sympy), "guard" (Python),
    "import" (module and name).
    """
    seen: set[tuple[str, str]] = set()
    for found in _walk(program):
        if found not in seen:
            seen.add(found)
            yield found


def _walk(program: object) -> Iterator[tuple[str, str]]:
    todo: list[tuple[object, int]] = [(program, 0)]
    while todo:
        value, depth = todo.pop()
        if isinstance(value, dict):
            yield from _asked(value)
            for key, item in value.items():
                spec = key in _KEYS or depth > 0
                todo.append((_inner(item) if spec and depth < _DEEPEST else item, depth + spec))
        elif isinstance(value, list):
            for item in value:
                todo.append((_inner(item) if 0 < depth < _DEEPEST else item, depth + (depth > 0)))


def _inner(item: object) -> object:
    """The JSON that a text inside a tree is, or the item itself."""
    return parsed(item) if isinstance(item, str) and item[:1] in ("{", "[") else item


def _asked(value: dict[str, object]) -> Iterator[tuple[str, str]]:
    target, expression = value.get("target"), value.get("expr_str")
    if isinstance(target, str) and "inputs" in value:
        yield "target", target
    if isinstance(expression, str):
        yield "expression", expression
    guards = value.get("guards_code")
    for guard in guards if isinstance(guards, list) else ():
        yield "guard", str(guard)
    if "default_factory_module" in value:
        name = f"{value['default_factory_module']}.{value.get('default_factory_name')}"
        yield "import", name
    if "__enum__" in value:
        yield "import", str(value.get("fqn")).replace(":", ".", 1)
