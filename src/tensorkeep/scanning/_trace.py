"""Judges one pickle's trace: imports, calls and effects, each once, in the order they would run."""

from __future__ import annotations

from collections.abc import Iterable, Sized

from tensorkeep.facts import Limits
from tensorkeep.pickles import Call, Effect, Extension, Global, Import, Persistent, describe
from tensorkeep.pickles.sharing import Sizes, inside
from tensorkeep.scanning._allow_numpy import used_early
from tensorkeep.scanning._copies import Copies
from tensorkeep.scanning._danger_names import RESOLVES
from tensorkeep.scanning.allowlist import Entry, entry_of, kind_of
from tensorkeep.scanning.dangerous import attribute_danger, danger, is_dunder
from tensorkeep.scanning.dialects import Dialect
from tensorkeep.scanning.words import Collector, Place

# What the opcode would call on an object that is no list, dict or set.
_VERBS = {
    "BUILD": "set the state",
    "APPEND": "append to the value",
    "APPENDS": "extend the value",
    "SETITEM": "set an item",
    "SETITEMS": "set items",
    "ADDITEMS": "add items",
}
_SHADOWING = frozenset({"append", "extend", "add", "items", "keys", "values", "get", "update"})
_HUGE = 1 << 27
_LIMITS = Limits()
_CONTAINERS = frozenset({tuple, list, dict, set, frozenset})
_USES = ("numpy", "joblib")  # whose entries take a dtype
_CLASS_CALLS = ("NEWOBJ", "NEWOBJ_EX")


class Trace:
    """The judge of one program. `size` is the program's length in bytes.

    Work is linear in `size`: a rule that looks into a container pays from a budget, because the
    memo lets a few bytes name the same long list again and again.
    """

    def __init__(
        self, collector: Collector, where: str, size: int, dialect: Dialect | None = None
    ) -> None:
        self._collector = collector
        self._dialect = dialect or Dialect()
        self._where = where
        self._size = size
        self._budget = 16 * size + (1 << 16)
        self._sizes = Sizes(inside)
        self._copies = Copies(size)
        self._entries: dict[Global, Entry | None] = {}
        self._called: set[object] = set()
        self._unmentionable = False
        self._makers = False
        self._records = False  # whether the program names numpy's

    def judge(self, trace: list[Import | Call | Effect]) -> None:
        """Collect what is to be said about every entry of `trace`."""
        calls = [event for event in trace if type(event) is Call]
        self._called = {call.func for call in calls}
        self._makers = any(type(f) is Global and f.module == "copyreg" for f in self._called)
        if self._makers:
            self._called |= {_callee(call) for call in calls}
        for event in trace:
            if type(event) is Call:
                self._call(event)
            elif type(event) is Import:
                self._import(event)
            elif type(event) is Effect:
                self._effect(event)

    def mentions(self, roots: Iterable[object]) -> None:
        """Collect the functions that lie in `roots` as values, for others to call."""
        if not self._unmentionable:
            return
        stack: list[object] = list(roots)
        seen: set[int] = set()
        found: list[Global] = []
        while stack:
            value = stack.pop()
            if isinstance(value, Global):
                found.append(value)
            elif type(value) in _CONTAINERS and id(value) not in seen:
                seen.add(id(value))
                assert isinstance(value, tuple | list | set | frozenset | dict)
                stack.extend(value)
                if type(value) is dict:
                    stack.extend(value.values())
        # A set has another order in every process, and a report must not.
        for name in sorted(found, key=lambda name: name.offset):
            self._mention(name)

    def _add(self, rule: str, about: str, offset: int, value: object, why: str = "") -> None:
        """A finding that would call, import or mention `value`."""
        verb = "import" if isinstance(value, Import) else "call"
        shown = value.target if isinstance(value, Import) else value
        verb = "keep" if isinstance(value, Global) else verb
        self._collector.add(
            rule, about, self.place(offset), lambda: f"would {verb} {describe(shown, 200)}", why
        )

    def place(self, offset: int) -> Place:
        """The member and the byte in it."""
        return Place(self._where, offset)

    # Names

    def _entry(self, name: Global) -> Entry | None:
        if name not in self._entries:
            self._entries[name] = self._dialect.entry(name)
        return self._entries[name]

    def _import(self, event: Import) -> None:
        target = event.target
        if isinstance(target, Extension):
            return self._add("pickle/extension", str(target.code), event.offset, event)
        entry = self._entry(target)
        if entry is not None:
            self._records = self._records or entry.name == "record"
            self._unmentionable = self._unmentionable or not entry.reference
            return None
        if self._dialect.runs_package_code(target):
            return self._add("package/own-code", target.qualified, event.offset, event)
        if target in self._called and not target.computed:
            return None  # the call says it all
        words = _danger_of(target)
        if words:
            why = f"Whoever holds it can call it: {target.qualified} {words}"
            return self._add("pickle/dangerous-import", target.qualified, event.offset, event, why)
        rule = "pickle/dotted-name" if "." in target.name else "pickle/unknown-import"
        return self._add(rule, target.qualified, event.offset, event)

    def _mention(self, name: Global) -> None:
        entry = self._entry(name)
        if entry is None or entry.reference:
            return None
        words = _danger_of(name)
        if words:
            why = f"Whoever holds it can call it: {name.qualified} {words}"
            return self._add("pickle/dangerous-import", name.qualified, name.offset, name, why)
        return self._add("pickle/misplaced-reference", name.qualified, name.offset, name)

    # Calls

    def _call(self, call: Call) -> None:
        func = _callee(call) if self._makers else call.func
        if not isinstance(func, Global):
            rule = "pickle/extension" if isinstance(func, Extension) else "pickle/call-of-value"
            return self._add(rule, "", call.offset, call)
        entry = self._entry(func)
        if entry is None:
            return self._unlisted(call, func)
        if self._in_order(call, entry):
            args = call.args
            if entry.bounded or type(args) is not tuple or self._copies.afford(entry, args):
                return None
            return self._add("pickle/amplification", func.qualified, call.offset, call)
        words = "" if _mild(call, entry) else _danger_of(func)
        if words and func is call.func and func.module != "copyreg":
            why = f"{func.qualified} {words}"
            return self._add("pickle/dangerous-call", func.qualified, call.offset, call, why)
        if self._budget < 0 or _asks_for_much(call.args) or self._shares_much(call.args):
            return self._add("pickle/amplification", func.qualified, call.offset, call)
        return self._add("pickle/odd-arguments", func.qualified, call.offset, call)

    def _shares_much(self, args: object) -> bool:
        """Whether arguments are small in memory and without end to whoever hashes or copies them.

        Containers are measured once in the whole program, whatever calls are given them.
        """
        return self._sizes.of(args) > _LIMITS.max_expansion + _LIMITS.max_ratio * self._size

    def _unlisted(self, call: Call, func: Global) -> None:
        if self._dialect.runs_package_code(func):
            return None  # importing it says it all
        if (func.module, func.name) == ("builtins", "getattr") and not func.computed:
            words = attribute_danger(call.args)
            if not words:
                return self._add("pickle/attribute-lookup", "", call.offset, call)
        else:
            words = _danger_of(func)
        if words:
            why = f"{func.qualified} {words}"
            return self._add("pickle/dangerous-call", func.qualified, call.offset, call, why)
        rule = "pickle/unknown-call"
        if func.module == "builtins" and self._shares_much(call.args):  # hash, repr
            rule = "pickle/amplification"
        if call.kind in _CLASS_CALLS or func is not call.func:
            rule = "pickle/unknown-class"
        if "." in func.name:
            rule = "pickle/dotted-name"
        return self._add(rule, func.qualified, call.offset, call)

    def _in_order(self, call: Call, entry: Entry) -> bool:
        args = call.args
        role = entry.instance if call.kind in _CLASS_CALLS else entry.call
        if not role or entry.rule is None or type(args) is not tuple or call.kwargs:
            return False
        if not (entry.bounded or self._affordable(args)) or not entry.rule(args, kind_of):
            return False
        return not self._early(entry, args, call.offset)

    def _early(self, entry: Entry, args: tuple[object, ...], offset: int) -> bool:
        """Whether numpy is given a record that gets its length only later."""
        return self._records and entry.module.startswith(_USES) and used_early(args, offset)

    def _affordable(self, args: tuple[object, ...]) -> bool:
        for arg in args:
            if type(arg) in _CONTAINERS and self._budget >= 0:
                self._budget -= _weight(arg)
        return self._budget >= 0

    # Effects

    def _effect(self, effect: Effect) -> None:
        target = effect.target
        if not isinstance(target, Call):
            return self._report(_outside(target), effect)
        entry = self._dialect.entry_for(target)
        if entry is None:
            rule = _odd_state(effect)
            return self._report(rule, effect) if rule else None
        rule_for = entry.effects.get(effect.kind)
        if rule_for and self._affordable(effect.args) and rule_for(target, effect.args):
            if self._early(entry, effect.args, effect.offset):
                return self._report("pickle/odd-effect", effect)
            if self._copies.afford(entry, effect.args):
                return None
            return self._report("pickle/amplification", effect)
        rule = _odd_state(effect) or "pickle/odd-effect"
        if rule == "pickle/odd-effect" and entry.blame and effect.kind == "BUILD":
            rule = entry.blame(target, effect.args) or rule
        if rule == "pickle/odd-effect" and self._shares_much(effect.args):
            rule = "pickle/amplification"
        return self._report(rule if entry.fresh else "pickle/changes-global", effect)

    def _report(self, rule: str, effect: Effect) -> None:
        verb = _VERBS.get(effect.kind, effect.kind)
        target, args = effect.target, effect.args
        shown: object = args[0] if len(args) == 1 else args

        def what() -> str:
            return f"would {verb} of {describe(target, 100)}: {describe(shown, 150)}"

        self._collector.add(rule, effect.kind, self.place(effect.offset), what)


def _mild(call: Call, entry: Entry) -> bool:
    return entry.mild is not None and type(call.args) is tuple and entry.mild(call.args, kind_of)


def _danger_of(name: Global) -> str:
    return RESOLVES if name.computed else danger(name.module, name.name)


def _callee(call: Call) -> object:
    """What is called; for copyreg's makers (protocols 0 and 1), a class that has no entry."""
    func = call.func
    if isinstance(func, Global) and func.module == "copyreg" and type(call.args) is tuple:
        named = call.args[0] if call.args else None
        if func.name in ("_reconstructor", "__newobj__") and isinstance(named, Global):
            return named if entry_of(named) is None else func
    return func


def _weight(arg: object) -> int:
    """How many values a rule may look at in `arg`, one level further for a tuple or a state."""
    weight = len(arg) if isinstance(arg, Sized) else 0
    if type(arg) is tuple:
        weight += sum(len(item) for item in arg if type(item) in _CONTAINERS)
    elif type(arg) is dict:
        weight += sum(_filling(item) for item in arg.values())
    return weight


def _filling(item: object) -> int:
    """The items of a dictionary in a state, an OrderedDict that the file fills included."""
    if type(item) in _CONTAINERS:
        return len(item)  # type: ignore[arg-type]
    if type(item) is not Call or not item.effects:
        return 0
    return sum(len(effect.args) for effect in item.effects)


def _asks_for_much(args: object) -> bool:
    """Whether a call of an ordinary constructor would fill the memory out of a number."""
    if type(args) is not tuple:
        return False
    parts = [*args[:8], *(part for arg in args[:8] if type(arg) is tuple for part in arg[:8])]
    return any((type(part) is int and part >= _HUGE) or kind_of(part) == "range" for part in parts)


def _outside(target: object) -> str:
    if isinstance(target, Global | Extension):
        return "pickle/changes-global"
    return "pickle/writes-storage" if isinstance(target, Persistent) else "pickle/odd-effect"


def _odd_state(effect: Effect) -> str:
    """The rule that a BUILD's state breaks whatever the class is, or ""."""
    if effect.kind != "BUILD" or len(effect.args) != 1:
        return ""
    state = effect.args[0]
    if type(state) is tuple and len(state) == 2 and type(state[1]) is dict:
        return "pickle/slot-state"
    plain = state[0] if type(state) is tuple and state else state
    if type(plain) is not dict:
        return ""
    odd = any(type(key) is str and (is_dunder(key) or key in _SHADOWING) for key in plain)
    return "pickle/shadowing-key" if odd else ""
