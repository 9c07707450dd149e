"""A DeepSpeed checkpoint folder: what each rank saved, as one, and the weights put together.

Source: DeepSpeed 0.19 `runtime/engine.py` (names of files and keys) and `utils/zero_to_fp32.py`.
`mp_rank_MM_model_states.pt` has the module (16 bit where it is trained so) and the counters,
`[bf16_]zero_pp_rank_RR_mp_rank_MM_optim_states.pt` each rank's partition of the fp32 weights and
the optimizer's state; in stage 3 every rank has a `zero_pp_rank_RR_mp_rank_MM_model_states.pt`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tensorkeep.errors import Damaged, ReadError, Unsupported
from tensorkeep.formats import _zero_parts as parts_
from tensorkeep.formats._values import size_of
from tensorkeep.formats.contents import (
    Contents,
    Graft,
    Inert,
    Items,
    TensorRecord,
    plain,
    sizes,
)
from tensorkeep.pickles import Call, Global

NAME = "deepspeed"
LATEST = "latest"
_MODEL = re.compile(r"(?:zero_pp_rank_(?P<rank>\d{1,6})_)?mp_rank_(?P<mp>\d{1,6})_model_states\.pt")
_OPTIM = re.compile(
    r"(?:[a-z0-9]+_)?zero_pp_rank_(?P<rank>\d{1,6})_mp_rank_(?P<mp>\d{1,6})_optim_states\.pt"
)
_SUFFIXES = ("_model_states.pt", "_optim_states.pt")
_UNIVERSAL = "DeepSpeed itself puts such weights together (zero_to_fp32.py, ds_to_universal)."
# Keys of a model file that say how the weights are cut; the rest are values.
_PLAN = frozenset(
    [
        "module",
        "buffer_names",
        "param_shapes",
        "frozen_param_shapes",
        "shared_params",
        "frozen_param_fragments",
    ]
)


def own_files(names: list[str]) -> list[str]:
    """Those of `names` that are one checkpoint of DeepSpeed's; none if it is none."""
    if not any(_MODEL.fullmatch(name) or _OPTIM.fullmatch(name) for name in names):
        return []
    return [name for name in sorted(names) if name.endswith(_SUFFIXES)]


@dataclass(slots=True)
class _File:
    """One file, its lens at hand: `fields` is the dict that it holds."""

    name: str
    contents: Contents
    fields: dict[object, object] = field(default_factory=dict)

    def look(self, value: object) -> object:
        return self.contents.lens(value)

    def mapping(self, value: object) -> dict[object, object] | None:
        """`value` as a dict, if it is a mapping."""
        seen = self.look(value)
        if isinstance(seen, Items):
            return dict(seen.pairs) if all(_plain(key) for key, _ in seen.pairs) else None
        return seen if isinstance(seen, dict) else None


def _plain(key: object) -> bool:
    return isinstance(key, str | int)


def read(names: list[str], examine: Callable[[str], Contents]) -> Contents:
    """The checkpoint in the files `names`, each opened by `examine`; `Contents.error` included."""
    contents = Contents(NAME, "directory", {}, plain, {})
    files: dict[str, _File] = {}
    for name in names:
        try:
            inside = examine(name)
        except ReadError as error:
            contents.unreadable.append((name, error))
            continue
        contents.nested.append((name, inside))
        contents.parts.append(name)
        files[name] = _File(name, inside)
        if inside.error is not None:
            contents.error = contents.error or inside.error
            continue
        files[name].fields = files[name].mapping(inside.root) or {}
        for storage in inside.storages.values():
            storage.key = f"{name}:{storage.key}"
    contents.error = contents.error or next((error for _, error in contents.unreadable), None)
    if contents.error is None:
        _Reader(contents, files).fill()
    contents.storages = {s.key: s for f in files.values() for s in f.contents.storages.values()}
    contents.verify = lambda: (
        (f"{name}: {member}", f"{name}:{key}" if key else "", expected, got)
        for name, inside in contents.nested
        for member, key, expected, got in inside.verify()
    )
    return contents


class _Reader:
    """Fills in what the files hold together."""

    def __init__(self, contents: Contents, files: dict[str, _File]) -> None:
        self.contents = contents
        self.models = _by_rank(files, _MODEL)
        self.optims = _by_rank(files, _OPTIM)
        self.others = [n for n in files if not (_MODEL.fullmatch(n) or _OPTIM.fullmatch(n))]
        self.stage = self._stage()

    def fill(self) -> None:
        """Fill `contents.root`, its facts and notes."""
        root: dict[str, object] = {}
        facts = self.contents.facts
        facts["stage"] = str(self.stage) if self.stage is not None else ""
        facts["ranks"] = str(len({rank for rank, _ in self.optims}) or 1)
        split = len({mp for _, mp in [*self.models, *self.optims]}) > 1
        for (rank, mp), file in self.models.items():
            suffix = f"_mp_rank_{mp:02}" if split else ""
            if rank == 0 and self.stage != 3:
                root[f"module{suffix}"] = self._graft(file, file.fields.get("module"))
        if self.optims:
            root["model"] = self._together(split)
            root["optimizer"] = {
                f"rank {rank}" + (f" of part {mp}" if split else ""): Graft(file.contents)
                for (rank, mp), file in self.optims.items()
            }
        self._values(root)
        self.contents.root = root

    def _graft(self, file: _File, value: object) -> Graft:
        return Graft(replace(file.contents, root=value))

    def _values(self, root: dict[str, object]) -> None:
        if not self.models:
            return
        file = next(iter(self.models.values()))
        for key, value in file.fields.items():
            if isinstance(key, str) and key not in _PLAN and key not in root:
                root[key] = self._graft(file, value)
        version = file.fields.get("ds_version")
        if isinstance(version, str):
            self.contents.facts["version"] = version.strip()[:40]

    def _stage(self) -> int | None:
        for file in self.optims.values():
            value = (file.mapping(file.fields.get("optimizer_state_dict")) or {}).get("zero_stage")
            if isinstance(value, Call) and isinstance(value.func, Global):
                args = value.args if isinstance(value.args, tuple) else ()
                value = args[0] if value.func.name == "ZeroStageEnum" and args else None
            return value if type(value) is int and 0 <= value <= 3 else None
        return None

    def _together(self, split: bool) -> object:
        """The fp32 weights by name; an `Inert` that says what to do where that cannot be done."""
        ranks = len(self.optims)
        try:
            if split:
                raise _cannot("a model that is cut over several ranks (model parallel)")
            if self.others:
                raise _cannot(f"experts or layers in files of their own ({self.others[0]})")
            if self.stage not in (1, 2, 3):
                raise _cannot(f"partitions of stage {self.stage}")
            return self._weights(ranks)
        except ReadError as error:
            text = f"the fp32 weights were not put together: {error.sentence()}"
            self.contents.notes.append(text)
            return Inert(f"weights in {ranks} partitions", unread="tensor")

    def _weights(self, ranks: int) -> dict[str, object]:
        models = list(self.models.values())
        if not models:
            raise Damaged("the folder", expected="a file mp_rank_00_model_states.pt", got="none")
        first = models[0]
        groups = self._groups(first)
        vectors = [self._vectors(file) for file in self.optims.values()]
        self._complete(ranks, vectors)
        if self.stage == 3:
            found = parts_.stage_3(groups, vectors)
            found |= self._frozen(models, ranks)
        else:
            paddings = self._state(next(iter(self.optims.values()))).get("param_alignment_paddings")
            found = parts_.stage_2(groups, vectors, paddings)
        return self._in_order(first, found)

    def _state(self, file: _File) -> dict[object, object]:
        state = file.mapping(file.fields.get("optimizer_state_dict"))
        if state is None:
            raise Damaged(file.name, expected="an optimizer_state_dict", got="none")
        return state

    def _complete(self, ranks: int, vectors: list[list[TensorRecord]]) -> None:
        state = self._state(next(iter(self.optims.values())))
        count = state.get("partition_count")
        wanted = max(count, default=0) if isinstance(count, list) and sizes(count) else count
        if wanted != ranks or [rank for rank, _ in self.optims] != list(range(ranks)):
            raise Damaged(
                "the folder",
                expected=f"the optim_states of {wanted} ranks",
                got=f"those of {ranks}",
                remedy="Copy the whole folder again: every rank wrote a part of the weights.",
            )
        if isinstance(count, list) and len(set(count)) > 1:
            raise _cannot("groups with partitions of different numbers (experts)")
        if not all(vectors):
            raise Damaged("partitions", expected="fp32 weights on every rank", got="none")

    def _vectors(self, file: _File) -> list[TensorRecord]:
        key = "fp32_flat_groups" if self.stage == 3 else "single_partition_of_fp32_groups"
        raw = file.look(self._state(file).get(key))
        seen = [file.look(each) for each in raw] if isinstance(raw, list | tuple) else []
        found = [each for each in seen if isinstance(each, TensorRecord) and len(each.shape) == 1]
        if len(found) != len(seen):
            raise Damaged(file.name, expected=f"flat tensors in {key}", got="something else")
        return found

    def _groups(self, file: _File) -> list[dict[str, tuple[int, ...]]]:
        raw = file.look(file.fields.get("param_shapes"))
        listed = raw if isinstance(raw, list | tuple) else [raw]
        return [_shapes(file, each) for each in listed]

    def _frozen(self, models: list[_File], ranks: int) -> dict[str, TensorRecord]:
        first = models[0]
        raw = first.fields.get("frozen_param_shapes")
        if raw is None:
            return {}
        if len(models) != ranks:
            raise Damaged("the folder", expected=f"{ranks} model_states", got=len(models))
        fragments = [f.mapping(f.fields.get("frozen_param_fragments")) or {} for f in models]
        found = {}
        for name, shape in _shapes(first, raw).items():
            own = [f.look(each.get(name)) for f, each in zip(models, fragments, strict=True)]
            records = [each for each in own if isinstance(each, TensorRecord)]
            if len(records) != ranks:
                raise Damaged(name, expected=f"fragments of {ranks} ranks", got=len(records))
            found[name] = parts_.frozen(name, shape, records)
        return found

    def _in_order(self, file: _File, found: dict[str, TensorRecord]) -> dict[str, object]:
        """As the module lists its names: what was put together, buffers, and shared tensors."""
        module = file.mapping(file.fields.get("module")) or {}
        shared = file.mapping(file.fields.get("shared_params")) or {}
        buffers = file.look(file.fields.get("buffer_names"))
        kept = set(buffers) if isinstance(buffers, list) and all(map(_plain, buffers)) else set()
        by_place = self._by_place(file, module, found)
        ordered: dict[str, object] = {}
        for key, raw in module.items():
            name = str(key)
            value = file.look(raw)
            if name in found:
                ordered[name] = found[name]
            elif isinstance(shared.get(name), str) and shared[name] in found:
                ordered[name] = found[str(shared[name])]
            elif isinstance(value, TensorRecord) and _place(value) in by_place:
                ordered[name] = by_place[_place(value)]
            elif name in kept or self.stage != 3:
                ordered[name] = value if isinstance(value, TensorRecord) else self._graft(file, raw)
            else:
                ordered[name] = Inert("a parameter that no rank lists", unread="tensor")
        return ordered | {name: record for name, record in found.items() if name not in ordered}

    def _by_place(
        self, file: _File, module: Mapping[object, object], found: dict[str, TensorRecord]
    ) -> dict[object, TensorRecord]:
        """Tensors that the module holds once and names several times, by where they lie."""
        places = {}
        for name, record in found.items():
            value = file.look(module.get(name))
            if isinstance(value, TensorRecord) and value.numel:
                places[_place(value)] = record
        return places


def _place(record: TensorRecord) -> object:
    return record.storage.key, record.offset, record.shape, record.stride


def _shapes(file: _File, raw: object) -> dict[str, tuple[int, ...]]:
    pairs = file.mapping(raw)
    shapes = {str(name): size_of(shape) for name, shape in (pairs or {}).items()}
    if pairs is None or not all(sizes(s) and min(s, default=0) >= 0 for s in shapes.values()):  # type: ignore[call-overload]
        raise Damaged(file.name, expected="param_shapes: names to sizes", got="something else")
    return shapes  # type: ignore[return-value]


def _by_rank(files: dict[str, _File], pattern: re.Pattern[str]) -> dict[tuple[int, int], _File]:
    found = {}
    for name, file in files.items():
        match = pattern.fullmatch(name)
        if match:
            found[int(match["rank"] or 0), int(match["mp"])] = file
    return dict(sorted(found.items()))


def _cannot(got: str) -> Unsupported:
    return Unsupported(
        "the folder", expected="data parallel partitions", got=got, remedy=_UNIVERSAL
    )
