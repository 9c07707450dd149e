"""Values that are put together from tensors: modules saved whole, and tensors made of several.

What a loader would build by calling a class stays a description here: which tensors it holds,
under which names, and what else the file says about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from tensorkeep.dtypes import DType
from tensorkeep.formats.contents import Inert, TensorRecord

Pairs = list[tuple[object, object]]


class Module:
    """An `nn.Module` that was pickled as an object.

    `type` is the class as the file names it. `parameters`, `buffers` (the persistent ones) and
    `modules` are what `state_dict()` walks, in its order and without those that are None; the
    values are raw, to be looked at through the lens. `attributes` is the rest of its `__dict__`
    that is not torch's own. `doubt` says why `state_dict()` could give something else, or is "".
    `packed`: its weights are packed for a backend, and shown as they were before.
    """

    __slots__ = (
        "attributes",
        "buffers",
        "doubt",
        "modules",
        "packed",
        "parameters",
        "training",
        "type",
    )

    def __init__(self, type_: str, parameters: Pairs, buffers: Pairs, modules: Pairs) -> None:
        self.type = type_
        self.parameters = parameters
        self.buffers = buffers
        self.modules = modules
        self.training = True
        self.attributes: dict[str, object] = {}
        self.doubt = ""
        self.packed = False

    @property
    def children(self) -> Pairs:
        """What `state_dict()` visits: own parameters, persistent buffers, then modules.

        A buffer with the name of a parameter takes its place, as in the dict that torch fills.
        """
        own = dict(self.parameters) | dict(self.buffers)
        return [*own.items(), *self.modules]


class Compound(Inert):
    """A tensor that is no view of one storage: sparse, quantised, nested, or a subclass.

    `layout` is one word ("sparse_coo", "quantized"), `parts` the plain tensors it is made of,
    `details` what else is known, as text and numbers ("nnz", "scale"). `offset` is the position in
    the pickle of the call that makes it; `broken`: its shapes contradict each other.
    """

    __slots__ = ("broken", "details", "dtype", "layout", "offset", "parts", "shape")

    def __init__(
        self,
        layout: str,
        dtype: DType | None,
        shape: tuple[int, ...],
        parts: Mapping[str, TensorRecord],
        details: Mapping[str, object],
        offset: int,
    ) -> None:
        super().__init__(_words(layout, dtype, shape, details), unread="tensor")
        self.layout = layout
        self.dtype = dtype
        self.shape = shape
        self.parts = parts
        self.details = details
        self.offset = offset
        self.broken = False


def _words(
    layout: str, dtype: DType | None, shape: tuple[int, ...], details: Mapping[str, object]
) -> str:
    more = ", ".join(f"{key} {value}" for key, value in details.items())
    text = f"{_NAMES.get(layout, layout)} {dtype or 'of unknown dtype'} {list(shape)}"
    return f"{text}, {more}" if more else text


_NAMES = {
    "quantized": "quantised tensor",
    "nested": "nested tensor",
    "jagged": "nested tensor (jagged)",
    "storage": "storage",
    "subclass": "tensor subclass",
    **{f"sparse_{kind}": f"sparse {kind.upper()} tensor" for kind in ("coo", "csr", "csc")},
    **{f"sparse_{kind}": f"sparse {kind.upper()} tensor" for kind in ("bsr", "bsc")},
}


@dataclass(slots=True)
class Sweep:
    """Everything that a program would make of tensors, whether a walk of its value meets it or not.

    `notes` are sentences for people about what was read as something simpler than it is.
    """

    records: list[TensorRecord] = field(default_factory=list)
    compounds: list[Compound] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@runtime_checkable
class Sweeping(Protocol):
    """A lens that can look at all of its program at once."""

    def sweep(self) -> Sweep:
        """Look at every tensor that the program would make. The same each time."""


def sweep(lens: object) -> Sweep:
    """What `lens` finds in all of its program; nothing for the lens of plain values."""
    return lens.sweep() if isinstance(lens, Sweeping) else Sweep()
