"""Values of the standard library in words: what their `__reduce__` writes, as people write it.

Sources: `datetime`, `decimal`, `fractions`, `uuid`, `pathlib`, `enum` of CPython 3.8 to 3.13, and
`omegaconf` 2 (`DictConfig`, `ListConfig` and their nodes). Whatever is odd stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tensorkeep.formats.contents import Inert
from tensorkeep.pickles import Call, Global, describe

_LONGEST = 200
_MOST_FIELDS = 16
_DEEPEST = 6
_MOST_NODES = 64
_Raw = Callable[[object], bytes | None]


class Worded(Inert):
    """A value that is no tensor, in the words of `why`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return self.why


def _args(call: Call) -> tuple[object, ...]:
    return call.args if isinstance(call.args, tuple) else ()


def _ints(values: tuple[object, ...]) -> bool:
    return all(type(value) is int for value in values)


def number_call(call: Call, raw: _Raw) -> Worded | None:
    """`Decimal("1.5")`, `Fraction("1/3")`, `complex(1, 2)`, as their text."""
    args = _args(call)
    if len(args) == 1 and isinstance(args[0], str):
        return Worded(args[0][:_LONGEST])
    if len(args) == 2 and _ints(args):
        return Worded(describe(args[0], 80) + "/" + describe(args[1], 80))
    return None


def complex_call(call: Call, raw: _Raw) -> object:
    """A complex number."""
    args = _args(call)
    if len(args) != 2 or not all(isinstance(part, float) for part in args):
        return None
    return complex(float(str(args[0])), float(str(args[1])))


def span(call: Call, raw: _Raw) -> Worded | None:
    """`slice` and `range`."""
    assert isinstance(call.func, Global)
    args = _args(call)
    if 1 <= len(args) <= 3 and all(arg is None or type(arg) is int for arg in args):
        return Worded(f"{call.func.name}({', '.join(describe(arg, 40) for arg in args)})")
    return None


def path(call: Call, raw: _Raw) -> Worded | None:
    """A path: its parts."""
    assert isinstance(call.func, Global)
    parts = _args(call)
    if not parts or not all(isinstance(part, str) for part in parts):
        return Worded(".") if parts == () else None
    texts = [str(part) for part in parts]
    mark = "\\" if "Windows" in call.func.name else "/"
    head, rest = texts[0], texts[1:]
    text = head.rstrip(mark) + mark + mark.join(rest) if rest else head
    return Worded((text if rest or head != mark else mark)[:_LONGEST])


def uuid(call: Call, raw: _Raw) -> Worded | None:
    """A UUID: a 128-bit number in its state."""
    state = _state(call)
    number = state.get("int")
    if type(number) is not int or not 0 <= number < 1 << 128:
        return None
    text = f"{number:032x}"
    return Worded("-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])))


def moment(call: Call, raw: _Raw) -> Worded | None:
    """`datetime`, `date` and `time`: their bytes."""
    assert isinstance(call.func, Global)
    args = _args(call)
    data = raw(args[0]) if args else None
    kind = call.func.name
    if data is None or len(data) != {"datetime": 10, "date": 4, "time": 6}[kind] or len(args) > 2:
        return None
    texts = []
    if kind != "time":
        texts.append(f"{data[0] << 8 | data[1]:04}-{data[2] & 127:02}-{data[3]:02}")
        data = data[4:]
    if kind != "date":
        fraction = int.from_bytes(data[3:], "big")
        clock = f"{data[0] & 127:02}:{data[1]:02}:{data[2]:02}"
        texts.append(f"{clock}.{fraction:06}" if fraction else clock)
    zone = _zone(args[1]) if len(args) == 2 else ""
    return Worded(" ".join(texts) + zone)


def _zone(value: object) -> str:
    seconds = 0
    inner = _args(value)[0] if isinstance(value, Call) and _args(value) else None
    parts = _args(inner) if isinstance(inner, Call) else ()
    if len(parts) == 3 and _ints(parts):
        seconds = int(parts[0]) * 86400 + int(parts[1])  # type: ignore[call-overload]
    elif isinstance(value, Call):
        return f" {describe(value, 60)}" if value.args else "+00:00"
    sign, seconds = ("-" if seconds < 0 else "+"), abs(seconds)
    return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}"


def duration(call: Call, raw: _Raw) -> Worded | None:
    """`timedelta(days, seconds, microseconds)`."""
    args = _args(call)
    if len(args) != 3 or not _ints(args):
        return None
    days, seconds, micro = (int(arg) for arg in args)  # type: ignore[call-overload]
    if abs(days) >= 10**9 or abs(seconds) >= 10**9 or abs(micro) >= 10**9:
        return None
    clock = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    text = f"{clock}.{micro:06}" if micro else clock
    return Worded(f"{days} days, {text}" if days else text)


def thing(call: Call, name: str) -> Worded | None:
    """An object of any class with a plain state, on one line: `pkg.Config(lr=0.1, steps=10)`.

    One that was made by a call with a single plain value is written as that (a member of an enum).
    """
    if name.startswith("omegaconf."):
        return Worded(_cut(_config(call, [_MOST_NODES], 0)))
    state = _state(call)
    if state:
        fields = [f"{key}={_short(value)}" for key, value in list(state.items())[:_MOST_FIELDS]]
        more = ", ..." if len(state) > _MOST_FIELDS else ""
        return Worded(_cut(f"{name}({', '.join(fields)}{more})"))
    args = _args(call)
    if call.kind == "REDUCE" and not call.effects and args and name.rpartition(".")[0] != "copyreg":
        return Worded(_cut(f"{name}({', '.join(_short(arg) for arg in args[:_MOST_FIELDS])})"))
    return None


def _state(call: Call) -> dict[str, object]:
    """The plain state that the object gets; empty if there is none, or more than one."""
    effects = call.effects or ()
    given = effects[0].args[0] if len(effects) == 1 and effects[0].kind == "BUILD" else None
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1] or {}, dict):
        merged: dict[object, object] = {}
        for part in given:
            if isinstance(part, Mapping):
                merged.update(part)
        given = merged
    if not isinstance(given, dict):
        return {}
    return {key: value for key, value in given.items() if isinstance(key, str)}


def _short(value: object) -> str:
    return describe(value, 60)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _config(value: object, room: list[int], depth: int) -> str:
    """A node of OmegaConf: what it holds, without its flags and types.

    `room` is how many more nodes are written out: a few bytes can name the same node many times.
    """
    room[0] -= 1
    if not isinstance(value, Call):
        return _short(value)
    if depth >= _DEEPEST or room[0] < 0:
        return "..."
    state = _state(value)
    content = state.get("_content", state.get("_val"))
    if isinstance(content, dict):
        inside = list(content.items())[:_MOST_FIELDS]
        fields = [f"{_short(key)}: {_config(item, room, depth + 1)}" for key, item in inside]
        return "{" + ", ".join(fields) + "}"
    if isinstance(content, list):
        items = [_config(item, room, depth + 1) for item in content[:_MOST_FIELDS]]
        return "[" + ", ".join(items) + "]"
    return _short(content)
