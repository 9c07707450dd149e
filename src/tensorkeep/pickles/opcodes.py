"""The table of opcodes, protocols 0 to 5.

Source: CPython 3.11's unpickler (`Modules/_pickle.c`), whose behaviour on benign programs the
tests compare with. A handler takes the machine and the position after the opcode's byte, and
returns the position after its argument. IndexError and struct.error out of a handler mean that
the stack, the marks or the data were too short.
"""

from __future__ import annotations

from typing import Final

from tensorkeep.pickles._atoms import ATOMS
from tensorkeep.pickles._calls import CALLS
from tensorkeep.pickles._containers import CONTAINERS
from tensorkeep.pickles._effects import EFFECTS
from tensorkeep.pickles._state import Fault, Handler, Machine

OPCODES: Final = ATOMS | CONTAINERS | CALLS | EFFECTS
NAMES: Final[dict[int, str]] = {code[0]: name for code, (name, _) in OPCODES.items()}
BYTE_ARGUMENT: Final = frozenset(b"KqhUC\x80\x82\x8a\x8c")


def _unknown(m: Machine, pos: int) -> int:
    raise Fault("an opcode", f"the byte 0x{m.data[pos - 1]:02x}")


HANDLERS: Final[tuple[Handler, ...]] = tuple(
    OPCODES[bytes([code])][1] if code in NAMES else _unknown for code in range(256)
)
