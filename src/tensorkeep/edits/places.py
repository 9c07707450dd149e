"""Where tensors that edits renamed stand in a nested checkpoint, and what moves along with them.

Edits know names, which are paths joined with dots. The keys that a name still begins and ends with
are those of its path; what edits changed lies between them and is one key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tensorkeep.checkpoints.index import Path, name_of


def moved(path: Path, name: str) -> tuple[Path, int, int]:
    """The new path of what stood under `path` and is called `name` now.

    Also how many keys at its beginning, and how many at its end, are those of `path`.
    """
    keys, rest, first, last = [str(key) for key in path], name, 0, 0
    while first < len(keys) - 1 and rest.startswith(f"{keys[first]}."):
        rest = rest[len(keys[first]) + 1 :]
        first += 1
    while rest and first + last < len(keys):
        key = keys[-1 - last]
        if rest != key and not rest.endswith(f".{key}"):
            break
        rest = rest[: -len(key) - 1] if rest != key else ""
        last += 1
    # What left its section altogether went into another, whose name is the first part.
    into = not first and not last and len(path) > 1
    between = tuple(rest.split(".", 1 if into else 0)) if rest else ()
    return path[:first] + between + path[len(path) - last :], first, last


class Places:
    """Paths of the tensors `now`, a name to the name that it had, or to none if it is new.

    `before`: the path of each tensor of the source. `tensors`: the new ones.
    """

    def __init__(self, before: Mapping[str, Path], now: Mapping[str, str | None]) -> None:
        self.tensors: dict[str, Path] = {}
        self._moves: dict[Path, dict[Path, None]] = {}
        self._homes: dict[Path, Path] = {(): ()}
        for name, old in now.items():
            if old is not None:
                self.tensors[name] = self._moved(before[old], name, old)
        for name in now.keys() - self.tensors.keys():
            self.tensors[name] = self._beside(name, {path[:-1] for path in before.values()})

    def _moved(self, path: Path, name: str, old: str) -> Path:
        new, first, last = (path, len(path), 0) if name == old else moved(path, name)
        for size in range(1, len(path)):
            behind = len(path) - size
            if size <= first:
                self._moves.setdefault(path[:size], {})[path[:size]] = None
            elif behind <= last:
                self._moves.setdefault(path[:size], {})[new[: len(new) - behind]] = None
        return new

    def _beside(self, name: str, containers: Iterable[Path]) -> Path:
        """In the innermost container whose name it begins with."""
        found = [path for path in containers if path and name.startswith(f"{name_of(path)}.")]
        home = max(found, key=len, default=())
        return (*home, name.removeprefix(f"{name_of(home)}.") if home else name)

    def home(self, container: Path) -> Path:
        """Where what stands in `container` beside tensors goes: with them if all went one way."""
        todo = [container[:size] for size in range(1, len(container) + 1)]
        for path in todo:
            if path not in self._homes:
                ways = self._moves.get(path, {})
                stays = len(ways) != 1 or path in ways
                parent = self._homes[path[:-1]]
                self._homes[path] = (*parent, path[-1]) if stays else next(iter(ways))
        return self._homes[container]
