"""The table holds every opcode that CPython documents, under its name, and no other."""

from __future__ import annotations

import pickletools

import pytest

from tensorkeep.errors import Damaged
from tensorkeep.pickles import load
from tensorkeep.pickles.opcodes import NAMES


def test_the_table_is_complete():
    assert {ord(opcode.code): opcode.name for opcode in pickletools.opcodes} == NAMES


@pytest.mark.parametrize("code", sorted(set(range(256)) - set(NAMES)))
def test_other_bytes_are_refused(code):
    with pytest.raises(Damaged, match=f"0x{code:02x}"):
        load(bytes([code]) + b".")
