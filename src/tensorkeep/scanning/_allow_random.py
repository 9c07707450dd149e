"""Allowlisted names of numpy.random: generators, as numpy 1.17 to 2 pickle them.

Sources: numpy 2 `random/_pickle.py`, and the `state` setters of `random/_mt19937.pyx`,
`_philox.pyx`, `_pcg64.pyx`, `_sfc64.pyx`, `bit_generator.pyx`, `mtrand.pyx`. The setters take a
position in a buffer as it comes, and C code reads there later without a look: the rules hold it
to the buffer.
"""

from __future__ import annotations

from collections.abc import Callable

from tensorkeep.pickles import Call
from tensorkeep.scanning._allow_kinds import EffectRule, Entry, KindOf, any_of, takes
from tensorkeep.scanning._allow_table import kind_of

_PARTS = {
    "MT19937": "_mt19937",
    "PCG64": "_pcg64",
    "PCG64DXSM": "_pcg64",
    "Philox": "_philox",
    "SFC64": "_sfc64",
}
_MT_LENGTH = 624
_PHILOX_BUFFER = 4
_WORDS = frozenset({"int", "np-array"})
_NUMBERS = frozenset({"int", "float", "number", "bool"})
_LARGEST_POOL = 64


def _name(args: tuple[object, ...], _: KindOf) -> bool:
    return len(args) == 1 and type(args[0]) is str and args[0] in _PARTS


def _name_and_maker(args: tuple[object, ...], kind: KindOf) -> bool:
    return len(args) == 2 and _name(args[:1], kind) and kind(args[1]) == "bit-generator-maker"


_GENERATOR = any_of(takes("bit-generator"), _name, _name_and_maker)


def _state(value: object) -> bool:
    """Whether `value` is the `state` of a bit generator, its positions within their buffers."""
    if type(value) is not dict or value.get("bit_generator") not in _PARTS:
        return False
    inner = value.get("state")
    if type(inner) is not dict or not all(kind_of(item) in _WORDS for item in inner.values()):
        return False
    rest = {key: item for key, item in value.items() if key not in ("bit_generator", "state")}
    return _positions(value, inner) and all(_known(key, item) for key, item in rest.items())


def _positions(value: dict[object, object], inner: dict[object, object]) -> bool:
    if value["bit_generator"] == "MT19937":
        return _within(inner.get("pos"), _MT_LENGTH) and kind_of(inner.get("key")) == "np-array"
    return value["bit_generator"] != "Philox" or _within(value.get("buffer_pos"), _PHILOX_BUFFER)


def _within(value: object, length: int) -> bool:
    return type(value) is int and 0 <= value <= length


def _known(key: object, item: object) -> bool:
    if key == "buffer":
        return kind_of(item) == "np-array"
    return key in _OTHERS and kind_of(item) in _NUMBERS


_OTHERS = ("buffer_pos", "has_uint32", "uinteger", "has_gauss", "gauss", "legacy")


def _bit_generator_state(_: Call, args: tuple[object, ...]) -> bool:
    given = args[0] if len(args) == 1 else None
    if type(given) is tuple and len(given) == 2:
        return _state(given[0]) and kind_of(given[1]) in ("seed-sequence", "none")
    return _state(given)


def _generator_state(_: Call, args: tuple[object, ...]) -> bool:
    return len(args) == 1 and (args[0] is None or _state(args[0]))


def _legacy_state(target: Call, args: tuple[object, ...]) -> bool:
    given = args[0] if len(args) == 1 else None
    if type(given) is not tuple:
        return _generator_state(target, args)
    # ('MT19937', key, position, has_gauss, gauss), as numpy before 1.17 wrote it.
    if len(given) not in (3, 5) or given[0] != "MT19937" or not _within(given[2], _MT_LENGTH):
        return False
    return kind_of(given[1]) == "np-array" and all(kind_of(x) in _NUMBERS for x in given[3:])


def _seeded(args: tuple[object, ...], kind: KindOf) -> bool:
    return len(args) == 3 and kind(args[0]) == "seed-sequence-class" and args[2] is None


def _seeded_by(_: Call, args: tuple[object, ...]) -> bool:
    given = args[0] if len(args) == 1 else None
    if type(given) is not tuple or len(given) != 5:
        return False
    entropy, spawned, pool, size, key = given
    if not _is_entropy(entropy) or type(spawned) is not int or kind_of(pool) != "np-array":
        return False
    small = type(size) is int and 0 < size <= _LARGEST_POOL
    return small and type(key) is tuple and all(type(part) is int for part in key)


def _is_entropy(value: object) -> bool:
    if type(value) in (list, tuple):
        return all(type(part) is int for part in value)  # type: ignore[attr-defined]
    return value is None or type(value) is int


def _made(
    module: str, name: str, rule: Callable[..., bool], makes: str, build: EffectRule
) -> Entry:
    return Entry(
        f"numpy.random{module}",
        name,
        "makes a generator of numbers, whose state the file gives within its bounds",
        call=True,
        reference="bit-generator-maker" if name == "__bit_generator_ctor" else "",
        rule=rule,
        makes=makes,
        effects={"BUILD": build},
    )


ENTRIES: tuple[Entry, ...] = (
    *(
        Entry(
            f"numpy.random.{module}",
            name,
            "is the class of a bit generator",
            reference="bit-generator-class",
        )
        for name, module in _PARTS.items()
    ),
    _made(
        "._pickle",
        "__bit_generator_ctor",
        any_of(takes("bit-generator-class"), _name),
        "bit-generator",
        _bit_generator_state,
    ),
    _made("._pickle", "__generator_ctor", _GENERATOR, "generator", _generator_state),
    _made("._pickle", "__randomstate_ctor", _GENERATOR, "generator", _legacy_state),
    _made("", "__RandomState_ctor", takes(), "generator", _legacy_state),
    Entry(
        "numpy.random.bit_generator",
        "SeedSequence",
        "is the class of seeds",
        reference="seed-sequence-class",
    ),
    Entry(
        "numpy.random.bit_generator",
        "__pyx_unpickle_SeedSequence",
        "makes an empty seed sequence, filled with numbers by BUILD",
        call=True,
        rule=_seeded,
        makes="seed-sequence",
        effects={"BUILD": _seeded_by},
    ),
)
