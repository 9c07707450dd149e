"""A file's value with real objects in it, of trusted classes only; all else is inert.

Objects are made as the unpickler makes them: an empty instance, or a call, then what the file sets
in it, in its order. Tensors should have their bytes before: a class may look at them when it gets
its state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.checkpoints.index import Path
from tensorkeep.errors import Unsupported
from tensorkeep.facts import Limits
from tensorkeep.formats.assembled import Compound
from tensorkeep.formats.contents import Inert, Lens, TensorRecord
from tensorkeep.live import making, trusting
from tensorkeep.live.nesting import Building, Nest
from tensorkeep.live.saved import SavedModule, Withheld
from tensorkeep.live.trusting import Name, Trust
from tensorkeep.pickles import Call, Effect, Extension, Global, Node

_LONGEST = 200


class TrustingNest(Nest):
    """One walk that makes what `trust` allows.

    `withheld`: by name, why it was not made; `made`: how many objects of each class were;
    `approved`: where in the program calls and effects stand that make and fill them. `dry`: nothing
    is imported or made, and only these three are of use.
    """

    def __init__(
        self,
        tensor: Callable[[TensorRecord, Path], object],
        compound: Callable[[Compound, Path], object],
        ckpt: Checkpoint,
        limits: Limits,
        trust: Trust,
        *,
        dry: bool = False,
    ) -> None:
        super().__init__(tensor, compound, ckpt, limits)
        self.trust = trust
        self.dry = dry
        self.withheld: dict[str, str] = {}
        self.made: dict[str, int] = {}
        self.approved: set[int] = set()
        self._own: set[int] = set()  # what was made here, by identity

    def _value(self, raw: object, lens: Lens, path: Path) -> Building:
        if id(raw) in self._made:
            return self._made[id(raw)]
        name = self.trust.maker(raw, lens) if isinstance(raw, Call) else None
        if isinstance(raw, Call) and name and not _altered(raw, lens):
            return (yield from self._object(raw, name, lens, path))
        name = self.trust.reference(raw, look=not self.dry)
        if name:
            self._kept.append(raw)
            self._approve(raw)
            return self._keep(raw, None if self.dry else self.trust.find(name, self._subject))
        made = yield from super()._value(raw, lens, path)
        if isinstance(raw, Call | Global | Extension) and isinstance(made, Inert):
            made = self._withhold(raw, made, lens)
            if self.dry and isinstance(raw, Call):
                # So that all names that are missing are known at once.
                for part in _parts(raw):
                    yield part, lens, path
        return made

    def _withhold(self, raw: Call | Global | Extension, made: Inert, lens: Lens) -> object:
        if isinstance(made, Withheld):
            return made
        name = trusting.made_by(raw) if isinstance(raw, Call) else trusting.name_of(raw)
        words = name.qualified if name else repr(made)[:_LONGEST]
        hooks = self.trust.strange_hooks(raw, lens) if isinstance(raw, Call) else []
        for hook in hooks:
            self.withheld.setdefault(hook, f"a hook of {words}")
        if not hooks:
            rule = self.trust.blame(raw, lens) if isinstance(raw, Call) else None
            why = f"breaks the rule {rule}" if rule else made.why if made.unread == "tensor" else ""
            why = why or (trusting.harm(name.qualified) if name else "")
            self.withheld.setdefault(words, why)
        if isinstance(made, SavedModule):
            return made
        return self._keep(raw, Withheld(words, made))

    def _object(self, raw: Call, name: Name, lens: Lens, path: Path) -> Building:
        self._kept.append(raw)
        self._keep(raw, Inert("a part that contains itself"))
        args = yield trusting.values_given(raw), lens, path
        kwargs = (yield raw.kwargs, lens, path) if isinstance(raw.kwargs, dict) else {}
        if _holds_inert(args) or _holds_inert(tuple(kwargs.values())):
            # Its class would be handed something else than what it was saved with.
            inert = Inert(f"object of class {name.qualified}", raw)
            return self._withhold(raw, inert, lens)
        result: object = None
        if not self.dry:
            kind = self.trust.find(name, self._subject)
            result = self._told(name, partial(making.new, raw, kind, args, kwargs))
        made = self._keep(raw, result)
        self._own.add(id(made))
        self.made[name.qualified] = self.made.get(name.qualified, 0) + 1
        # A class inside a class is a call of getattr, which stands beside the values.
        named = () if trusting.made_directly(raw) else trusting.class_given(raw)
        self._approve(raw, raw.func, *named, *(raw.effects or ()))
        for effect in raw.effects or ():
            given = []
            for at, part in enumerate(effect.args):
                given.append((yield part, lens, _inside(path, effect, at)))
            if not self.dry:
                self._told(name, partial(making.change, made, effect, given))
        return made

    def _hashes(self, value: object) -> bool:
        if id(value) not in self._own:
            return super()._hashes(value)
        try:
            hash(value)  # by its class, which is trusted
        except TypeError:
            return False
        return True

    def _approve(self, *events: object) -> None:
        self.approved.update(event.offset for event in events if isinstance(event, Node | Effect))

    def _told(self, name: Name, work: Callable[[], object]) -> object:
        """Do `work` in trusted code, which may raise anything. Raises `Unsupported`."""
        try:
            return work()
        except Exception as error:
            raise Unsupported(
                self._subject,
                expected=f"{name.qualified} to take what the file holds for it",
                got=f"{type(error).__name__}: {error}",
                remedy="Use the version of the code that saved it, or take the weights alone: "
                "tensorkeep convert.",
            ) from error


def _parts(call: Call) -> list[object]:
    given = list(trusting.values_given(call)) if isinstance(call.args, tuple) else []
    return given + [part for effect in call.effects or () for part in effect.args]


def _altered(call: Call, lens: Lens) -> bool:
    """Whether the file changes afterwards what it gave to `call`: it would have seen another."""
    changed = getattr(lens, "changed", {})
    given = [(part, call.offset) for part in call.args] if isinstance(call.args, tuple) else []
    given += [(part, effect.offset) for effect in call.effects or () for part in effect.args]
    return bool(changed) and any(changed.get(id(part), -1) > offset for part, offset in given)


def _holds_inert(value: object, depth: int = 3) -> bool:
    if isinstance(value, tuple | list) and depth:
        return any(_holds_inert(part, depth - 1) for part in value)
    return isinstance(value, Inert)


def _inside(path: Path, effect: Effect, at: int) -> Path:
    return path if effect.kind == "BUILD" else (*path, at)
