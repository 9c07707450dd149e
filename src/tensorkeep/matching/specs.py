"""What a tensor looks like from outside: all that matching needs to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from tensorkeep.checkpoints.tensor import TensorRef
from tensorkeep.dtypes import BY_NAME


@dataclass(frozen=True, slots=True)
class Spec:
    """`dtype` is torch's name without `torch.`, `shape` in elements.

    `tied_to` is the first name of the very same tensor, or None.
    """

    dtype: str
    shape: tuple[int, ...]
    tied_to: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the contiguous tensor; of a dtype that nobody knows, its elements."""
        known = BY_NAME.get(self.dtype)
        return prod(self.shape) * (known.itemsize if known else 1)


Specs = Mapping[str, Spec]


@dataclass(slots=True)
class Wanted:
    """What is to be filled: the tensors of a model, or of another checkpoint.

    `rebuilt` are tensors that the model makes itself when it is built (non-persistent buffers);
    a file need not have them, and what it has of them is left out.
    """

    subject: str
    tensors: dict[str, Spec]
    rebuilt: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)


def specs_of(refs: Mapping[str, TensorRef]) -> dict[str, Spec]:
    """The tensors that `Checkpoint.select` gives. Ties lead to names among these, or nowhere."""
    inner = {ref.name: name for name, ref in refs.items()}
    return {
        name: Spec(ref.dtype, ref.shape, inner.get(ref.tied_to) if ref.tied_to else None)
        for name, ref in refs.items()
    }
