"""Run a pickle program symbolically: nothing that it names is imported, called or changed."""

from __future__ import annotations

import struct

from tensorkeep.errors import BadArgument, ReadError, TensorkeepError
from tensorkeep.facts import Limits
from tensorkeep.pickles._state import (
    ENDED,
    Fault,
    Halt,
    Handler,
    Machine,
    check_encoding,
    no_mark,
    truncated,
)
from tensorkeep.pickles.opcodes import BYTE_ARGUMENT, HANDLERS, NAMES
from tensorkeep.pickles.values import Call, Node, Program, Reads, Resolve

_BUILD = ord("b")
_REDUCE = ord("R")
_LOST_BYTES = "a frame goes on after STOP: a reader of the next pickle in a file would lose bytes"


def run(
    data: bytes,
    start: int = 0,
    *,
    limits: Limits = Limits(),  # noqa: B008  (frozen)
    encoding: str = "utf-8",
    where: str = "",
    reads: Reads | None = None,
    resolve: Resolve | None = None,
    bare: bool = False,
) -> Program:
    """What the pickle that begins at `data[start]` says, up to its STOP.

    `encoding` decodes the 8-bit strings of Python 2, "bytes" leaves them as bytes. `where` names
    the data in messages. A malformed program does not raise: `Program.error` is then `Damaged`,
    `Unsupported` or `LimitExceeded` with the offset, and the trace holds what ran before it.
    `reads` is asked after every BUILD of a call what that object takes from the stream.
    `resolve` is asked for every persistent id what the loader is known to give for it; None
    leaves it a `Persistent`. `bare`: REDUCE also takes one argument without a tuple around it, as
    other unpicklers than CPython's write and read it; CPython's refuses that.

    Raises `BadArgument` for an encoding that is none or a start outside the data.
    """
    check_encoding(encoding)
    if not 0 <= start <= len(data):
        raise BadArgument("start", expected=f"a position in {len(data):,} bytes", got=start)
    machine = Machine(data, start, limits, encoding)
    machine.resolve = resolve
    program = Program(
        start,
        trace=machine.trace,
        persistents=machine.persistents,
        resolved=machine.resolved,
        anomalies=machine.anomalies,
        changed=machine.changed,
        constants=machine.constants,
    )
    table = HANDLERS if reads is None else _reading(reads)
    table = _bare(table) if bare else table
    _execute(machine, program, where, table)
    program.protocol, program.frame_end = machine.proto, machine.frame_end
    return program


def _bare(table: tuple[Handler, ...]) -> tuple[Handler, ...]:
    """The opcodes, with a REDUCE that puts a single argument into a tuple."""

    def reduce_(m: Machine, pos: int) -> int:
        if m.stack and not isinstance(m.stack[-1], tuple | Node):
            m.stack[-1] = (m.stack[-1],)
        return table[_REDUCE](m, pos)

    return (*table[:_REDUCE], reduce_, *table[_REDUCE + 1 :])


def _reading(reads: Reads) -> tuple[Handler, ...]:
    """The opcodes, with a BUILD after which an object may read the stream itself.

    Inside a frame it reads what lies behind the frame: the unpickler has taken the frame whole.
    """

    def build(m: Machine, pos: int) -> int:
        pos = HANDLERS[_BUILD](m, pos)
        target = m.stack[-1]
        if not isinstance(target, Call):
            return pos
        if m.frame_end <= pos:
            m.frame_end = -1
            m.bound = end = reads(target, pos)
            return end
        m.resume = reads(target, max(m.frame_end, m.resume))
        return pos

    return (*HANDLERS[:_BUILD], build, *HANDLERS[_BUILD + 1 :])


def load(
    data: bytes,
    start: int = 0,
    *,
    limits: Limits = Limits(),  # noqa: B008  (frozen)
    encoding: str = "utf-8",
    where: str = "",
) -> Program:
    """As `run`, and raises what `Program.error` would hold."""
    program = run(data, start, limits=limits, encoding=encoding, where=where)
    if program.error is not None:
        raise program.error
    return program


def _execute(machine: Machine, program: Program, where: str, table: tuple[Handler, ...]) -> None:
    data = machine.data
    pos, used = machine.start, [0] * 256
    try:
        while True:
            pos = machine.pause(pos)
            while pos < machine.bound:
                code = data[pos]
                pos = table[code](machine, pos + 1)
                used[code] += 1
    except Halt as halt:
        used[data[pos]] += 1
        program.value, program.end = halt.value, halt.end
        if machine.frame_end > halt.end:
            machine.note("frame-crosses-stop", _LOST_BYTES, halt.end)
    except Fault as fault:
        program.cut = fault.got == ENDED
        program.error = _error(machine, fault, pos, where)
    except ReadError as error:
        program.error = error
    except (IndexError, struct.error):
        short = _shortage(machine, pos)
        program.cut = short.got == ENDED
        program.error = _error(machine, short, pos, where)
    program.opcodes = sum(used)
    program.used = frozenset(NAMES[code] for code, count in enumerate(used) if count)
    if program.error is not None:
        program.end = pos


def _shortage(machine: Machine, pos: int) -> Fault:
    """What was too short for the opcode at `pos`: the data, the marks or the stack."""
    code = machine.data[pos]
    if pos + 1 >= machine.size and code in BYTE_ARGUMENT:
        return truncated("an argument")
    if code in _WIDE and pos + _WIDE[code] >= machine.size:
        return truncated(f"an argument of {_WIDE[code]} bytes")
    if NAMES.get(code) == "TUPLE":
        return no_mark()
    return Fault("an item on the stack", "a mark" if machine.below else "an empty stack")


_WIDE = dict.fromkeys(b"JTXBrj\x8b\x84", 4) | dict.fromkeys(b"M\x83", 2)
_WIDE |= dict.fromkeys(b"G\x8d\x8e\x95\x96", 8)


def _error(machine: Machine, fault: Fault, pos: int, where: str) -> TensorkeepError:
    name = NAMES.get(machine.data[pos], "") if pos < machine.size else ""
    return fault.kind(
        where or "pickle",
        expected=fault.expected,
        got=fault.got,
        where=f"byte {pos}, opcode {name}" if name else f"byte {pos}",
        remedy=fault.remedy,
    )
