"""What `torch.jit.save` writes: a module's objects, its constants, its code.

Source: `torch/csrc/jit/serialization` of torch 2.13. Below the root folder: `data.pkl` and
`data/KEY` (the module's attributes), `constants.pkl` and `constants/KEY` (tensors that the code
names CONSTANTS.c0, CONSTANTS.c1, ...), `code/**.py` with a `.debug_pkl` each, `traced_inputs.pkl`
of a traced module (shapes only), `extra/` (files of the user's own), `version`, and `bytecode.pkl`
where it was saved for the mobile interpreter.
"""

from __future__ import annotations

from collections.abc import Iterator

from tensorkeep.archives.zip import ZipArchive, ZipMember
from tensorkeep.facts import Limits
from tensorkeep.formats._script import (
    ScriptClass,
    ScriptLens,
    ScriptState,
    classes_in,
    operators,
    prefix_of,
)
from tensorkeep.formats._tensors import Interpreter
from tensorkeep.formats._zip_reading import ZipReading
from tensorkeep.formats._zip_storages import Storages
from tensorkeep.formats.assembled import Sweep
from tensorkeep.formats.contents import (
    Code,
    Contents,
    Graft,
    Inert,
    Lens,
    Parts,
    TensorRecord,
    plain,
)
from tensorkeep.pickles import Program, run

NAME = "torchscript"
SUFFIXES: tuple[str, ...] = (".ptl", ".torchscript")
_PICKLES = ("data", "constants", "traced_inputs")
_SAVES = (".format_version", ".storage_alignment")


def claims(archive: ZipArchive) -> bool:
    """`torch.load` asks for no more than `constants.pkl`, and `torch.jit.load` for no less."""
    root = archive.root
    return root is not None and archive.holds(f"{root}/constants.pkl")


def read_archive(archive: ZipArchive, limits: Limits, parts: Parts) -> Contents:
    """The scripted module in `archive`. Raises `Damaged` and `LimitExceeded`."""
    return _Script(ZipReading(archive, limits, parts)).read()


class _Script:
    def __init__(self, reading: ZipReading) -> None:
        self.reading = reading
        self.classes: dict[str, ScriptClass] = {}
        self.programs: dict[str, Program] = {}

    def read(self) -> Contents:
        reading = self.reading
        reading.torch_records()
        for member in reading.archive.members:
            self._source(member)
        for name in _PICKLES:
            found = reading.find(f"{name}.pkl")
            if found is not None:
                self.programs[name] = reading.program(found, bare=True)
        contents = reading.contents(NAME, self._root(), plain)
        contents.dialect = "torchscript"
        contents.own = frozenset(self.classes)
        contents.code = self._programs
        failed = [one.error for one in self.programs.values() if one.error is not None]
        contents.error = failed[0] if failed else None
        return contents

    def _source(self, member: ZipMember) -> None:
        inner = self.reading.inner(member)
        if not inner.startswith("code/"):
            if inner in {"bytecode.pkl", "mobile_debug_handles.pkl"}:
                self.reading.expect(member)
            return
        if inner.endswith(".debug_pkl"):
            self.reading.expect(member)
        elif inner.endswith(".py"):
            text = self.reading.data(member).decode("utf-8", "replace")
            self.reading.code.append(Code(member.name, "torchscript", text))
            for found in classes_in(text, prefix_of(inner.removeprefix("code/"))):
                self.classes.setdefault(found.name, found)

    def _programs(self) -> Iterator[Code]:
        """The code, and the operators that bytecode.pkl calls, written as the code writes them."""
        yield from self.reading.code
        member = self.reading.find("bytecode.pkl")
        if member is not None:
            data = self.reading.unpack(member)
            names = operators(run(data, limits=self.reading.limits).value)
            lines = [f"ops.{name.replace('::', '.')}" for name in names]
            yield Code(member.name, "torchscript", "\n".join(lines))

    def _root(self) -> object:
        """The state dict, and beside it what else the archive holds."""
        model, attributes = self._model()
        sections: dict[str, object] = {"model": model}
        if attributes is not None:
            sections["attributes"] = attributes
        for name in ("constants", "traced_inputs"):
            found = self._section(name)
            if found is not None:
                sections[name] = found
        sections["code"] = [code.where for code in self.reading.code]
        inner = [self.reading.inner(member) for member in self.reading.archive.members]
        extra = [name for name in inner if name.startswith("extra/")]
        return {**sections, "extra": extra} if extra else sections

    def _model(self) -> tuple[Graft, Graft | None]:
        program = self.programs.get("data")
        if program is None:
            self.reading.note("member-missing", "TorchScript without a data.pkl")
            return _graft({}, plain), None
        lens = self._lens(program, Storages(self.reading.archive, swapped=self.reading.swapped))
        state = ScriptState(self.classes, self.reading.limits, program.end - program.start)
        state.read(program.value, self.reading.archive.blob.name)
        for name in state.collisions:
            self.reading.note("duplicate-key", f"two attributes are called {name}")
        self._contradictions(state)
        attributes = _graft(state.attributes, lens) if state.attributes else None
        return _graft(state.tensors, lens), attributes

    def _contradictions(self, state: ScriptState) -> None:
        """What torch.save writes and torch.jit.save does not: one file made to look like both."""
        found = [name for name in _SAVES if name in self.reading.facts]
        if found or not self.classes:
            what = f"constants.pkl of TorchScript beside {', '.join(found) or 'no code at all'}"
            self.reading.note("two-kinds", f"{what}: loaders differ in what they take it for")

    def _section(self, name: str) -> Graft | None:
        program = self.programs.get(name)
        if program is None or program.value in ((), None):
            return None
        table = Storages(
            self.reading.archive,
            swapped=self.reading.swapped,
            place=name + "/{}",
            label=name + "/{}",
            where=f"{name}.pkl",
            hollow=name == "traced_inputs",
        )
        lens = self._lens(program, table)
        value = lens(program.value)
        if name == "constants" and isinstance(value, list | tuple):
            value = {f"c{number}": item for number, item in enumerate(value)}
        return _graft(value, lens)

    def _lens(self, program: Program, table: Storages) -> Lens:
        reading = self.reading
        reading.register(program, table)
        tensors = Interpreter(program, table.of, reading.archive.anomalies)
        return _WithoutValues(ScriptLens(tensors, self.classes))


def _graft(root: object, lens: Lens) -> Graft:
    return Graft(Contents(NAME, "zip", root, lens, {}))


class _WithoutValues:
    """Tensors whose values were not written show as what they were: torch keeps inputs so."""

    def __init__(self, lens: ScriptLens) -> None:
        self._lens = lens

    def __call__(self, value: object) -> object:
        found = self._lens(value)
        if isinstance(found, TensorRecord) and found.storage.device == "hollow":
            return Inert(f"{found.dtype.name} tensor of shape {list(found.shape)}, without values")
        return found

    def sweep(self) -> Sweep:
        """See `Sweeping`."""
        return self._lens.sweep()
