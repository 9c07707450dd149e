"""What of a file may become a real object: what the caller names, and what is known to be safe.

Known to be safe are the classes of torch.nn, under the rules that the scan has for their state, and
a few values of the standard library. A name is looked up, and its module imported, only after it
was found in one of these lists.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from tensorkeep.errors import BadArgument, Unsupported, Untrusted
from tensorkeep.facts import Finding, Verdict
from tensorkeep.formats.contents import Items, Lens
from tensorkeep.pickles import Call, Effect, Global
from tensorkeep.scanning.allowlist import Entry, entry_for_call, entry_of, kind_of
from tensorkeep.scanning.dangerous import danger
from tensorkeep.scanning.settings import BY_NAME
from tensorkeep.scanning.verdicts import ORDER, verdict

_MAKERS = ("copyreg._reconstructor", "copyreg.__newobj__", "copyreg.__newobj_ex__")
# Values that are their arguments: nothing else in the process knows of them.
_VALUES = frozenset({"datetime", "decimal", "fractions", "uuid", "pathlib", "pathlib._local"})
_DEEPEST_NAME = 16
# Longer names are no trust: a file may hold one of a million parts, and each cut of it is tried.
_MOST_PARTS = 32
_HOOKED = "pickle/kept-hook"
# What the scan says of honest objects of an unknown class: how a class inside a class is written,
# and what such objects keep.
_FORGIVEN = BY_NAME | {
    "pickle/attribute-lookup",
    "pickle/call-of-value",
    "pickle/dotted-name",
    "pickle/misplaced-reference",
    _HOOKED,
}


@dataclass(frozen=True, slots=True)
class Name:
    """A name of the file: the module to import, and the attributes from there."""

    module: str
    parts: tuple[str, ...]

    @property
    def qualified(self) -> str:
        """As the user writes it."""
        return ".".join((self.module, *self.parts))

    def find(self, subject: str) -> object:
        """The object of that name; its module is imported.

        Raises `Unsupported`, and `Untrusted` where the way there leads into another module: what
        stands there has another name.
        """
        try:
            found: object = import_module(self.module)
            for part in self.parts:
                found = getattr(found, part)
                if isinstance(found, ModuleType):
                    raise self._another(subject, f"the module {found.__name__}")
        except Untrusted:
            raise
        except Exception as error:  # importing runs the module's code, which may raise anything
            raise Unsupported(
                subject,
                expected=f"{self.qualified} to be importable here",
                got=f"{type(error).__name__}: {error}",
                remedy="Install or import what defines it, or take the weights alone: "
                "tensorkeep convert.",
            ) from error
        return found

    def _another(self, subject: str, got: str) -> Untrusted:
        return Untrusted(
            subject,
            expected=f"{self.qualified} to be a class of {self.module}",
            got=got,
            remedy="Take the weights alone: tensorkeep convert.",
        )

    def find_harmless(self, subject: str) -> object:
        """As `find`; what stands there may be something else that was imported under the name."""
        found = self.find(subject)
        module, name = (getattr(found, of, None) for of in ("__module__", "__qualname__"))
        does = danger(module, name) if isinstance(module, str) and isinstance(name, str) else ""
        if does:
            raise self._another(subject, f"{module}.{name}, which {does}")
        return found


class Trust:
    """The names that a caller trusts, beside what is known.

    `names`: exact qualified names ("pkg.module.Class"), or classes. Raises `BadArgument` for what
    is no such name, and for names that are known to do harm.
    """

    def __init__(self, names: Iterable[str | type] = ()) -> None:
        if isinstance(names, str):
            raise BadArgument("trust", expected="a list of names", got="one string")
        self.names = frozenset(_checked(name) for name in names)

    @classmethod
    def known(cls, *names: frozenset[str]) -> Trust:
        """Of names that are known to be classes."""
        made = cls()
        made.names = frozenset().union(*names)
        return made

    def weigh(
        self, findings: Iterable[Finding], approved: Collection[int] = ()
    ) -> tuple[Verdict, list[Finding]]:
        """The verdict where trusted names are nothing unknown, and its findings, the worst first.

        `approved`: where in the program calls and effects stand that only make trusted objects.
        """
        kept = [found for found in findings if not self._forgives(found, approved)]
        kept.sort(key=lambda found: -ORDER.index(found.severity))
        return verdict(kept), kept

    def _forgives(self, found: Finding, approved: Collection[int]) -> bool:
        if found.rule in BY_NAME and found.subject in self.names:
            return True
        return found.rule in _FORGIVEN and found.offset in approved

    def find(self, name: Name, subject: str) -> object:
        """The object of a name that may be made or mentioned. Raises `Unsupported`, `Untrusted`."""
        return (name.find_harmless if name.qualified in self.names else name.find)(subject)

    def reference(self, node: object, *, look: bool) -> Name | None:
        """The name that `node` mentions, if the object itself may stand in its place.

        `look`: whether a trusted class may be imported to see what it has.
        """
        name = name_of(node)
        if name is None:
            return None
        entry = entry_of(node)
        if name.qualified in self.names or (entry and _known_reference(entry)):
            return name
        outer = Name(name.module, name.parts[:-1])
        if outer.qualified not in self.names:
            return None
        return name if not look or _is_member(outer, name.parts[-1]) else None

    def maker(self, call: Call, lens: Lens) -> Name | None:
        """The class or function that `call` asks for, if it may be asked."""
        name = made_by(call)
        plain = isinstance(call.args, tuple) and isinstance(call.kwargs, dict | None)
        if name is None or not plain:
            return None
        if name.qualified in self.names or self.blame(call, lens) == "":
            return name
        return None

    def blame(self, call: Call, lens: Lens) -> str | None:
        """Of a call that is known: the rule that it breaks, or ""; None for any other."""
        entry = entry_for_call(call)
        if entry is None or not (entry.makes == "module" or entry.module in _VALUES):
            return None
        if not _in_order(entry, call):
            return "pickle/odd-arguments"
        for effect in call.effects or ():
            rule = self._effect(entry, call, effect, lens)
            if rule:
                return rule
        return ""

    def _effect(self, entry: Entry, call: Call, effect: Effect, lens: Lens) -> str:
        allowed = entry.effects.get(effect.kind)
        if allowed is not None and allowed(call, effect.args):
            return ""
        rule = entry.blame(call, effect.args) if entry.blame else "pickle/odd-effect"
        trusted = rule == _HOOKED and not self.strange_hooks(call, lens)
        return "" if trusted else rule

    def strange_hooks(self, call: Call, lens: Lens) -> list[str]:
        """Of a known module: the names of its hooks that nobody trusts."""
        entry = entry_for_call(call)
        if entry is None or entry.makes != "module":
            return []
        states = [effect.args[0] for effect in call.effects or () if effect.kind == "BUILD"]
        named = [_named(hook) for state in states for hook in _hooks(state, lens)]
        return [name for name in dict.fromkeys(named) if name not in self.names]


def _hooks(state: object, lens: Lens) -> list[object]:
    """All that a module's state would have called later."""
    found: list[object] = []
    pairs = state.items() if isinstance(state, dict) else ()
    for value in (lens(value) for key, value in pairs if isinstance(key, str) and "hook" in key):
        if isinstance(value, Items):
            found += [hook for _, hook in value.pairs]
        elif isinstance(value, dict):
            found += value.values()
    return [hook for hook in found if type(hook) is not bool]


def _named(hook: object) -> str:
    name = made_by(hook) if isinstance(hook, Call) else name_of(hook)
    return name.qualified if name else repr(hook)


def _checked(name: object) -> str:
    if isinstance(name, type):
        name = f"{name.__module__}.{name.__qualname__}"
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
        raise BadArgument("trust", expected='names such as "package.module.Class"', got=repr(name))
    if not 0 < name.count(".") < _MOST_PARTS:
        raise BadArgument(
            "trust", expected="a name with its module in front, of up to 32 parts", got=repr(name)
        )
    does = harm(name)
    if does:
        raise BadArgument("trust", expected="names of classes", got=f"{name!r}, which {does}")
    return name


def harm(name: str) -> str:
    """What a call of it is known to do, wherever in `name` its module ends; or ""."""
    parts = name.split(".", _MOST_PARTS)[:_MOST_PARTS]
    ways = (danger(".".join(parts[:at]), ".".join(parts[at:])) for at in range(1, len(parts)))
    return next(filter(None, ways), "")


def can_be_trusted(name: str) -> bool:
    """Whether it is of any use to name it."""
    try:
        _checked(name)
    except BadArgument:
        return False
    return True


def name_of(node: object) -> Name | None:
    """The name that `node` stands for; None if it is no name, or one that the file computes.

    Protocols below 4 write a class inside a class as `getattr(Outer, "Inner")`.
    """
    inner: list[str] = []
    for _ in range(_DEEPEST_NAME):
        if isinstance(node, Global):
            parts = node.name.split(".") if node.dotted else [node.name]
            whole = (*parts, *reversed(inner))
            return None if node.computed else Name(node.module, whole)
        args = node.args if isinstance(node, Call) and _is(node.func, "builtins.getattr") else None
        if not isinstance(args, tuple) or len(args) != 2 or type(args[1]) is not str:
            return None
        inner.append(args[1])
        node = args[0]
    return None


def made_by(call: Call) -> Name | None:
    """The class or function that makes what `call` would return."""
    if made_directly(call):
        return name_of(call.func)
    given = class_given(call)
    return name_of(given[0]) if given else None


def class_given(call: Call) -> tuple[object, ...]:
    """The class that one of copyreg's makers is given first, or ()."""
    return call.args[:1] if isinstance(call.args, tuple) else ()


def made_directly(call: Call) -> bool:
    """Whether the class itself is asked, and not one of copyreg's makers."""
    return not (isinstance(call.func, Global) and call.func.qualified in _MAKERS)


def _is(node: object, qualified: str) -> bool:
    return isinstance(node, Global) and not node.computed and node.qualified == qualified


def given_to(call: Call) -> tuple[object, ...] | None:
    """The arguments that the class gets, None where that is not known or not usual."""
    args = call.args
    if not isinstance(args, tuple) or call.kwargs:
        return None
    if made_directly(call):
        return args
    if _is(call.func, "copyreg._reconstructor"):
        return (
            () if len(args) == 3 and _is(args[1], "builtins.object") and args[2] is None else None
        )
    return args[1:] if _is(call.func, "copyreg.__newobj__") else None


def values_given(call: Call) -> tuple[object, ...]:
    """The arguments of `call` without the classes that copyreg's makers are given first."""
    args = call.args
    assert isinstance(args, tuple)
    if made_directly(call):
        return args
    return args[2:] if _is(call.func, "copyreg._reconstructor") else args[1:]


def _in_order(entry: Entry, call: Call) -> bool:
    new = call.kind.startswith("NEWOBJ") or not made_directly(call)
    args = given_to(call)
    if args is None or not (entry.instance if new else entry.call):
        return False
    return entry.rule is None or entry.rule(args, kind_of)


def _known_reference(entry: Entry) -> bool:
    return entry.reference == "module-class" or entry.kept


def _is_member(outer: Name, name: str) -> bool:
    """Whether `outer` is an enumeration with it: members may be written as attributes."""
    found = outer.find(outer.qualified)
    return isinstance(found, enum.EnumMeta) and name in found.__members__
