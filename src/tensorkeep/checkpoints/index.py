"""From the value that a file holds to names: which tensor lies under which path.

The tree may come from a hostile file: it can be as deep as the file is long, share its parts
(so that it is exponentially large written out) and contain itself. The walk is iterative, and
bounded by `Limits.max_expansion`; sizes of shared parts tell early where it would end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from tensorkeep.errors import Amplified, LimitExceeded, NameCollision
from tensorkeep.facts import Limits
from tensorkeep.formats.assembled import Module, Sweep, sweep
from tensorkeep.formats.contents import Contents, Graft, Inert, Items, Lens, TensorRecord
from tensorkeep.pickles import describe
from tensorkeep.pickles.sharing import MOST, Sizes

Path = tuple[object, ...]
_Seen = tuple[object, Lens]
_LONGEST_KEY = 256
# Values that are walked before it is asked how many there are: so many, or as many as a few times
# the bytes. Honest files end before; one of two kilobytes must not buy seconds.
_UNWEIGHED, _UNWEIGHED_TIMES = 1 << 14, 4
_WEIGHED = 1 << 14  # containers that are asked for theirs where the walk ends anyway, too deep
_Values = dict[object, object]
_ATOMS = (str, int, float, bytes, bool, type(None))


@dataclass(slots=True)
class Whole:
    """A module saved whole: where it stands, and how many tensors were met before it."""

    path: Path
    module: Module
    before: int
    lens: Lens


@dataclass(slots=True)
class Index:
    """What the walk found. `values` is the tree with the tensors taken out.

    `modules` are in the order of the walk, each before what lies in it. `swept` is what the
    programs would make of tensors altogether, whether it lies below the root or not. `spelled`:
    nodes that the bytes of the file can spell out without sharing any.
    """

    tensors: list[tuple[Path, TensorRecord]] = field(default_factory=list)
    leaves: list[tuple[Path, object]] = field(default_factory=list)
    attributes: dict[Path, dict[str, object]] = field(default_factory=dict)
    types: dict[Path, str] = field(default_factory=dict)
    modules: list[Whole] = field(default_factory=list)
    swept: Sweep = field(default_factory=Sweep)
    values: object = None
    spelled: int = 0


def build(contents: Contents, limits: Limits, subject: str) -> Index:
    """Walk `contents.root`.

    Raises `LimitExceeded` when shared parts write out too large, `Amplified` when that is
    `Limits.max_ratio` times what the bytes of the file spell.
    """
    walk = Walk(limits, subject, contents)
    walk.sweep(contents)
    walk.run(contents.root, contents.lens)
    walk.index.values = walk.finish()
    walk.index.spelled = walk.honest
    return walk.index


def _spelled(contents: Contents) -> int:
    pickled = sum(program.end - program.start for _, program in contents.programs)
    nested = sum(_spelled(inside) for _, inside in contents.nested)
    return pickled + nested + len(contents.storages) + len(contents.aliases)


@dataclass(slots=True)
class _Way:
    """A container that is being walked: what is left of it, and the dict for what is no tensor.

    `chars`: how long the names in its path are together.
    """

    path: Path
    children: Iterator[tuple[object, object]]
    look: Lens
    inside: _Values
    value: object
    chars: int


def _chars(path: Path) -> int:
    return sum([len(key) for key in path if isinstance(key, str)])


class Walk:
    """One depth-first walk, in the order of the file.

    `tells`: whether a subclass wants `_leaf` to be called for each tensor.
    """

    tells = False

    def __init__(self, limits: Limits, subject: str, contents: Contents) -> None:
        self.index = Index()
        self.honest = _spelled(contents)
        self.most = limits.max_expansion + self.honest
        # The rest of `most` is granted by `_weigh`: nearly every checkpoint ends before.
        self.budget = min(self.most, max(_UNWEIGHED, _UNWEIGHED_TIMES * self.honest))
        self.rest = self.most - self.budget
        self.weighed = False
        self.limits = limits
        self.whole = contents
        self.subject = subject
        self.active: set[int] = set()
        self.made: list[tuple[object, _Values, _Values, int, bool]] = []
        self.top: dict[object, object] = {}
        self.swept: set[int] = set()

    def sweep(self, contents: Contents) -> None:
        """Views beyond their storages are found wherever they stand: as a key, in a state."""
        if id(contents) not in self.swept:
            self.swept.add(id(contents))
            found, all_ = sweep(contents.lens), self.index.swept
            all_.records += found.records
            all_.compounds += found.compounds
            all_.notes += [note for note in found.notes if note not in all_.notes]

    def run(self, root: object, lens: Lens) -> None:
        """Walk what lies below `root`. Raises `LimitExceeded`, `Amplified`."""
        ways: list[_Way] = []
        self.budget -= 1
        if self.budget < 0:
            self._weigh(())
        self._meet((), root, lens(root), lens, self.top, ways)
        while ways:
            way = ways[-1]
            if self._follow(way, ways):
                ways.pop()
                self.active.discard(id(way.value))

    def _follow(self, way: _Way, ways: list[_Way]) -> bool:
        """Go on along `way` to its end, or to the first container: then that is the last way.

        Tensors are kept here and without further calls: they are nearly all there is.
        """
        path, look, tensors, chars = way.path, way.look, self.index.tensors, way.chars
        deep, tells = len(path) >= self.limits.max_depth, self.tells
        for key, raw in way.children:
            self.budget -= 1
            if self.budget < 0:
                self._weigh((*path, key))
            if deep:
                self._too_deep((*path, key))
            value = look(raw)
            if type(value) is TensorRecord and type(key) is str and not tells:
                tensors.append(((*path, key), value))
                # One key of a megabyte above thousands of tensors would be written out for each.
                self.budget -= (chars + len(key)) >> 4
                continue
            self._meet((*path, key), raw, value, look, way.inside, ways)
            if ways[-1] is not way:
                return False
        return True

    def _meet(
        self,
        path: Path,
        raw: object,
        value: object,
        look: Lens,
        parent: _Values,
        ways: list[_Way],
    ) -> None:
        """Keep what is no container, and begin a way into what is."""
        if isinstance(value, Graft):
            look = value.contents.lens
            self.sweep(value.contents)
            value = look(value.contents.root)
        children = self._children(path, value, look)
        if children is None:
            self._leaf(path, value, parent)
            return
        if id(value) in self.active:
            self._leaf(path, Inert("a part that contains itself"), parent)
            return
        self.active.add(id(value))
        inside: _Values = {}
        self._keep(path, inside, parent, len(children), value, raw)
        ways.append(_Way(path, iter(children), look, inside, value, _chars(path)))

    def _too_deep(self, path: Path) -> NoReturn:
        if not self.weighed:
            self._weigh(path, _WEIGHED)
        expected = "values that stay within Limits.max_depth when written out"
        where = name_of(path)[:80]
        raise LimitExceeded(self.subject, expected=expected, got="more", where=where)

    def _weigh(self, path: Path, steps: int = MOST) -> None:
        """Grant the rest of the budget, unless the values are more than that in all.

        What shares parts honestly (one table in ten thousand samples) passes the limit by some
        times the bytes it has, and is unknown; no honest file passes it by `max_ratio` times.
        """
        written = 0
        if not self.weighed:
            self.weighed = True
            sizes = Sizes(_parts, _identity, min(steps, self.most))
            root = (self.whole.root, self.whole.lens)
            written = sizes.of(root)
            self.budget, self.rest = self.budget + self.rest, 0
            if max(written, sizes.circles and sizes.ways(root, self.most)) <= self.most:
                return
        amplified = written > max(self.most, self.limits.max_ratio * self.honest)
        raise (Amplified if amplified else LimitExceeded)(
            self.subject,
            expected="values that stay within Limits.max_expansion when written out",
            got=f"at least {max(written, self.most + 1):,}, out of {self.honest:,} bytes",
            where=name_of(path)[:80],
        )

    def _children(
        self, path: Path, value: object, look: Lens
    ) -> list[tuple[object, object]] | None:
        if isinstance(value, Items):
            self.index.types[path] = value.type
            if value.attributes:
                self.index.attributes[path] = {k: look(v) for k, v in value.attributes.items()}
            return [(_key(key), child) for key, child in value.pairs]
        if isinstance(value, Module):
            self.index.modules.append(Whole(path, value, len(self.index.tensors), look))
            self.budget -= len(value.attributes)  # written out for each place it stands in
            return [(_key(key), child) for key, child in value.children]
        if isinstance(value, dict):
            return [(_key(key), child) for key, child in value.items()]
        if isinstance(value, list | tuple):
            return list(enumerate(value))
        if isinstance(value, set | frozenset):
            return list(enumerate(value))
        return None

    def _leaf(self, path: Path, value: object, parent: dict[object, object]) -> None:
        if isinstance(value, TensorRecord):
            self.index.tensors.append((path, value))
            self.budget -= _chars(path) >> 4
            return
        self.index.leaves.append((path, value))
        parent[path[-1] if path else None] = value

    def _keep(
        self, path: Path, inside: _Values, parent: _Values, count: int, value: object, raw: object
    ) -> None:
        key = path[-1] if path else None
        parent[key] = inside
        is_list = isinstance(value, list | tuple | set | frozenset)
        if isinstance(value, Module):
            count += 1  # a module without tensors is no empty dict
        self.made.append((key, inside, parent, count, is_list))

    def finish(self) -> object:
        """Drop the branches that held only tensors, and make lists of what were lists.

        Deepest first. A list that lost some of its items stays a dict by position: the others
        must not change theirs.
        """
        for key, inside, parent, count, is_list in reversed(self.made):
            if count and not inside:
                parent.pop(key, None)
            elif is_list and len(inside) == count:
                parent[key] = list(inside.values())
        return self.top.get(None, {})


def _parts(seen: _Seen) -> list[_Seen] | None:
    """What the walk would meet below a value; nothing is kept."""
    raw, look = seen
    if type(raw) in _ATOMS:
        return None
    value = look(raw)
    if isinstance(value, Graft):
        look = value.contents.lens
        value = look(value.contents.root)
    if isinstance(value, Items):
        return [(child, look) for _, child in value.pairs]
    if isinstance(value, Module):
        return [(child, look) for _, child in value.children]
    if isinstance(value, dict):
        return [(child, look) for child in value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(child, look) for child in value]
    return None


def _identity(seen: _Seen) -> int:
    return id(seen[0])


def is_key(key: object) -> bool:
    """Whether `key` stands in paths as it is; another stands there in words."""
    # The decimal digits of a huge integer cost the square of its length; Python refuses them.
    huge = isinstance(key, int) and key.bit_length() > _LONGEST_KEY
    return isinstance(key, _ATOMS) and not huge


def _key(key: object) -> object:
    return key if type(key) is str or is_key(key) else describe(key, 80)


def name_of(path: Path) -> str:
    """The keys joined with dots; "tensor" where the file holds nothing but one."""
    return ".".join([key if type(key) is str else str(key) for key in path]) if path else "tensor"


def names(paths: list[Path], subject: str, *, strict: bool = True) -> list[str]:
    r"""A name for each path, all different.

    A dot inside a key is escaped as `\.` only where two names would collide otherwise. Raises
    `NameCollision` when that does not tell them apart (the keys 1 and "1", say); without
    `strict` such names are quoted as Python would, for showing.
    """
    made = [path[0] if len(path) == 1 and type(path[0]) is str else name_of(path) for path in paths]
    if len(set(made)) == len(made):
        return made
    count: dict[str, int] = {}
    for name in made:
        count[name] = count.get(name, 0) + 1
    for at, name in enumerate(made):
        if count[name] > 1:
            made[at] = ".".join(str(key).replace(".", "\\.") for key in paths[at])
    taken: set[str] = set()
    for at, name in enumerate(made):
        if name in taken and not strict:
            made[at] = _another(".".join(repr(key) for key in paths[at]), taken)
        elif name in taken:
            raise NameCollision(
                subject,
                expected="a name of its own for each tensor",
                got=f"two tensors named {name!r}",
                remedy="Pick one part with --section, or rename one of the keys.",
            )
        taken.add(made[at])
    return made


def _another(name: str, taken: set[str]) -> str:
    """`name`, numbered if it is taken: keys that only running the file would make look alike."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free
