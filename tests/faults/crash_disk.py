"""A disk that loses what was not synced: system calls are recorded, and replayed without some.

What is durable, told as badly as POSIX allows: an entry of a folder once that folder was synced
after it, the bytes and the length of a file once that file was. Everything else may be there or
not, in any combination, bytes also by half or as zeros. Only a single rename is atomic.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tensorkeep.stores import commit
from tensorkeep.stores.local import kernel
from tensorkeep.training import locking

Tree = dict[str, "bytes | Tree"]
HALF, ZEROS = "half", "zeros"


@dataclass(frozen=True)
class Op:
    """`node` is what has to be synced for it to last. `entries`: (folder, name, node or None)."""

    kind: str  # "entries", "data", "size" or "sync"
    node: int
    entries: tuple[tuple[int, str, int | None], ...] = ()
    at: int = 0
    data: bytes = b""

    def apply(self, nodes: dict[int, dict[str, int] | bytes], way: str = "") -> None:
        if self.kind == "entries":
            for folder, name, node in self.entries:
                if node is None:
                    nodes[folder].pop(name, None)
                else:
                    nodes[folder][name] = node
        elif self.kind == "data":
            data = {HALF: self.data[: len(self.data) // 2], ZEROS: bytes(len(self.data))}
            data = data.get(way, self.data)
            old = nodes[self.node].ljust(self.at, b"\0")
            nodes[self.node] = old[: self.at] + data + old[self.at + len(data) :]
        elif self.kind == "size":
            nodes[self.node] = nodes[self.node][: self.at].ljust(self.at, b"\0")

    def ways_to_fail(self) -> tuple[str, ...]:
        return ("lost", HALF, ZEROS) if self.kind == "data" else ("lost",)


class Disk:
    """What lies below `root`, which is durable, and the operations since."""

    def __init__(self, root: Path) -> None:
        self.root, self.ops = root, list[Op]()
        self.start: dict[int, dict[str, int] | bytes] = {}
        self._numbers = itertools.count()
        self._take(root)
        self.kinds = {number: type(node) for number, node in self.start.items()}
        self.now = self._copy()

    def _take(self, path: Path) -> int:
        number = next(self._numbers)
        if path.is_dir():
            self.start[number] = {}  # before those in it, so that the root is node 0
            self.start[number] = {
                each.name: self._take(each)
                for each in sorted(path.iterdir())
                if each.name != locking.NAME
            }
        else:
            self.start[number] = path.read_bytes()
        return number

    def _copy(self) -> dict[int, dict[str, int] | bytes]:
        nodes = {number: kind() for number, kind in self.kinds.items()}
        return nodes | {n: dict(e) if isinstance(e, dict) else e for n, e in self.start.items()}

    def moved(self, count: int, root: Path) -> Disk:
        """This disk after its first `count` operations, going on in another folder."""
        made = Disk.__new__(Disk)
        made.root, made.ops, made.start = root, self.ops[:count], self.start
        made.kinds, made._numbers = dict(self.kinds), itertools.count(max(self.kinds) + 1)
        made.now = made._copy()
        for op in made.ops:
            op.apply(made.now)
        write(made.tree_of(made.now), root)
        return made

    # While it is recorded.

    def node(self, path: Path) -> int:
        number = 0
        for part in path.relative_to(self.root).parts:
            number = self.now[number][part]
        return number

    def new(self, kind: type) -> int:
        number = next(self._numbers)
        self.kinds[number], self.now[number] = kind, kind()
        return number

    def does(self, op: Op) -> None:
        op.apply(self.now)
        self.ops.append(op)

    def names(self, *entries: tuple[Path, int | None]) -> None:
        folder = self.node(entries[0][0].parent)
        made = tuple((self.node(path.parent), path.name, node) for path, node in entries)
        assert {each[0] for each in made} == {folder}
        self.does(Op("entries", folder, made))

    # Afterwards.

    def loose(self, count: int) -> list[int]:
        """Which of the first `count` operations are not durable."""
        synced: set[int] = set()
        found = []
        for index in reversed(range(count)):
            op = self.ops[index]
            if op.kind == "sync":
                synced.add(op.node)
            elif op.node not in synced:
                found.append(index)
        return found[::-1]

    def after(self, count: int, failed: dict[int, str]) -> Tree | None:
        """What a crash leaves; None if a folder would have two names, which none can have."""
        nodes = self._copy()
        for index, op in enumerate(self.ops[:count]):
            way = failed.get(index, "")
            if way != "lost":
                op.apply(nodes, way)
        return self.tree_of(nodes)

    def tree_of(self, nodes: dict[int, dict[str, int] | bytes]) -> Tree | None:
        seen: set[int] = set()

        def tree(number: int) -> Tree:
            if number in seen:
                raise RecursionError
            seen.add(number)
            each = nodes[number].items()
            return {n: tree(c) if isinstance(nodes[c], dict) else nodes[c] for n, c in each}

        try:
            return tree(0)
        except RecursionError:
            return None

    def crashes(self, first: int = 0) -> Iterator[tuple[int, Tree]]:
        """Every prefix from `first` on; in each all, every single and every pair of failures."""
        for count in range(first, len(self.ops) + 1):
            single = [(i, way) for i in self.loose(count) for way in self.ops[i].ways_to_fail()]
            pairs = (p for p in itertools.combinations(single, 2) if p[0][0] != p[1][0])
            everything = [(i, "lost") for i in self.loose(count)]
            for failed in ([], everything, *([one] for one in single), *pairs):
                made = self.after(count, dict(failed))
                if made is not None:
                    yield count, made

    def random_crashes(self, many: int, seed: int) -> Iterator[tuple[int, Tree]]:
        """Any prefix, any subset of what is not durable."""
        chance = random.Random(seed)
        for _ in range(many):
            count, share = chance.randint(0, len(self.ops)), chance.random()
            failed = {
                i: chance.choice(self.ops[i].ways_to_fail())
                for i in self.loose(count)
                if chance.random() < share
            }
            made = self.after(count, failed)
            if made is not None:
                yield count, made


def write(tree: Tree, folder: Path) -> None:
    """Make a folder of a tree."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, each in tree.items():
        if isinstance(each, dict):
            write(each, folder / name)
        else:
            (folder / name).write_bytes(each)


def frozen(tree: Tree) -> object:
    """The same as something that can be in a set."""
    return frozenset((n, frozen(e) if isinstance(e, dict) else e) for n, e in tree.items())


class Recorder:
    """Everything that this process does below the disk's root, in the order in which it does it."""

    def __init__(self, disk: Disk, patch: pytest.MonkeyPatch, *, bare: bool = False) -> None:
        self.disk, self._patch = disk, patch
        self._open: dict[int, int] = {}
        self._lock = threading.RLock()
        if bare:
            patch.setattr(kernel, "_function", lambda name: None)
        self._put(os, "open", self._opened)
        self._put(os, "dup", lambda made, old: self._open.update({made: self._open[old]}))
        self._put(os, "close", lambda _, descriptor: self._open.pop(descriptor, None))
        self._put(os, "pwrite", self._written)
        self._put(os, "ftruncate", lambda _, descriptor, size: self._sized(descriptor, size))
        self._put(os, "fsync", lambda _, descriptor: self._synced(descriptor))
        self._put(os, "mkdir", lambda _, path, *rest: self._made(path))
        for name in ("rename", "replace"):
            self._put(os, name, lambda _, old, new: self._renamed(old, new))
        for name in ("unlink", "rmdir", "remove"):
            self._put(os, name, lambda _, path: self._named((path, None)))
        self._put(os, "link", self._linked)
        self._put(kernel, "fallocate", lambda done, fd, size: done and self._sized(fd, size))
        self._put(kernel, "rename", self._exchanged)

    def _put(self, owner: object, name: str, note: Callable[..., object]) -> None:
        real = getattr(owner, name)

        def call(*arguments: object, **options: object) -> object:
            with self._lock:
                result = real(*arguments, **options)
                if self._ours(options.get("dst_dir_fd", arguments[0])):
                    note(result, *arguments, **options)
                return result

        self._patch.setattr(owner, name, call)

    def _ours(self, argument: object) -> bool:
        return argument in self._open if isinstance(argument, int) else bool(self._path(argument))

    def _path(self, argument: object) -> Path | None:
        if not isinstance(argument, str | os.PathLike):
            return None
        path = Path.cwd() / argument
        below = path == self.disk.root or self.disk.root in path.parents
        return path if below and path.name != locking.NAME else None

    def _opened(self, made: int, path: object, flags: int, *_: object) -> None:
        path = self._path(path)
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            self._open[made] = self.disk.new(bytes)
            return
        if flags & os.O_CREAT and path.name not in self.disk.now[self.disk.node(path.parent)]:
            self.disk.names((path, self.disk.new(bytes)))
        self._open[made] = self.disk.node(path)

    def _written(self, count: int, descriptor: int, data: object, at: int) -> None:
        self.disk.does(Op("data", self._open[descriptor], at=at, data=bytes(data[:count])))

    def _sized(self, descriptor: int, size: int) -> None:
        self.disk.does(Op("size", self._open[descriptor], at=size))

    def _synced(self, descriptor: int) -> None:
        self.disk.does(Op("sync", self._open[descriptor]))

    def _made(self, path: object) -> None:
        self._named((path, self.disk.new(dict)))

    def _named(self, *entries: tuple[object, int | None]) -> None:
        self.disk.names(*((self._path(path), node) for path, node in entries))

    def _renamed(self, old: object, new: object) -> None:
        self._named((old, None), (new, self.disk.node(self._path(old))))

    def _linked(self, _: object, old: str, new: str, *, dst_dir_fd: int) -> None:
        folder, node = self._open[dst_dir_fd], self._open[int(Path(old).name)]
        self.disk.does(Op("entries", folder, ((folder, new, node),)))

    def _exchanged(self, done: bool, old: object, new: object, flag: int) -> None:
        if done and flag == kernel.EXCHANGE:
            nodes = [self.disk.node(self._path(each)) for each in (old, new)]
            self._named((old, nodes[1]), (new, nodes[0]))
        elif done:
            self._renamed(old, new)


def leftovers(run: Path) -> list[str]:
    """What is only there while something is under way."""
    endings = (commit.WRITING, commit.DELETING, commit.ASIDE)
    return sorted(each.name for each in run.iterdir() if each.name.endswith(endings))
