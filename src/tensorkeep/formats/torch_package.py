"""What `torch.package` writes: pickles, resources and the Python source that they need.

Source: `torch/package` of torch 2.13 (`package_exporter.py`, `package_importer.py`). Below the
root folder: `.data/extern_modules` (modules that are imported from outside), `.data/version`,
`.data/N.storage`, `.data/ts_code/N/data.pkl` and `.data/ts_code/code/` (TorchScript modules),
modules as `a/b.py` or `a/b/__init__.py`, and resources of any name, pickles among them. Which
resources are pickles is written nowhere: it shows in their bytes.
"""

from __future__ import annotations

import re

from tensorkeep.archives.zip import ZipArchive, ZipMember
from tensorkeep.facts import Limits
from tensorkeep.formats._script import (
    ScriptClass,
    ScriptLens,
    ScriptState,
    classes_in,
    prefix_of,
)
from tensorkeep.formats._tensors import Interpreter
from tensorkeep.formats._zip_reading import ZipReading
from tensorkeep.formats._zip_storages import Storages
from tensorkeep.formats.contents import Code, Contents, Graft, Inert, Lens, Parts, plain
from tensorkeep.pickles import Persistent, Program, describe

NAME = "torch_package"
SUFFIXES: tuple[str, ...] = (".package",)
_SCRIPT = re.compile(r"\.data/ts_code/(\d{1,9})/(data|constants)\.pkl")
_SCRIPT_CODE = ".data/ts_code/code/"
_HEAD = 64
_STARTS = b"\x80(}]c"  # PROTO, or the first opcode of a pickle without it


def claims(archive: ZipArchive) -> bool:
    """What `PackageImporter` reads first."""
    root = archive.root
    return root is not None and archive.holds(f"{root}/.data/extern_modules")


def read_archive(archive: ZipArchive, limits: Limits, parts: Parts) -> Contents:
    """The package in `archive`. Raises `Damaged` and `LimitExceeded`."""
    return _Package(ZipReading(archive, limits, parts)).read()


class _Package:
    def __init__(self, reading: ZipReading) -> None:
        self.reading = reading
        self.modules: list[str] = []
        self.resources: list[str] = []
        self.classes: dict[str, ScriptClass] = {}
        self.scripts: list[Contents] = []
        self.sections: dict[str, object] = {}

    def read(self) -> Contents:
        reading = self.reading
        reading.torch_records()
        members = reading.archive.members
        for member in members:
            self._source(member)
        for member in members:
            self._resource(member)
        root = {
            **self.sections,
            "modules": self.modules,
            "extern": self._lines(".data/extern_modules"),
            "resources": self.resources,
        }
        contents = reading.contents(NAME, root, plain)
        contents.dialect = "package"
        contents.own = frozenset(self.modules)
        failed = [program.error for _, program in reading.programs if program.error is not None]
        contents.error = failed[0] if failed else None
        return contents

    def _lines(self, name: str) -> list[str]:
        member = self.reading.find(name)
        data = self.reading.data(member) if member is not None else b""
        return data.decode("utf-8", "replace").split()

    def _source(self, member: ZipMember) -> None:
        """A module's source: whatever ends in .py outside of `.data` can be imported."""
        inner = self.reading.inner(member)
        if inner.startswith(_SCRIPT_CODE):
            self._script_code(member, inner.removeprefix(_SCRIPT_CODE))
        elif inner.endswith(".py"):
            text = self.reading.data(member).decode("utf-8", "replace")
            self.reading.code.append(Code(member.name, "python", text))
            name = inner.removesuffix(".py").removesuffix("/__init__")
            self.modules.append(name.replace("/", "."))

    def _script_code(self, member: ZipMember, path: str) -> None:
        if path.endswith(".debug_pkl"):
            self.reading.expect(member)
        elif path.endswith(".py"):
            text = self.reading.data(member).decode("utf-8", "replace")
            self.reading.code.append(Code(member.name, "torchscript", text))
            for found in classes_in(text, prefix_of(path)):
                self.classes.setdefault(found.name, found)

    def _resource(self, member: ZipMember) -> None:
        inner = self.reading.inner(member)
        script = _SCRIPT.fullmatch(inner)
        if script is not None:
            self._script(member, script[1], script[2])
        elif inner and not inner.startswith(".data/") and not inner.endswith(".py"):
            if self._is_pickle(member, inner):
                self._pickle(member, inner)
            elif inner not in ("byteorder", "version"):
                self.resources.append(inner)

    def _is_pickle(self, member: ZipMember, inner: str) -> bool:
        """By its name, or by its first bytes: `load_pickle` takes a resource of any name."""
        head = self.reading.peek(member, _HEAD)
        if inner.endswith((".pkl", ".pickle")):
            return True
        return head[:1] == b"\x80" and len(head) > 2 and head[1] <= 5

    def _pickle(self, member: ZipMember, inner: str) -> None:
        program = self.reading.program(member)
        table = Storages(
            self.reading.archive,
            swapped=self.reading.swapped,
            place=".data/{}.storage",
            label=".data/{}.storage",
            where=inner,
            numbered=True,
            reductions=True,
        )
        self.reading.register(program, table)
        lens = Interpreter(program, table.of, self.reading.archive.anomalies)
        self.sections[inner] = _graft(program.value, _with_reductions(lens))

    def _script(self, member: ZipMember, number: str, kind: str) -> None:
        """One TorchScript module: its C++ loader runs its pickles, not the package's importer."""
        reading = self.reading
        program = reading.program(member, bare=True)
        reading.programs.pop()
        table = Storages(
            reading.archive,
            swapped=reading.swapped,
            place=".data/{}",
            label=".data/{}",
            where=member.name,
        )
        reading.register(program, table)
        lens = ScriptLens(Interpreter(program, table.of, reading.archive.anomalies), self.classes)
        inside = Contents("torchscript", "zip", program.value, lens, {})
        inside.programs.append((member.name, program))
        inside.dialect, inside.own = "torchscript", frozenset(self.classes)
        inside.error = program.error
        reading.nested.append((member.name, inside))
        if kind == "data":
            self.sections[f"torchscript {number}"] = self._state(program, lens)

    def _state(self, program: Program, lens: Lens) -> Graft:
        state = ScriptState(self.classes, self.reading.limits, program.end - program.start)
        state.read(program.value, self.reading.archive.blob.name)
        return _graft({**state.attributes, **state.tensors}, lens)


def _with_reductions(lens: Lens) -> Lens:
    """What a function of torch.package's would return shows as the call of it."""

    def look(value: object) -> object:
        if isinstance(value, Persistent) and isinstance(value.pid, tuple):
            pid = value.pid
            if len(pid) > 2 and pid[0] == "reduce_package":
                return Inert(f"what {describe(pid[-2], 100)} makes of {describe(pid[-1], 100)}")
        return lens(value)

    return look


def _graft(root: object, lens: Lens) -> Graft:
    return Graft(Contents(NAME, "zip", root, lens, {}))
