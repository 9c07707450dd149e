"""What `torch.save` has written since torch 1.6: a zip with a pickle and one member per storage.

Source: `torch/serialization.py` (`_save`, `_load`) and `caffe2/serialize` of torch 2.13.
Members lie under one root folder of any name: `data.pkl`, `data/KEY` for each storage,
`byteorder`, `version`, and since torch 2.6 `.format_version` and `.storage_alignment`. Ours may
have a `tensorkeep.json`: texts by key, which torch does not look at.
"""

from __future__ import annotations

import json

from tensorkeep.archives.zip import ZipArchive
from tensorkeep.facts import Limits
from tensorkeep.formats._tensors import Interpreter
from tensorkeep.formats._zip_reading import ZipReading
from tensorkeep.formats.contents import Contents, Parts
from tensorkeep.provenance import PREFIX, RECORD

NAME = "torch_zip"
_LONGEST_TEXT = 1 << 20
SUFFIXES: tuple[str, ...] = (".pth", ".pt", ".bin", ".ckpt")


def claims(archive: ZipArchive) -> bool:
    """Whether `torch.load` reads a pickle here: with constants.pkl it takes it as TorchScript."""
    root = archive.root
    if root is None or not archive.holds(f"{root}/data.pkl"):
        return False
    return not archive.holds(f"{root}/constants.pkl")


def read_archive(archive: ZipArchive, limits: Limits, parts: Parts) -> Contents:
    """The checkpoint in `archive`, without its tensor bytes. Raises `Damaged`, `LimitExceeded`."""
    reading = ZipReading(archive, limits, parts)
    reading.torch_records()
    member = reading.find("data.pkl")
    assert member is not None
    program = reading.program(member)
    table = reading.register(program)
    lens = Interpreter(program, table.of, archive.anomalies, reading.files)
    contents = reading.contents(NAME, program.value, lens)
    contents.error = program.error
    contents.metadata |= _text(reading)
    return contents


def _text(reading: ZipReading) -> dict[str, str]:
    """The texts that `tensorkeep` left there, if it was its own writer that did."""
    member = reading.find(RECORD)
    if member is None or not 0 < member.size <= _LONGEST_TEXT:
        return {}
    try:
        found = json.loads(reading.data(member))
    except (ValueError, RecursionError):
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in pairs if key.startswith(PREFIX) and type(value) is str}
