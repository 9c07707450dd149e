"""Judges what the JSON of an exported program asks its loader for.

An expression of sizes is evaluated as Python, so it may hold numbers, symbols and functions that
compute, and nothing by which an object is reached from another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from tensorkeep.formats.contents import Code
from tensorkeep.scanning._operators import COMPUTES, HARMFUL, KNOWN_NAMESPACES
from tensorkeep.scanning.dangerous import danger

OUTSIDE, UNKNOWN = "code/reaches-outside", "code/unknown-operator"
_OPERATOR = re.compile(r"torch\.ops\.(\w+)\.(\w+)(?:\.\w+)?")
_PLAIN = re.compile(
    r"math\.[a-z][a-z0-9]*|torch\._?sym_\w+"
    r"|_operator\.(?:add|sub|mul|floordiv|truediv|mod|pow|neg|pos|abs|and_|or_|xor|not_|invert"
    r"|lshift|rshift|eq|ne|lt|le|gt|ge|getitem|index|matmul|truth|is_|is_not|contains)"
)
_HIGHER = "higher_order"  # control flow over graphs of the same file

# What an expression may consist of. No dot but in a number, no bracket, no text but a name.
_TOKENS = re.compile(
    r"\s+|[A-Za-z_]\w*|\d+(?:\.\d*)?(?:e[+-]?\d+)?|\*\*|//|[-+*/%(),=<>!&|~]|'[A-Za-z_]\w*'"
)
_CALLS = re.compile(r"([A-Za-z_]\w*)\s*\(")
# A guard may look at the sizes of an input: L['x'][0].size()[1].
_INPUT = re.compile(
    r"L(?:\['\w+'\]|\[\"\w+\"\]|\[\d+\])+(?:\.(?:size|stride|storage_offset|item)\(\)|\.shape)?(?:\[\d+\])?"
)
_FUNCTIONS_TEXT = """
    Symbol Integer Float Rational Add Mul Pow Max Min Abs Eq Ne Lt Le Gt Ge And Or Not Mod
    Piecewise floor ceiling sqrt log exp sin cos tan FloorDiv ModularIndexing Where PythonMod
    CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift PowByNatural FloatPow FloatTrueDiv
    IntTrueDiv IsNonOverlappingAndDenseIndicator TruncToFloat TruncToInt RoundToInt RoundDecimal
    ToFloat Identity StrictLessThan LessThan GreaterThan StrictGreaterThan Equality Unequality
    Relational min max abs not and or
"""
_FUNCTIONS = frozenset(_FUNCTIONS_TEXT.split())
_FACTORIES = frozenset(
    f"builtins.{name}" for name in ("int", "float", "list", "dict", "set", "str", "tuple", "bool")
)
_FRAMEWORKS = frozenset(
    {"nemo", "torch", "pytorch_lightning", "lightning", "omegaconf", "transformers", "torchvision"}
)


def requests_of(code: Code) -> Iterator[tuple[str, str, str, str]]:
    """Rule, name, sentence and reason for each request that is not in order."""
    for line in code.text.splitlines():
        kind, _, text = line.partition(" ")
        value = json.loads(text)
        found = _JUDGES[kind](value)
        if found is not None:
            rule, why = found
            yield rule, value, f"would {_VERBS[kind]} {value}", why


def _target(name: str) -> tuple[str, str] | None:
    match = _OPERATOR.fullmatch(name)
    if match is not None:
        full = f"{match[1]}::{match[2]}"
        if full in HARMFUL:
            return OUTSIDE, f"{full} {HARMFUL[full]}"
        known = match[1] in KNOWN_NAMESPACES or match[1] == _HIGHER or full in COMPUTES
        return None if known else (UNKNOWN, "")
    return None if _PLAIN.fullmatch(name) else _name(name)


def _name(name: str) -> tuple[str, str]:
    # Looked up from the outermost module inwards, one attribute at a time.
    module, _, rest = name.partition(".")
    words = danger(module, rest)
    return (OUTSIDE, f"{name} {words}") if words else (UNKNOWN, "")


def _import(name: str) -> tuple[str, str] | None:
    return None if name in _FACTORIES else _name(name)


def _expression(text: str) -> tuple[str, str] | None:
    rest, at = text, 0
    while at < len(rest):
        match = _TOKENS.match(rest, at)
        if match is None or "__" in match[0]:
            return OUTSIDE, "the loader evaluates it as Python, and it is more than arithmetic"
        at = match.end()
    for name in _CALLS.findall(text):
        if name not in _FUNCTIONS:
            words = danger("builtins", name)
            return (OUTSIDE, f"{name} {words}") if words else (UNKNOWN, "")
    return None


def _guard(text: str) -> tuple[str, str] | None:
    return _expression(_INPUT.sub("1", text))


def _config(name: str) -> tuple[str, str] | None:
    """A class that hydra or NeMo would build: honest files name those of the frameworks."""
    found = _name(name)
    known = name.partition(".")[0] in _FRAMEWORKS and found[0] != OUTSIDE
    return None if known else found


_JUDGES = {
    "config": _config,
    "target": _target,
    "expression": _expression,
    "guard": _guard,
    "import": _import,
}
_VERBS = {
    "config": "call",
    "target": "call",
    "expression": "evaluate",
    "guard": "evaluate",
    "import": "import",
}
