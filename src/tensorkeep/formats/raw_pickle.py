"""Pickles outside any container, protocols 0 to 5, and several one after another.

What `pickle.dump` writes, and `joblib.dump` without compression: a pickle in whose stream the
bytes of the arrays lie (`_joblib`). Whoever reads such a file to its end runs every pickle in it,
so all of them are programs. Protocols 0 and 1 begin with no magic: a file is taken for one if it
runs like one, which text does not.
"""

from __future__ import annotations

from tensorkeep.errors import Amplified, Damaged, LimitExceeded, NotACheckpoint
from tensorkeep.facts import Anomaly, Limits
from tensorkeep.formats import _hidden, _nested
from tensorkeep.formats._joblib import Arrays
from tensorkeep.formats._programs import imports, plausible, run_text
from tensorkeep.formats._tensors import Interpreter
from tensorkeep.formats.contents import Contents, Parts
from tensorkeep.pickles import Call, Effect, Global, Import, Node, Persistent, Program
from tensorkeep.stores import Blob
from tensorkeep.stores.slices import SliceBlob

NAME = "pickle"
SUFFIXES: tuple[str, ...] = (".pkl", ".pickle", ".joblib", ".bin", ".dill")
_PROTO = 0x80
_HIGHEST = 5
_SECOND = 64 << 10
_LARGEST = 64 << 20
_QUICK = Limits()
_SLOTS = 2  # a state of this many parts is one for __dict__ and one for setattr
_SURELY = 1_000  # whole pickles in a row, which no text is
_MOST = 100_000  # pickles in one file: of two bytes each, a record of hundreds


def identify(blob: Blob, head: bytes) -> bool:
    """Whether the first bytes run as a pickle does."""
    if len(head) >= 2 and head[0] == _PROTO and head[1] <= _HIGHEST:
        program = run_text(head, limits=_QUICK)
        # What costs too much is a program, too: reading it says what happened.
        costly = isinstance(program.error, LimitExceeded)
        return program.error is None or program.cut or costly or imports(program)
    return bool(head) and _runs(blob, head)


def _runs(blob: Blob, head: bytes) -> bool:
    """Whether bytes without a magic are programs; read on only while they still could be."""
    for length in (len(head), _SECOND, _LARGEST):
        have = min(length, blob.size)
        found = _stack(head if have <= len(head) else blob.read(0, have), have == blob.size)
        if found is not None or have == blob.size:
            return bool(found)
    return True


def _stack(data: bytes, whole: bool) -> bool | None:
    """Whether `data` are programs one after another; None if more of them must be seen.

    Text may begin with a whole program ("N." is one): pickles import something, or are all of it.
    """
    start = 0
    for _ in range(_SURELY):
        program = run_text(data, start, limits=_QUICK)
        if imports(program) and plausible(program):
            return True
        if isinstance(program.error, Amplified):  # no text asks for so much by accident
            return True
        if program.error is not None:
            return None if program.cut and not whole else False
        start = program.end
        if start == len(data) and whole:
            return True
    return True


def read(blob: Blob, limits: Limits, parts: Parts) -> Contents:
    """The pickles in `blob`, all of which are read into memory."""
    if blob.size > limits.max_pickle_bytes:
        expected = f"pickles of at most {limits.max_pickle_bytes} bytes"
        raise LimitExceeded(blob.name, expected=expected, got=f"{blob.size} bytes")
    data = blob.read(0, blob.size)
    arrays = Arrays(blob, data, limits)
    programs = _stacked(data, limits, arrays)
    plain = _as_pickle_reads(data, limits, arrays)
    first, last = programs[0][1], programs[-1][1]
    anomalies: list[Anomaly] = []
    files: dict[bytes, Contents] = {}
    limited = isinstance(last.error, LimitExceeded)
    # What follows the last whole pickle is no program, or one that a reader stops in.
    tailed = len(programs) > 1 and last.error is not None and not limited
    behind = _hidden.Hidden()
    if tailed:
        behind = _hidden.behind(blob, last.start, limits, known=last)
    judged = [*programs, *arrays.programs, *plain, *behind.programs]
    nested, unreadable = _nested.collect(judged, parts, anomalies, files)
    anomalies += behind.anomalies
    unreadable += behind.unreadable
    if tailed:
        _tail(blob, *programs[-1], parts, anomalies, nested)
        if not (last.trace or last.persistents):
            del judged[len(programs) - 1], programs[-1]
    more = [program for _, program in judged]
    return Contents(
        format=NAME,
        container="joblib" if arrays.storages else "pickle",
        root=first.value if len(programs) == 1 else [program.value for _, program in programs],
        lens=arrays.lens(Interpreter(first, _no_storage, anomalies, files, more)),
        storages=arrays.storages,
        facts={"protocol": str(max(program.protocol for _, program in programs))},
        programs=judged,
        anomalies=anomalies,
        error=last.error if limited else first.error,
        nested=nested,
        unreadable=unreadable,
    )


def _no_storage(_persistent: Persistent) -> None:
    """No loader of plain pickles knows a persistent id."""


def _as_pickle_reads(data: bytes, limits: Limits, arrays: Arrays) -> list[tuple[str, Program]]:
    """The programs that `pickle.load` runs where joblib's reader would skip an array.

    It takes the bytes of the array for opcodes. Those of an honest one end it at once; its error
    is none of the file's, whose reader is joblib.
    """
    if not arrays.found:
        return []
    found: list[tuple[str, Program]] = []
    for where, program in _stacked(data, limits, None, arrays.blob.name):
        does = [event for event in program.trace if event.offset >= arrays.first and _does(event)]
        if does or isinstance(program.error, LimitExceeded):
            # Where pickle stops as well, what it has done by then is all; else it goes on.
            error = None if isinstance(program.error, Damaged) else program.error
            seen = Program(program.start, program.end, None, program.protocol, trace=does)
            seen.changed, seen.error = program.changed, error
            found.append((f"{where or 'pickle 1'} as pickle.load reads it", seen))
    return found


def _does(event: Import | Call | Effect) -> bool:
    """Whether an event is more than what honest bytes give by accident.

    The pickle of an array of objects has a memo of its own, and pickle goes on with the old one:
    it looks for `dtype` in whatever has the number of numpy there.
    """
    if isinstance(event, Import):
        return not (isinstance(event.target, Global) and event.target.name == "dtype")
    if isinstance(event, Call):
        return not (isinstance(event.func, Global) and event.func.name == "dtype")
    if event.kind != "BUILD":
        return not isinstance(event.target, Node)  # the machine stops there, CPython does not
    state = event.args[0]
    return isinstance(state, dict) or (isinstance(state, tuple) and len(state) == _SLOTS)


def _stacked(
    data: bytes, limits: Limits, arrays: Arrays | None, name: str = ""
) -> list[tuple[str, Program]]:
    """Every pickle, up to the first that does not end; without `arrays`, as pickle reads them."""
    programs: list[tuple[str, Program]] = []
    start = 0
    while start < len(data) or not programs:
        where = f"pickle {len(programs) + 1}" if programs else ""
        reads = arrays.reads if arrays is not None else None
        program = run_text(data, start, limits=limits, where=where, reads=reads)
        programs.append((where, program))
        if program.error is not None:
            break
        if len(programs) >= _MOST:
            expected = f"at most {_MOST} pickles in one file"
            program.error = LimitExceeded(
                arrays.blob.name if arrays else name, expected=expected, got="more"
            )
            break
        start = program.end
    return programs


def _tail(
    blob: Blob,
    where: str,
    tail: Program,
    parts: Parts,
    anomalies: list[Anomaly],
    nested: list[tuple[str, Contents]],
) -> None:
    """Say that bytes follow the last pickle; open them if they are a file of their own."""
    what = f"{blob.size - tail.start} bytes follow the last pickle's end"
    anomalies.append(Anomaly("bytes-after-pickle", what, where, tail.start))
    rest = SliceBlob(blob, tail.start, blob.size - tail.start, "the bytes behind the pickle")
    try:
        if parts.recognises(rest):
            nested.append((rest.name, parts.examine(rest)))
    except NotACheckpoint:
        return
