"""Allowlisted records of the standard library: exceptions, named tuples, settings of decimals.

Sources: CPython 3.11 `Objects/exceptions.c` (`BaseException.__reduce__` and `__setstate__`),
`Lib/collections/__init__.py` (`namedtuple`), `Objects/structseq.c`, `Lib/_pydecimal.py` and
`Modules/_decimal/_decimal.c` (`Context.__reduce__`).
"""

from __future__ import annotations

from collections.abc import Iterator

from tensorkeep.pickles import Call
from tensorkeep.scanning._allow_kinds import Entry, KindOf, Rule, inert_key
from tensorkeep.scanning._allow_table import kind_of

# Left out: those of syntax (whoever prints one reads the file that it names), of text (printed with
# a position of the file's choice they read memory anywhere), of groups, and what ends a process.
_EXCEPTIONS_TEXT = """
Exception ArithmeticError AssertionError AttributeError BlockingIOError
BrokenPipeError BufferError ChildProcessError ConnectionAbortedError ConnectionError
ConnectionRefusedError ConnectionResetError EOFError FileExistsError FileNotFoundError
FloatingPointError ImportError IndexError InterruptedError IsADirectoryError
KeyError KeyboardInterrupt LookupError MemoryError ModuleNotFoundError NameError
NotADirectoryError NotImplementedError OSError OverflowError PermissionError ProcessLookupError
RecursionError ReferenceError RuntimeError StopAsyncIteration StopIteration SystemError
TimeoutError TypeError UnboundLocalError UnicodeError
ValueError ZeroDivisionError
BytesWarning DeprecationWarning EncodingWarning FutureWarning ImportWarning
PendingDeprecationWarning ResourceWarning RuntimeWarning UnicodeWarning UserWarning Warning
"""
_SIGNALS_TEXT = (
    "InvalidOperation DivisionByZero Overflow Inexact Rounded Underflow Subnormal Clamped "
    "FloatOperation"
)
_ROUNDINGS_TEXT = (
    "ROUND_CEILING ROUND_DOWN ROUND_FLOOR ROUND_HALF_DOWN ROUND_HALF_EVEN ROUND_HALF_UP "
    "ROUND_UP ROUND_05UP"
)
_ROUNDINGS = frozenset(_ROUNDINGS_TEXT.split())
# A precision is memory that the first division fills.
_PRECISION = 1_000_000
_EXPONENT = 10**18
_TUPLES = {
    ("decimal", "DecimalTuple"): 3,
    ("difflib", "Match"): 3,
    ("urllib.parse", "ParseResult"): 6,
    ("urllib.parse", "SplitResult"): 5,
    ("urllib.parse", "DefragResult"): 2,
}
_ATOMS = frozenset({type(None), bool, int, float, str, bytes})
_MOST = 16
_TIME = range(9, 12)


def _plain(value: object) -> bool:
    """Whether `value` is an atom, or a small tuple of them and of such tuples."""
    if type(value) is not tuple:
        return type(value) in _ATOMS or (isinstance(value, Call) and kind_of(value) == "bytes")
    return inert_key(value) and all(map(_plain, value))


def _exception(args: tuple[object, ...], _: KindOf) -> bool:
    return len(args) <= _MOST and all(map(_plain, args))


def _exception_state(_: Call, args: tuple[object, ...]) -> bool:
    # BUILD sets attributes: these are what ImportError and AttributeError write, others do things.
    state = args[0] if len(args) == 1 else None
    if type(state) is not dict or not state.keys() <= {"name", "path", "name_from", "args"}:
        return False
    return all(
        type(value) is tuple and _plain(value)
        if key == "args"
        else value is None or type(value) is str
        for key, value in state.items()
    )


def plain_tuple(args: tuple[object, ...], _: KindOf) -> bool:
    """Whether the argument is one small tuple of atoms: as a key it hashes quickly."""
    return args == () or (len(args) == 1 and type(args[0]) is tuple and _plain(args[0]))


def _parts(length: int) -> Rule:
    return lambda args, _: len(args) == length and all(map(_plain, args))


def _time(args: tuple[object, ...], _: KindOf) -> bool:
    if len(args) != 2 or type(args[0]) is not tuple or len(args[0]) not in _TIME:
        return False
    more = args[1]
    if type(more) is not dict or not more.keys() <= {"tm_zone", "tm_gmtoff"}:
        return False
    return all(type(part) in _ATOMS for part in (*args[0], *more.values()))


def _context(args: tuple[object, ...], kind: KindOf) -> bool:
    if len(args) != 8 or not all(type(args[index]) is int for index in (0, 2, 3, 4, 5)):
        return False
    precision, rounding, lowest, highest, _, _, flags, traps = args
    if type(rounding) is not str or rounding not in _ROUNDINGS:
        return False
    if not 1 <= precision <= _PRECISION:  # type: ignore[operator]
        return False
    if not -_EXPONENT <= lowest <= 0 <= highest <= _EXPONENT:  # type: ignore[operator]
        return False
    return all(
        type(signals) is list and all(kind(signal) == "decimal-signal" for signal in signals)
        for signals in (flags, traps)
    )


def _exceptions() -> Iterator[Entry]:
    for name in _EXCEPTIONS_TEXT.split():
        yield Entry(
            "builtins",
            name,
            "makes an exception that nobody raises, out of plain values",
            call=True,
            reference="exception-class",
            rule=_exception,
            makes="exception",
            effects={"BUILD": _exception_state},
        )


ENTRIES: tuple[Entry, ...] = (
    *_exceptions(),
    *(
        Entry(
            module,
            name,
            "is a tuple of plain values whose places have names",
            instance=True,
            reference="tuple-class",
            rule=_parts(length),
            makes="named-tuple",
        )
        for (module, name), length in _TUPLES.items()
    ),
    Entry(
        "time",
        "struct_time",
        "is a tuple of numbers whose places have names",
        call=True,
        reference="plain-value",
        rule=_time,
        makes="struct-time",
    ),
    Entry(
        "decimal",
        "Context",
        "holds the settings of a computation, and becomes nobody's by itself",
        call=True,
        reference="plain-value",
        rule=_context,
        makes="decimal-context",
    ),
    *(
        Entry("decimal", name, "is the class of a condition", reference="decimal-signal")
        for name in _SIGNALS_TEXT.split()
    ),
)
