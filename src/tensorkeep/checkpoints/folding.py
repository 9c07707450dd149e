"""The names of a checkpoint as a tree, with repeated blocks written once.

Twelve equal transformer layers are one line `{0..11}` with one layer below it. Only what is
really a product is folded: neighbours under one parent whose whole subtrees have the same
names, dtypes and shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tensorkeep.checkpoints.tensor import TensorRef

# Names may hold any number of dots; below this depth the rest of a name is one label.
_DEEPEST = 24


@dataclass(slots=True)
class Node:
    """A part of a name. `count` of them stand here, folded; sums are over all of them."""

    label: str
    ref: TensorRef | None = None
    count: int = 1
    tensors: int = 0
    parameters: int = 0
    nbytes: int = 0
    children: list[Node] = field(default_factory=list)
    signature: int = 0


def tree(named: Iterable[tuple[Sequence[str], TensorRef]]) -> list[Node]:
    """The roots of the tree over (labels of the branches, tensor) pairs, folded."""
    top: dict[str, object] = {}
    for labels, ref in named:
        _insert(top, labels, ref)
    return _fold(_nodes(top))


def labels_of(name: str) -> list[str]:
    """A name cut at its dots."""
    return name.split(".", _DEEPEST)


def _insert(top: dict[str, object], labels: Sequence[str], ref: TensorRef) -> None:
    here = top
    for label in labels[:-1]:
        below = here.get(label)
        if isinstance(below, TensorRef):
            # A tensor and a branch of one name: the branch takes its place and holds it.
            below = here[label] = {"": below}
        if not isinstance(below, dict):
            below = here[label] = {}
        here = below
    last = labels[-1]
    known = here.get(last)
    if isinstance(known, dict):
        known[""] = ref
    else:
        here[last] = ref


def _nodes(level: dict[str, object]) -> list[Node]:
    made = []
    for label, below in level.items():
        if isinstance(below, TensorRef):
            made.append(_leaf(label, below))
        else:
            assert isinstance(below, dict)
            made.append(_branch(label, _fold(_nodes(below))))
    return made


def _leaf(label: str, ref: TensorRef) -> Node:
    own = ref.tied_to is None
    node = Node(label, ref, tensors=1)
    node.parameters = ref.record.numel if own else 0
    node.nbytes = ref.nbytes if own else 0
    node.signature = hash((ref.dtype, ref.shape, own))
    return node


def _branch(label: str, children: list[Node]) -> Node:
    node = Node(label, children=children)
    node.tensors = sum(child.tensors for child in children)
    node.parameters = sum(child.parameters for child in children)
    node.nbytes = sum(child.nbytes for child in children)
    node.signature = hash(tuple((c.label, c.count, c.signature) for c in children))
    return node


def _fold(nodes: list[Node]) -> list[Node]:
    """Runs of numbered neighbours with equal insides become one node."""
    folded: list[Node] = []
    run: list[Node] = []
    for node in nodes:
        if run and not _continues(run[-1], node):
            folded.append(_one(run))
            run = []
        run.append(node)
    return [*folded, _one(run)] if run else folded


def _continues(last: Node, node: Node) -> bool:
    if not (node.children and last.label.isdecimal() and node.label.isdecimal()):
        return False
    return int(node.label[:18]) == int(last.label[:18]) + 1 and node.signature == last.signature


def _one(run: list[Node]) -> Node:
    if len(run) == 1:
        return run[0]
    first, last = run[0], run[-1]
    return Node(
        f"{{{first.label}..{last.label}}}",
        None,
        len(run),
        sum(node.tensors for node in run),
        sum(node.parameters for node in run),
        sum(node.nbytes for node in run),
        first.children,
        first.signature,
    )
