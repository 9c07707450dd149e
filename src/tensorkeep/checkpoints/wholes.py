"""What is said about modules saved whole: whose state dict was recovered, and how sure that is."""

from __future__ import annotations

from tensorkeep.checkpoints.index import Index, Path, Whole, name_of
from tensorkeep.checkpoints.sections import ALL, FLAT
from tensorkeep.formats.contents import Inert

_SHOWN = 3
_LONGEST = 120


def inside(index: Index, section: str) -> list[Whole]:
    """The modules in `section`, outermost first."""
    if section in (ALL, FLAT):
        return index.modules
    return [whole for whole in index.modules if whole.path and str(whole.path[0]) == section]


def roots(index: Index, section: str) -> list[Whole]:
    """Those that stand in no other module."""
    found: list[Whole] = []
    for whole in inside(index, section):
        # What lies in a module follows it.
        above = found[-1].path if found else None
        if above is None or whole.path[: len(above)] != above:
            found.append(whole)
    return found


def notes(index: Index, section: str) -> list[str]:
    """Sentences about the state dicts that were recovered in `section`."""
    return [*_recovered(index, section), *_doubts(index, section), *_foreign(index, section)]


def is_empty(index: Index) -> bool:
    """Whether the file is one module whose state dict is empty, and all of it was understood.

    A module that cannot be read is a leaf of the walk, as is a parameter that is no tensor.
    """
    if not index.modules or index.modules[0].path or index.tensors or index.leaves:
        return False
    return not any(whole.module.doubt for whole in index.modules)


def empty(index: Index) -> str:
    """The sentence about a module without tensors."""
    if len(index.modules) == 1:
        return "0 tensors: the module has no parameters and no persistent buffers"
    return (
        f"0 tensors: none of the {len(index.modules)} modules has parameters or persistent buffers"
    )


def packed(index: Index, section: str) -> str:
    """The layers in `section` whose packed weights are not read, as words; "" if there are none."""
    layers = {whole.path: None for whole in inside(index, section) if whole.module.packed}
    found: dict[str, None] = {}
    for path, value in index.leaves if layers else ():
        if isinstance(value, Inert) and value.unread:
            above = next((path[:n] for n in range(len(path) + 1) if path[:n] in layers), None)
            if above is not None:
                layer = above[:-1] if above and above[-1] == "_packed_params" else above
                found[name_of(layer) if layer else "(the model itself)"] = None
    if not found:
        return ""
    return f"packed quantised weights of layer{'s'[: len(found) > 1]} {_some(list(found))}"


def _recovered(index: Index, section: str) -> list[str]:
    named = [
        f"{_at(whole.path)}{shown_class(whole.module.type)}" for whole in roots(index, section)
    ]
    if not named:
        return []
    models = "whole model" if len(named) == 1 else f"{len(named)} whole models"
    return [f"{models}, state dict recovered without the class: {_some(named)}"]


def _at(path: Path) -> str:
    return f"{name_of(path)} is " if path else ""


def _doubts(index: Index, section: str) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for whole in inside(index, section):
        if whole.module.doubt:
            where = f"{_at(whole.path)}{shown_class(whole.module.type)}"
            by_reason.setdefault(whole.module.doubt, []).append(where)
    return [f"unknown: {reason}, in {_some(names)}" for reason, names in by_reason.items()]


def _foreign(index: Index, section: str) -> list[str]:
    """A class that is not torch's own can do what it likes in `state_dict`: said once."""
    found = [
        w.module.type for w in inside(index, section) if not w.module.type.startswith("torch.")
    ]
    classes = list(dict.fromkeys(found))
    if not classes:
        return []
    verb = "it" if len(classes) == 1 else "one of them"
    return [
        f"{_some(classes)}: classes that are not at hand; if {verb} overrides state_dict() "
        "or has an extra state, that is not in the result"
    ]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:_LONGEST] for name in names[:_SHOWN]) + more


def shown_class(name: str) -> str:
    """The class as people write it: `torch.nn.Linear` lies in `torch.nn.modules.linear`."""
    if not name.startswith("torch.nn.modules."):
        return name
    return f"torch.nn.{name.rpartition('.')[2]}"
