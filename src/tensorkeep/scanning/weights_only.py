"""For a file that torch refuses ("Weights only load failed"): what it would need, and whether that
would do.

`torch.load(weights_only=True)` runs a pickle with an unpickler of its own that knows 34 opcodes,
144 names and those that the user adds with `torch.serialization.add_safe_globals`. Everything here
follows from the file and from that program's source; nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tensorkeep import formats
from tensorkeep.errors import Unsupported
from tensorkeep.facts import Finding, Limits
from tensorkeep.formats.contents import Contents
from tensorkeep.pickles import Call, Effect, Global, Import, Program
from tensorkeep.scanning import _torch_allowed as torch_allows
from tensorkeep.scanning.allowlist import lookup
from tensorkeep.scanning.dangerous import danger
from tensorkeep.scanning.examining import examine
from tensorkeep.scanning.verdicts import verdict
from tensorkeep.stores import Blob
from tensorkeep.stores.opening import Source, open_blob

# Where a name's home has moved between versions, the name that the file says is written beside it.
_MOVED = ("numpy.core.", "numpy._core.", "pathlib.")
# As the class of numpy 1 is called today.
_NOW = {"numpy.core.": "numpy._core."}


@dataclass(frozen=True, slots=True)
class Needed:
    """A name beyond torch's own list. `harmless` by tensorkeep's list, `why` in either case.

    `register` is the module whose import adds the name by itself, or "".
    """

    name: str
    harmless: bool
    why: str
    register: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        return {
            "name": self.name,
            "harmless": self.harmless,
            "why": self.why,
            "register": self.register,
        }


@dataclass(frozen=True, slots=True)
class SafeGlobals:
    """What one file needs. `obstacles` are those that no list of names removes."""

    path: str
    verdict: str
    needed: tuple[Needed, ...] = ()
    obstacles: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = field(default=(), repr=False)

    @property
    def loads(self) -> bool:
        """Whether `torch.load(weights_only=True)` takes the file as it is."""
        return not self.needed and not self.obstacles

    @property
    def enough(self) -> bool:
        """Whether the list alone will do, and holds nothing that does harm."""
        return not self.obstacles and self.verdict != "dangerous"

    @property
    def code(self) -> str:
        """Python that lets torch load the file, "" if no list would do or none is needed."""
        if not self.needed or not self.enough:
            return ""
        return "\n".join(_code(self.needed))

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        return {
            "path": self.path,
            "verdict": self.verdict,
            "loads": self.loads,
            "enough": self.enough,
            "needed": [needed.to_dict() for needed in self.needed],
            "obstacles": list(self.obstacles),
            "code": self.code,
        }


def safe_globals(target: Source, *, limits: Limits | None = None) -> SafeGlobals:
    """What `torch.load(weights_only=True)` needs to take the file `target`. Nothing is loaded.

    `target`: what `scan` takes, directories apart. The result names the globals beyond torch's own
    list, says which are harmless by tensorkeep's list and which obstacles no list removes, and its
    `code` is the `add_safe_globals` call. Raises `ReadError` if the file cannot be read to its end
    or holds no pickle, `StoreError` if it is not there.
    """
    with open_blob(target) as blob:
        return _needs(blob, limits or Limits())


def _needs(blob: Blob, limits: Limits) -> SafeGlobals:
    contents = formats.examine(blob, limits)
    if contents.error is not None:
        raise contents.error
    if not contents.programs:
        raise Unsupported(
            blob.name,
            expected="a file that torch.load reads with its unpickler",
            got=contents.container,
            remedy="There is no pickle in it: nothing has to be allowed.",
        )
    findings = examine(contents, False, limits, blob.name)
    names: dict[str, None] = {}
    obstacles: dict[str, None] = {}
    for program in _programs(contents, obstacles):
        _Walk(program, names, obstacles).go()
    odd = {found.subject for found in findings if found.subject}
    needed = tuple(_needed(name, odd) for name in sorted(names))
    return SafeGlobals(blob.name, verdict(findings), needed, tuple(obstacles), tuple(findings))


def _programs(contents: Contents, obstacles: dict[str, None]) -> list[Program]:
    """Those that torch.load would run with its restricted unpickler."""
    programs = [program for _, program in contents.programs]
    if contents.format == "torch_zip":
        main = [p for where, p in contents.programs if where.rpartition("/")[2] == "data.pkl"]
        return main[:1] or programs
    if not contents.format.startswith("torch"):
        obstacles[f"torch.load does not read this container ({contents.container})"] = None
    return programs


class _Walk:
    """Follows a program as torch's unpickler would, collecting what it would stumble over."""

    def __init__(
        self, program: Program, names: dict[str, None], obstacles: dict[str, None]
    ) -> None:
        self._program = program
        self._names = names
        self._obstacles = obstacles

    def go(self) -> None:
        """Collect."""
        unknown = sorted(self._program.used - torch_allows.OPCODES)
        if unknown:
            wrote = f"protocol {self._program.protocol}, where torch.save writes 2"
            self._stop(f"opcodes that torch does not know ({wrote}): {', '.join(unknown)}")
        asked = [one.pid for one in self._program.persistents]
        for pid in [*asked, *self._program.resolved]:
            self._persistent(pid)
        for event in self._program.trace:
            if isinstance(event, Import):
                self._import(event)
            elif isinstance(event, Call):
                self._call(event)
            else:
                self._effect(event)

    def _stop(self, why: str) -> None:
        self._obstacles[why] = None

    def _name(self, name: str) -> None:
        if name not in torch_allows.ALLOWED:
            self._names[name] = None

    def _import(self, event: Import) -> None:
        if not isinstance(event.target, Global) or event.target.computed:
            return  # by an opcode that it does not know
        if event.target.module in torch_allows.BLOCKED:
            self._stop(f"{event.target.qualified}: nothing of this module can be allowed")
        self._name(event.target.qualified)

    def _persistent(self, pid: object) -> None:
        if type(pid) is int:
            return  # of a legacy tar
        first = pid[0] if type(pid) is tuple and pid else None
        if first in ("module", b"module"):
            self._stop("a module saved with its source text, as torch did before 1.6")
        elif first not in ("storage", b"storage"):
            self._stop("a reference to something else than a storage")

    def _call(self, call: Call) -> None:
        if not isinstance(call.func, Global):
            self._stop("a call of what another call returns")
            return
        if call.func.qualified == "builtins.getattr":
            self._stop("getattr, which would let the file reach every name")
        if call.func.qualified == "torch.storage._load_from_bytes":
            self._stop("a file inside the file, which is loaded without any restriction")

    def _effect(self, effect: Effect) -> None:
        target = effect.target
        made = _class_of(target) if isinstance(target, Call) else ""
        if effect.kind == "BUILD":
            if made:
                self._name(made)
            else:
                self._stop("a state that is set on something else than an object of this file")
        elif effect.kind.startswith("APPEND"):
            self._stop(f"items appended to a {made or 'value'}: torch appends to lists only")
        elif effect.kind.startswith("SETITEM") and made not in torch_allows.FILLABLE:
            self._stop(
                f"items set in a {made or 'value'}: torch fills dict, OrderedDict and Counter only"
            )


def _class_of(call: Call) -> str:
    """The class of what `call` makes, as far as the file tells."""
    if not isinstance(call.func, Global):
        return ""
    name = call.func.qualified
    first = call.args[0] if isinstance(call.args, tuple) and call.args else None
    if name == "numpy.dtype" and isinstance(first, str):
        kind = torch_allows.DTYPE_CLASSES.get(first) or torch_allows.DTYPE_KINDS.get(first[:1])
        return f"numpy.dtypes.{kind}" if kind else name
    if name.endswith(("multiarray._reconstruct", "copyreg._reconstructor")):
        return first.qualified if isinstance(first, Global) else ""
    if name == "numpy.random._pickle.__bit_generator_ctor" and isinstance(first, str):
        return f"numpy.random._{first.lower()}.{first}" if first.isidentifier() else ""
    return torch_allows.RETURNS.get(name, name)


def _needed(name: str, odd: set[str]) -> Needed:
    module, _, leaf = name.rpartition(".")
    register = torch_allows.REGISTERED.get(name, "")
    entry = lookup(module, leaf)
    if entry is not None and name not in odd:
        return Needed(name, True, entry.why, register)
    if name.startswith("numpy.dtypes."):
        return Needed(name, True, "The class of a numpy dtype", register)
    if entry is not None:
        return Needed(name, False, "Harmless as honest files use it, and not as this one does")
    words = danger(module, leaf)
    why = f"It {words}" if words else "It is on no list: only you can know what this class does"
    return Needed(name, False, why, register)


def _code(needed: tuple[Needed, ...]) -> Iterator[str]:
    """Imports, and the call that adds the names."""
    listed = [one for one in needed if not one.register]
    modules = {one.register for one in needed if one.register}
    modules |= {_home(one.name) for one in listed} - {"builtins"}
    if listed:
        modules.add("torch")
    yield from (f"import {module}" for module in sorted(modules))
    if listed:
        yield ""
        yield "torch.serialization.add_safe_globals(["
        yield from (f"    {_item(one.name)}," for one in listed)
        yield "])"


def _now(name: str) -> str:
    for old, new in _NOW.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _home(name: str) -> str:
    return _now(name).rpartition(".")[0]


def _item(name: str) -> str:
    shown = _now(name).removeprefix("builtins.")
    return f'({shown}, "{name}")' if name.startswith(_MOVED) else shown
