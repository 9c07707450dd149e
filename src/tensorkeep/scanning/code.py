"""Judges the code that a container carries: TorchScript, graphs, Python source, binaries.

Nothing is run or compiled. TorchScript can only call its operators: those that compute are
harmless, tables name those that do not or that check nothing, and a namespace that is not torch's
own can be anything. Python source can do anything at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tensorkeep.facts import Finding
from tensorkeep.formats.contents import Code
from tensorkeep.scanning._operators import COMPUTES, HARMFUL, KNOWN_NAMESPACES, UNCHECKED
from tensorkeep.scanning.dangerous import danger
from tensorkeep.scanning.exported import requests_of
from tensorkeep.scanning.words import Collector, Place

_OUTSIDE = "code/reaches-outside"
_UNKNOWN = "code/unknown-operator"
_TRUSTING = "code/unchecked-operator"

# What torch writes has a name on one line. Whatever splits one over several, or hides one behind
# an alias, is at least suspicious, so that nothing here must follow lines, comments or strings.
_DOT = r"[ \t]*\.[ \t]*"
_OPERATOR = re.compile(rf"\bops{_DOT}([A-Za-z_]\w*){_DOT}([A-Za-z_]\w*)")
_ALIAS = re.compile(rf"(?<![\w.])(ops|torch)\b(?!{_DOT}[A-Za-z_])")
_LOOKUP = re.compile(r'\bgetattr\s*\([^"\'\n]{0,400}["\']([^"\'\n]{0,400})["\']')
_IGNORED = re.compile(r"(?:\A|[\s=(,\[])\^[A-Za-z_]")
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'')
_ODD_STRINGS = ('"""', "'''", "\\\n")
_REASONS = HARMFUL | UNCHECKED
_SHORT = {name.partition("::")[2]: name for name in _REASONS}
_WORDS = re.compile(r"\b(" + "|".join(sorted(_SHORT)) + r")\b")
_OF_TORCH = re.compile(rf"\b(?:torch|prim){_DOT}$|\bops{_DOT}\w+{_DOT}$")
_ATTRIBUTE = re.compile(rf"{_DOT}$|\n[ \t]*$")
_ASSIGNED = re.compile(r"[ \t]*[=:]")
# Classes of C++, of a library or of torch itself; the packed parameters of its own are in order.
_PACKED = "quantized|sparse|xnnpack|rnn|mkldnn"
_CLASS = re.compile(
    rf"\btorch{_DOT}classes\b(?!{_DOT}(?:{_PACKED}){_DOT}[A-Za-z_])(?:{_DOT}\w+){{0,3}}"
)
_SPLIT = re.compile(rf"(?<!import )\b__torch__(?:{_DOT}torch)?\b(?!{_DOT}[A-Za-z_])")
_SPACE = re.compile(r"\s+")
_DEFINED = re.compile(r"\bdef\s+(\w+)\s*\(")
_BEFORE = 200  # characters looked at in front of a word

# Names in Python source that are worth a mention; the verdict does not rest on them.
_PYTHON = re.compile(r"\b((?:[A-Za-z_]\w{0,60}\.){0,3}[A-Za-z_]\w{0,60})\s*\(")
_MOST_NAMES = 5


def judge_code(programs: Iterable[Code]) -> list[Finding]:
    """What is to be said about the programs of one container."""
    collector = Collector()
    codes = list(programs)
    own = {
        name
        for code in codes
        if code.language == "torchscript"
        for name in _DEFINED.findall(code.text)
    }
    for code in codes:
        if code.language == "torchscript":
            _script(collector, code, own)
        elif code.language == "python":
            _python(collector, code)
        elif code.language == "exported":
            for rule, about, what, why in requests_of(code):
                collector.add(rule, about, Place(code.where), lambda what=what: what, why)  # type: ignore[misc]
        else:
            place = Place(code.where)
            collector.add("container/native-code", "", place, lambda: "compiled code for a machine")
    return collector.result()


def _script(collector: Collector, code: Code, own: set[str]) -> None:
    plain = _without_strings(code.text)
    for match in _OPERATOR.finditer(plain):
        namespace, name = match.groups()
        full = f"{namespace}::{name}"
        if full not in HARMFUL and namespace not in KNOWN_NAMESPACES and full not in COMPUTES:
            what = f"would call the operator {full}"
            _add(collector, _UNKNOWN, full, code, match.start(), what)
    for match in _WORDS.finditer(code.text):
        _word(collector, code, plain, match, own)
    for match in _CLASS.finditer(plain):
        what = f"would use a custom C++ class, {_SPACE.sub('', match[0])}"
        _add(collector, _UNKNOWN, what, code, match.start(), what)
    for match in _LOOKUP.finditer(code.text):
        if "\\" in match[1]:
            what = "would look up an attribute by a name written in escapes"
            _add(collector, _UNKNOWN, "getattr", code, match.start(), what)
    for pattern, what in (
        (_SPLIT, "splits the name of a class, so that it cannot be followed"),
        (_ALIAS, "gives the operators another name, by which any of them can be called"),
        (_IGNORED, "would call a function of Python"),
    ):
        for match in pattern.finditer(plain):
            _add(collector, _UNKNOWN, what, code, match.start(), what)


def _without_strings(text: str) -> str:
    """The text with its strings blank, unless it has some that torch does not write."""
    if any(odd in text for odd in _ODD_STRINGS):
        return text
    return _STRING.sub(lambda found: '"' + " " * (len(found[0]) - 2) + '"', text)


def _word(
    collector: Collector, code: Code, plain: str, match: re.Match[str], own: set[str]
) -> None:
    """A word that is the name of an operator in the tables: is it one here?

    In a string it is one only as the name that a getattr looks up. `plain`: without the strings.
    """
    word, told = match[1], plain.startswith(match[1], match.start())
    before = code.text[max(0, match.start() - _BEFORE) : match.start()]
    after = code.text[match.end() : match.end() + 8]
    full, reason = _SHORT[word], _REASONS[_SHORT[word]]
    breaks = _TRUSTING if full in UNCHECKED else _OUTSIDE
    quoted = before.endswith(('"', "'")) and after.startswith(("'", '"'))
    if told and _OF_TORCH.search(before):
        what = f"would call {full}"
        return _add(collector, breaks, full, code, match.start(), what, f"{full} {reason}")
    attribute = told and _ATTRIBUTE.search(before) and not _ASSIGNED.match(after)
    if attribute or (quoted and "getattr" in before):
        # x.save(...) on a tensor is the operator; on an object with a method of that name, it.
        rule = _UNKNOWN if word in own else breaks
        what = f"may call {full} as a method"
        return _add(collector, rule, full, code, match.start(), what, f"{full} {reason}")
    return None


def _add(
    collector: Collector, rule: str, about: str, code: Code, at: int, what: str, why: str = ""
) -> None:
    collector.add(rule, about, Place(code.where, at), lambda: what, why)


def _python(collector: Collector, code: Code) -> None:
    names = dict.fromkeys(_PYTHON.findall(code.text))
    harmful = [name for name in names if _harm(name)][:_MOST_NAMES]
    mention = f"; it calls {', '.join(harmful)}" if harmful else ""
    what = f"{len(code.text.encode('utf-8', 'replace'))} bytes of Python source{mention}"
    collector.add("code/python-source", "", Place(code.where), lambda: what)


def _harm(name: str) -> str:
    module, _, last = name.rpartition(".")
    return danger(module or "builtins", last)
