"""What rounding loses in casts and in computed values: overflow, values that become 0, NaN.

Counted while the values are cast, once for each run of elements however often it is asked for (a
check reads everything again).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from tensorkeep.dtypes import BY_NAME, DType
from tensorkeep.edits import _floats
from tensorkeep.edits.arrays import Array, Cast, as_bytes, as_codes
from tensorkeep.edits.values import cast
from tensorkeep.errors import Unwritable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Codes = NDArray[Any]


_SENTENCES = (
    ("overflow", "value overflows {to}", "values overflow {to}"),
    ("underflow", "value becomes 0 in {to}", "values become 0 in {to}"),
    ("nan", "value is NaN", "values are NaN"),
)


@dataclass(slots=True)
class Tally:
    """What the cast of the tensor `name` lost. With `refuse`, overflow raises `Unwritable`."""

    name: str
    to: DType
    numel: int
    refuse: bool = False
    runs: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def _sum(self, which: int) -> int:
        return sum(counts[which] for counts in self.runs.values())

    @property
    def overflow(self) -> int:
        """How many finite values are beyond the largest of the new dtype."""
        return self._sum(0)

    @property
    def underflow(self) -> int:
        """How many values that were not 0 are now."""
        return self._sum(1)

    @property
    def nan(self) -> int:
        """How many were no numbers before."""
        return self._sum(2)

    def add(self, start: int, counts: tuple[int, int, int]) -> None:
        """Note what the run that begins at element `start` lost."""
        if any(counts):
            self.runs[start] = counts
        if counts[0] and self.refuse:
            raise Unwritable(
                self.name,
                expected=f"values that {self.to} holds",
                got=f"{counts[0]} beyond {_limits(self.to.name)[1]:g} in one piece of it",
                remedy="Choose a dtype with more range (bfloat16), or leave out --on-overflow.",
            )

    def see(self, start: int, values: Codes, codes: Codes) -> None:
        """Note what rounding the computed floats `values` to `codes` lost."""
        of = BY_NAME["float64" if values.dtype.itemsize == 8 else "float32"]
        self.add(start, lost(values, of, codes, self.to))

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "name": self.name,
            "values": self.numel,
            "overflow": self.overflow,
            "underflow": self.underflow,
            "nan": self.nan,
        }


@dataclass(frozen=True)
class CountedCast(Cast):
    """`Cast` of floats to floats; `tally` is told what is lost."""

    tally: Tally = field(compare=False)

    def _codes(self, start: int, stop: int) -> Codes:
        import numpy as np

        source = self.of.codes(start, stop)
        data = cast(as_bytes(source), self.of.dtype, self.to)
        codes = np.frombuffer(data, as_codes(self.to))
        self.tally.add(start, lost(source, self.of.dtype, codes, self.to))
        return codes


def counted(name: str, array: Array, to: DType) -> Array:
    """`array`, called `name`, as `to`; what is lost is counted where floats become floats.

    Raises `Unwritable` for no such cast.
    """
    if array.dtype.is_floating and to.is_floating:
        return CountedCast(array, to, Tally(name, to, array.numel))
    return Cast(array, to)


def tallies(arrays: Mapping[str, Array]) -> list[Tally]:
    """Those of all casts and computed values that `arrays`, by name, are made of, each once."""
    found: dict[int, Tally] = {}
    todo, seen = list(arrays.items()), set()
    while todo:
        name, array = todo.pop()
        if id(array) in seen:
            continue
        seen.add(id(array))
        todo += [(name, parent) for parent in array.parents]
        if isinstance(array, CountedCast):
            found[id(array.tally)] = array.tally
        elif array.computes and array.dtype.is_floating:
            tally = Tally(name, array.dtype, array.numel)
            object.__setattr__(array, "losses", tally)  # frozen, and equal without it
            found[id(tally)] = tally
    return list(found.values())


def lost(source: Codes, of: DType, codes: Codes, to: DType) -> tuple[int, int, int]:
    """Overflow, underflow and NaN of a run of codes cast to `codes`."""
    import numpy as np

    if to.name == "float64" or of is to:
        return 0, 0, 0
    # What is only widened can be looked at where it is wide already.
    values = _wide(codes, to.name) if to.itemsize > of.itemsize else _wide(source, of.name)
    wide = np.dtype(f"<u{values.dtype.itemsize}")
    least, most = (np.array([limit], values.dtype).view(wide)[0] for limit in _limits(to.name)[:2])
    # As integers, infinity and NaN are beyond every number, and 0 less something is too.
    above = values.view(wide) & wide.type((1 << 8 * wide.itemsize - 1) - 1)
    above -= least
    if above.max() <= most - least:
        return 0, 0, 0
    odd = np.flatnonzero(above > most - least)
    return _judged(values[odd], codes[odd], to.name)


def _judged(values: Codes, codes: Codes, to: str) -> tuple[int, int, int]:
    """The same of values that are all odd in some way, 0 included."""
    import numpy as np

    made = _wide(codes, to)
    with np.errstate(all="ignore"):
        beyond = np.isfinite(values)
        beyond &= np.abs(values) > _limits(to)[2] if _clamps(to) else ~np.isfinite(made)
        under = (values != 0) & (made == 0)
    counts = (np.count_nonzero(found) for found in (beyond, under, np.isnan(values)))
    over, gone, nan = map(int, counts)
    return over, gone, nan


def _wide(codes: Codes, name: str) -> Codes:
    if name in _floats.NARROW:
        return _floats.widen(codes, name)
    return codes.view("<f8" if name == "float64" else "<f4")


def _clamps(name: str) -> bool:
    """Whether what overflows becomes the largest value, and not infinity or NaN."""
    return name == "float8_e4m3fn"


@cache
def _limits(name: str) -> tuple[float, float, float]:
    """The least value above 0, the largest finite one, and where its neighbour would begin."""
    import numpy as np

    if name == "float32":
        info = np.finfo("f4")
        return float(info.smallest_subnormal), float(info.max), float("inf")
    size = 1 if name.startswith("float8") else 2
    values = _floats.widen(np.arange(1 << 8 * size).astype(f"<u{size}"), name)
    finite = np.unique(values[np.isfinite(values) & (values > 0)].astype("<f8"))
    largest, step = float(finite[-1]), float(finite[-1] - finite[-2])
    return float(finite[0]), largest, largest + step / 2


def sentences(tallies: Iterable[Tally]) -> list[str]:
    """A sentence for each kind of loss: how many values, of which tensors."""
    told = []
    found = list(tallies)
    for kind, one, many in _SENTENCES:
        hit = [tally for tally in found if getattr(tally, kind)]
        if not hit:
            continue
        count = sum(getattr(tally, kind) for tally in hit)
        worst = max(hit, key=lambda tally: getattr(tally, kind))
        where = repr(worst.name)
        if len(hit) > 1:
            where = f"{len(hit)} tensors, most in {where}"
        what = (one if count == 1 else many).format(to=worst.to)
        told.append(f"{count} {what}, in {where}")
    return told
