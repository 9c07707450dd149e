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
    """A part of a name. `count` of them stand here, folded; sums are over all of them.

    `type` is the class of the module that stands here, where the file tells.
    """

    label: str
    ref: TensorRef | None = None
    count: int = 1
    tensors: int = 0
    parameters: int = 0
    nbytes: int = 0
    children: list[Node] = field(default_factory=list)
    signature: int = 0
    type: str = ""


class _Level(dict[str, object]):
    """Labels to tensors and further levels; `type` is the module's class."""

    type = ""


def tree(named: Iterable[tuple[Sequence[str], TensorRef | str]]) -> list[Node]:
    """The roots of the tree over (labels of the branches, tensor) pairs, folded.

    A text in place of the tensor is the class of the module that stands there.
    """
    top = _Level()
    for labels, ref in named:
        _insert(top, labels, ref)
    return _fold(_nodes(top))


def labels_of(name: str) -> list[str]:
    """A name cut at its dots."""
    return name.split(".", _DEEPEST)


def _insert(top: _Level, labels: Sequence[str], item: TensorRef | str) -> None:
    here = top
    branch = labels if isinstance(item, str) else labels[:-1]
    for label in branch:
        below = here.get(label)
        if not isinstance(below, _Level):
            # A tensor and a branch of one name: the branch takes its place and holds it.
            known, below = below, _Level()
            here[label] = below
            if known is not None:
                below[""] = known
        here = below
    if isinstance(item, str):
        here.type = item
        return
    known = here.get(labels[-1])
    if isinstance(known, _Level):
        known[""] = item
    else:
        here[labels[-1]] = item


def _nodes(level: _Level) -> list[Node]:
    made = []
    for label, below in level.items():
        if isinstance(below, TensorRef):
            made.append(_leaf(label, below))
        else:
            assert isinstance(below, _Level)
            made.append(_branch(label, _fold(_nodes(below)), below.type))
    return made


def _leaf(label: str, ref: TensorRef) -> Node:
    own, record = ref.tied_to is None, ref.record
    node = Node(label, ref, tensors=1)
    if own:
        node.parameters = record.numel
        node.nbytes = node.parameters * record.dtype.itemsize
    node.signature = hash((record.dtype.name, record.shape, own))
    return node


def _branch(label: str, children: list[Node], type_: str) -> Node:
    node = Node(label, children=children, type=type_)
    for child in children:
        node.tensors += child.tensors
        node.parameters += child.parameters
        node.nbytes += child.nbytes
    node.signature = hash((type_, *[(c.label, c.count, c.signature) for c in children]))
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
        first.type,
    )
