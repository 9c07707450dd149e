"""What edits work on: the tensors of a checkpoint by name, none of them read yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from tensorkeep.checkpoints.tensor import TensorRef, tensor_of
from tensorkeep.edits.arrays import Array, Stored
from tensorkeep.errors import BadArgument, NameCollision


@dataclass(slots=True)
class Inventory:
    """Tensors by name, in the order of the file; edits change it in place.

    `subject` is the checkpoint, for messages. `notes` are sentences for the user (an edit that
    matched nothing). `origin`: for each name, the names in the source that it was made from.
    `opens` gives the weights of another checkpoint by its path, open until all is written.
    """

    subject: str
    tensors: dict[str, Array]
    notes: list[str] = field(default_factory=list)
    origin: dict[str, tuple[str, ...]] = field(default_factory=dict)
    opens: Callable[[str], Inventory] | None = None

    @classmethod
    def of(cls, subject: str, refs: Mapping[str, TensorRef]) -> Inventory:
        """The tensors that `Checkpoint.select` gives."""
        return cls(
            subject,
            {name: Stored(ref) for name, ref in refs.items()},
            origin={name: (name,) for name in refs},
        )

    def __getitem__(self, name: str) -> Array:
        return tensor_of(self.tensors, name, self.subject)

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def copy(self) -> Inventory:
        """Another one of the same tensors; changes to it are not seen here."""
        own = dict(self.tensors), list(self.notes), dict(self.origin)
        return Inventory(self.subject, *own, self.opens)

    def other(self, path: str) -> Inventory:
        """The weights of the checkpoint at `path`. Raises what opening it raises."""
        if self.opens is None:
            raise BadArgument(
                "an edit that takes tensors from another checkpoint",
                expected="to be applied where checkpoints can be opened, as convert does",
                got=path,
                remedy="Pass the edit to convert, or open the other checkpoint with Others.",
            )
        return self.opens(path)

    def rename(self, new_name: Callable[[str], str]) -> int:
        """Give every tensor the name that `new_name` makes of its own; how many changed.

        Raises `NameCollision` if two would have the same.
        """
        renamed: dict[str, Array] = {}
        before: dict[str, str] = {}
        for old, array in self.tensors.items():
            new = new_name(old)
            if new in renamed:
                raise NameCollision(
                    self.subject,
                    expected="a name of its own for each tensor",
                    got=f"{before[new]!r} and {old!r} would both be {new!r}",
                    remedy="Rename more narrowly, or drop one of them first.",
                )
            renamed[new], before[new] = array, old
        self.origin = {new: self.origin.get(old, ()) for new, old in before.items()}
        self.tensors = renamed
        return sum(new != old for new, old in before.items())

    def put(self, name: str, array: Array, origin: tuple[str, ...] = ()) -> None:
        """Set the tensor `name`. `origin`: names in the *source*; by default as before."""
        self.tensors[name] = array
        self.origin[name] = origin or self.origin.get(name, ())

    def drop(self, names: list[str]) -> int:
        """Take the tensors `names`, which are here, out; how many."""
        for name in names:
            del self.tensors[name]
            self.origin.pop(name, None)
        return len(names)

    def replace(self, old: Mapping[str, object] | list[str], new: Mapping[str, Array]) -> None:
        """Take the tensors `old` out and put `new` where the first of them stood.

        Raises `NameCollision` if a new name is one that stays, `UnknownTensor` if an old one
        is not here.
        """
        gone = list(old)
        origin = tuple(source for name in gone for source in self.origin.get(name, ()))
        for name in gone:
            self[name]
        for name in new:
            if name in self.tensors and name not in gone:
                raise NameCollision(
                    self.subject,
                    expected="a name that is free",
                    got=f"{name!r}, which another tensor has",
                    remedy="Drop or rename that one first.",
                )
        kept: dict[str, Array] = {}
        for name, array in self.tensors.items():
            if gone and name == gone[0]:
                kept |= new
            if name not in gone:
                kept[name] = array
        self.tensors = kept if gone else kept | dict(new)
        self.origin |= dict.fromkeys(new, origin)
        for name in gone:
            if name not in self.tensors:
                self.origin.pop(name, None)
