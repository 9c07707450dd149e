"""Query, key and value projections: one tensor out of several, and several out of one.

Layouts of the fused dimension, with H heads of size D and G groups of keys and values:

- "concat": all of the first, then all of the second (GPT-2, Phi-3, `nn.MultiheadAttention`);
- "per-head": for each head its query, key and value (GPT-NeoX, BLOOM); H = G;
- "grouped": for each group its H / G queries, then its key, then its value (Falcon, InternLM 2).

"per-head" is "grouped" with one head in each group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tensorkeep.edits import patterns
from tensorkeep.edits.arrays import Array
from tensorkeep.edits.inventory import Inventory
from tensorkeep.edits.shapes import Joined, require_dim, reshaped, sliced
from tensorkeep.errors import BadArgument, UnknownTensor

Layout = Literal["concat", "per-head", "grouped"]


def _check(what: str, layout: str, heads: int, groups: int, parts: tuple[str, ...]) -> None:
    if layout not in ("concat", "per-head", "grouped"):
        raise BadArgument(
            what,
            expected="layout concat, per-head or grouped",
            got=repr(layout),
            remedy="See how the model cuts its projection: the page on edits tells the layouts.",
        )
    if min(heads, groups) < 0 or (groups and heads % groups):
        raise BadArgument(
            what,
            expected="heads that groups divide",
            got=f"heads {heads}, groups {groups}",
            remedy="Take num_attention_heads and num_key_value_heads of the model's configuration.",
        )
    if layout != "concat" and not heads:
        raise BadArgument(
            what,
            expected=f"heads, which {layout} is cut by",
            got="none",
            remedy="Say heads: num_attention_heads in the model's configuration.",
        )
    if layout == "per-head" and groups not in (0, heads):
        raise BadArgument(
            what,
            expected="as many groups as heads in per-head",
            got=groups,
            remedy="Leave out groups, or say layout grouped.",
        )
    if len(parts) < 2:
        raise BadArgument(
            what,
            expected="at least two parts",
            got=len(parts),
            remedy="Name the parts: q_proj, k_proj, v_proj.",
        )
    if groups and len(parts) != 3:
        raise BadArgument(
            what,
            expected="query, key and value with groups",
            got=len(parts),
            remedy="Leave out groups, or name three parts.",
        )


def _shares(layout: str, heads: int, groups: int, parts: int) -> tuple[int, list[int]]:
    """Into how many blocks the fused dimension is cut, and the share of each part in a block."""
    groups = groups or heads
    if layout == "concat":
        return 1, [heads, groups, groups] if groups and parts == 3 else [1] * parts
    return groups, [heads // groups, 1, 1] if parts == 3 else [1] * parts


def _blocked(array: Array, dim: int, blocks: int, what: str) -> Array:
    size = array.shape[dim]
    if size % blocks:
        raise BadArgument(
            what,
            expected=f"a size that {blocks} divides",
            got=size,
            remedy="Check heads and groups against the model's configuration.",
        )
    return reshaped(array, (*array.shape[:dim], blocks, size // blocks, *array.shape[dim + 1 :]))


def _joined(array: Array, dim: int) -> Array:
    size = array.shape[dim] * array.shape[dim + 1]
    return reshaped(array, (*array.shape[:dim], size, *array.shape[dim + 2 :]))


@dataclass(frozen=True)
class Fuse:
    """One tensor out of those whose names differ in `parts`; `to` stands in their place.

    `parts`: patterns, in the order of the result ("q_proj", "k_proj", "v_proj"). `heads` and
    `groups` (of keys and values; 0: as many as heads) are needed where the layout is not
    "concat". `dim`: the fused dimension (1 where weights are stored transposed, as in GPT-2);
    for tensors of one dimension (biases) always their only one.
    """

    parts: tuple[str, ...]
    to: str
    layout: Layout = "concat"
    heads: int = 0
    groups: int = 0
    dim: int = 0
    op: ClassVar[str] = "fuse"

    def __post_init__(self) -> None:
        _check("fuse", self.layout, self.heads, self.groups, self.parts)

    def apply(self, inventory: Inventory) -> None:
        """Raises `UnknownTensor` where one of the parts is missing, `BadArgument` for sizes."""
        first = patterns.compiled(self.parts[0])
        found = [name for name in inventory if first.matches(name)]
        if not found:
            inventory.notes.append(f"no name matches {self.parts[0]!r} to fuse")
        for name in found:
            names = [first.renamed(name, patterns.pieces(part, "fuse")) for part in self.parts]
            for part in names:
                if part not in inventory:
                    raise UnknownTensor(
                        inventory.subject,
                        expected=f"{part!r} beside {name!r}",
                        got="no such name",
                        remedy="Name parts that lie beside each other.",
                    )
            made = self._fused([inventory[part] for part in names])
            inventory.replace(names, {first.renamed(name, patterns.pieces(self.to, "fuse")): made})

    def _fused(self, arrays: list[Array]) -> Array:
        dim = require_dim(arrays[0].shape, self.dim if len(arrays[0].shape) > 1 else 0)
        blocks, _ = _shares(self.layout, self.heads, self.groups, len(arrays))
        if blocks == 1:
            return Joined(tuple(arrays), dim)
        cut = tuple(_blocked(array, dim, blocks, "fuse") for array in arrays)
        return _joined(Joined(cut, dim + 1), dim)

    def inverse(self) -> Split:
        """Split it again."""
        return Split(self.to, self.parts, self.layout, self.heads, self.groups, self.dim)


@dataclass(frozen=True)
class Split:
    """Several tensors out of each that `pattern` matches, with `parts` in its place.

    Fields as of `Fuse`. Without `heads` the parts are of equal size.
    """

    pattern: str
    parts: tuple[str, ...]
    layout: Layout = "concat"
    heads: int = 0
    groups: int = 0
    dim: int = 0
    op: ClassVar[str] = "split"

    def __post_init__(self) -> None:
        _check("split", self.layout, self.heads, self.groups, self.parts)

    def apply(self, inventory: Inventory) -> None:
        """Raises `BadArgument` for sizes that cannot be cut so, `NameCollision`."""
        pattern = patterns.compiled(self.pattern)
        found = [name for name in inventory if pattern.matches(name)]
        if not found:
            inventory.notes.append(f"no name matches {self.pattern!r} to split")
        for name in found:
            names = [pattern.renamed(name, patterns.pieces(part, "split")) for part in self.parts]
            made = dict(zip(names, self._cut(inventory[name]), strict=False))
            if len(made) < len(names):
                raise BadArgument(
                    "split",
                    expected="parts with names of their own",
                    got=names[0],
                    remedy="Name each part otherwise.",
                )
            inventory.replace([name], made)

    def _cut(self, array: Array) -> list[Array]:
        dim = require_dim(array.shape, self.dim if len(array.shape) > 1 else 0)
        blocks, shares = _shares(self.layout, self.heads, self.groups, len(self.parts))
        if array.shape[dim] % (blocks * sum(shares)):
            raise BadArgument(
                "split",
                expected=f"a size that {blocks * sum(shares)} divides",
                got=array.shape[dim],
                remedy="Check heads, groups and dim against the model's configuration.",
            )
        cut = _blocked(array, dim, blocks, "split")
        one, at, made = cut.shape[dim + 1] // sum(shares), 0, []
        for share in shares:
            made.append(_joined(sliced(cut, dim + 1, at, at + share * one), dim))
            at += share * one
        return made

    def inverse(self) -> Fuse:
        """Fuse them again."""
        return Fuse(self.parts, self.pattern, self.layout, self.heads, self.groups, self.dim)
