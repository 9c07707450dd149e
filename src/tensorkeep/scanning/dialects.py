"""Who runs a pickle decides what its names mean: Python, TorchScript's loader or torch.package.

TorchScript's C++ unpickler looks names below `__torch__` up in the archive's own code and imports
nothing. torch.package's importer imports a name from the package's own source, if it is there,
before it asks Python. Sources: `torch/csrc/jit/serialization/unpickler.cpp`,
`torch/jit/_pickle.py` and `torch/package/package_importer.py` of torch 2.13.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tensorkeep.pickles import Call, Global
from tensorkeep.scanning._allow_kinds import Entry, KindOf
from tensorkeep.scanning.allowlist import entry_for_call, entry_of
from tensorkeep.scanning.dangerous import danger

Lookup = Callable[[Global], Entry | None]


def _any_arguments(_args: tuple[object, ...], _kind: KindOf) -> bool:
    return True


def _any_state(_target: Call, _args: tuple[object, ...]) -> bool:
    return True


def _one_list(args: tuple[object, ...], _kind: KindOf) -> bool:
    return len(args) == 1 and type(args[0]) is list


def _tagged(args: tuple[object, ...], _kind: KindOf) -> bool:
    return len(args) == 2 and type(args[0]) in (list, dict) and type(args[1]) is str


def _one_number(args: tuple[object, ...], _kind: KindOf) -> bool:
    return len(args) == 1 and type(args[0]) is int


_TAGS = "torch.jit._pickle"
_TYPED = "it gives the list or dict back, whose type TorchScript's loader takes from the name"
_SCRIPT: dict[tuple[str, str], Entry] = {
    (_TAGS, name): Entry(_TAGS, name, _TYPED, call=True, rule=rule, bounded=True)
    for name, rule in (
        ("build_intlist", _one_list),
        ("build_doublelist", _one_list),
        ("build_boollist", _one_list),
        ("build_tensorlist", _one_list),
        ("build_tensor_from_id", _one_number),
        ("restore_type_tag", _tagged),
    )
}

# Classes of torch's own C++ that a TorchScript archive holds objects of: they keep tensors packed
# for a backend, and their state is the tensors again.
_PACKED_TEXT = (
    "quantized.LinearPackedParamsBase quantized.Conv2dPackedParamsBase rnn.CellParamsBase "
    "quantized.Conv3dPackedParamsBase quantized.EmbeddingPackedParamsBase "
    "sparse.LinearPackedParamsBase mkldnn.ConvOpContext xnnpack.LinearOpContext "
    "xnnpack.Conv2dOpContext xnnpack.TransposeConv2dOpContext"
)
_PACKED = frozenset(f"__torch__.torch.classes.{name}" for name in _PACKED_TEXT.split())

_UNPACK = ("torch.jit._script", "unpackage_script_module")
_PACKAGE: dict[tuple[str, str], Entry] = {
    **_SCRIPT,
    _UNPACK: Entry(*_UNPACK, "it opens the TorchScript archive in the package", reference="opener"),
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How names are looked up. `own`: see `Contents.own`."""

    name: str = "python"
    own: frozenset[str] = frozenset()

    def entry(self, name: Global) -> Entry | None:
        """The entry of a name, the dialect's own first."""
        if self.runs_package_code(name) or name.computed:
            return None
        if self.name == "torchscript":
            if name.qualified in self.own or name.qualified in _PACKED:
                return _class_of_script(name)
            return _SCRIPT.get((name.module, name.name)) or entry_of(name)
        found = _PACKAGE.get((name.module, name.name)) if self.name == "package" else None
        return found or entry_of(name)

    def entry_for(self, call: Call) -> Entry | None:
        """The entry that says which effects the object bears that `call` makes."""
        if self.name != "python" and isinstance(call.func, Global):
            found = self.entry(call.func)
            if found is None or found.module != "copyreg":
                return found
        return entry_for_call(call)

    def runs_package_code(self, name: Global) -> bool:
        """Whether importing this name runs source that the package carries."""
        if self.name != "package" or name.computed:
            return False
        parts = name.module.split(".", 64)
        return any(".".join(parts[:end]) in self.own for end in range(1, len(parts) + 1))

    def reduction(self, pid: object) -> tuple[str, str, str] | None:
        """Rule, name and reason for a persistent id by which torch.package calls a function.

        None for any other id. An empty rule: the call is in order.
        """
        if self.name != "package" or type(pid) is not tuple or not 3 <= len(pid) <= 4:
            return None
        if pid[0] not in ("reduce_package", b"reduce_package"):
            return None
        func, args = pid[-2], pid[-1]
        if not isinstance(func, Global) or func.computed:
            return "pickle/call-of-value", "", ""
        if self.runs_package_code(func):
            return "package/own-code", func.qualified, ""
        plain = type(args) is tuple and len(args) == 1 and type(args[0]) is str
        if (func.module, func.name) == _UNPACK and plain:
            return "", "", ""
        words = danger(func.module, func.name)
        if words:
            return "pickle/dangerous-call", func.qualified, f"{func.qualified} {words}"
        return "pickle/unknown-call", func.qualified, ""

    def numbered(self, pid: object) -> object:
        """The id with its key as text: torch.package writes numbers."""
        if self.name != "package" or type(pid) is not tuple or len(pid) != 5:
            return pid
        return (*pid[:2], str(pid[2]), *pid[3:]) if type(pid[2]) is int and pid[2] >= 0 else pid


def _class_of_script(name: Global) -> Entry:
    return Entry(
        name.module,
        name.name,
        "a class of the archive's own code: TorchScript's loader imports nothing for it",
        call=True,
        instance=True,
        reference="script-class",
        rule=_any_arguments,
        makes="script-object",
        effects={"BUILD": _any_state},
        bounded=True,
    )
