"""One output for all verbs: lines of styled text, in colour on a terminal, plain elsewhere.

Text out of a file is escaped before it gets here and is never markup.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tensorkeep.errors import StoreError, escape

Span = tuple[str, str]
Line = str | list[Span]

# Names longer than this are cut where they are shown in columns.
_NAME = 96
_ASCII = str.maketrans({"├": "|", "└": "`", "│": "|", "─": "-", "█": "#"})
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def coloured(stream: TextIO) -> bool:
    """Whether to draw: a terminal that can, and a user who did not say no."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty() and _unicode(stream)


def _unicode(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().startswith("utf")


def show(lines: Iterable[Line]) -> None:
    """Write `lines` to stdout."""
    _write(lines, sys.stdout)


def talk(lines: Iterable[Line]) -> None:
    """Write `lines` to stderr."""
    _write(lines, sys.stderr)


def error_line(text: str) -> None:
    """The sentence that says what went wrong."""
    talk([[("tensorkeep: ", "bold red"), (text, "")]])


def note_lines(notes: Iterable[str]) -> None:
    """Hints and warnings, one a line."""
    talk([[("note: ", "yellow"), (escape(note), "")] for note in notes])


def show_json(value: dict[str, Any], rows: Collection[str] = ()) -> None:
    """`value` to stdout; of the lists under the keys `rows` an item a line.

    `allow_nan` is off: bare NaN is no JSON. Only what is not indented is written by Python's C
    encoder, which takes a tenth of the time: that is what `rows` is for.
    """
    with _delivering(sys.stdout):
        sys.stdout.writelines(_document(value, rows))


def _document(value: dict[str, Any], rows: Collection[str]) -> Iterator[str]:
    options: dict[str, Any] = {"allow_nan": False, "default": str}
    indented, compact = json.JSONEncoder(indent=2, **options), json.JSONEncoder(**options)
    before = "{"
    for key, item in value.items():
        yield f"{before}\n  {compact.encode(key)}: "
        if item and key in rows:
            yield "[\n    " + compact.encode(item[0])
            yield from (",\n    " + compact.encode(row) for row in item[1:])
            yield "\n  ]"
        else:
            # Text holds no line ends as JSON writes it: all of them are the encoder's own.
            yield indented.encode(item).replace("\n", "\n  ")
        before = ","
    yield "\n}\n"


@contextmanager
def _delivering(stream: TextIO) -> Iterator[None]:
    """Whoever reads may stop reading (`| head`): the work goes on, and so does its exit code."""
    try:
        yield
        stream.flush()
    except OSError as error:
        # What is left in the buffer would fail again, with a traceback, when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError) and stream is sys.stdout:
            got = os.strerror(error.errno or 0)
            raise StoreError("standard output", expected="room for the result", got=got) from None


def _write(lines: Iterable[Line], stream: TextIO) -> None:
    with _delivering(stream):
        if coloured(stream):
            _draw(lines, stream)
            return
        for line in lines:
            text = line if isinstance(line, str) else "".join(text for text, _ in line)
            stream.write(_encodable(text.rstrip(), stream) + "\n")


def _encodable(text: str, stream: TextIO) -> str:
    """A terminal or pipe in the C locale cannot take every name; a "?" is better than a crash."""
    if not _unicode(stream):
        text = text.translate(_ASCII)
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def _draw(lines: Iterable[Line], stream: TextIO) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, markup=False, highlight=False, emoji=False)
    for line in lines:
        spans = [(line, "")] if isinstance(line, str) else line
        label = len(spans[0][0])
        if len(spans) == 2 and label < console.width // 2:
            # A sentence behind its label: what does not fit goes on below the sentence.
            rows = Text.assemble(spans[1]).wrap(console, console.width - label)
            for at, row in enumerate(rows or [Text("")]):
                lead = spans[0] if at == 0 else (" " * label, "")
                console.print(Text.assemble(lead, row), soft_wrap=True)
        else:
            console.print(Text.assemble(*spans), soft_wrap=True)


def short(text: object) -> str:
    """A name out of a file, escaped; a long one loses its middle, so that columns stay columns."""
    whole = escape(text)
    half = _NAME // 2 - 2
    return whole if len(whole) <= _NAME else f"{whole[:half]}...{whole[-half:]}"


def size(count: int) -> str:
    """Bytes for people: 1.94 GB. Powers of 1000, as disks and the hub count."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value /= 1000
        unit += 1
    digits = 0 if unit == 0 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f} {_UNITS[unit]}"


def number(count: int) -> str:
    """12,810"""
    return f"{count:,}"


def many(count: int, what: str) -> str:
    """ "1 tensor", "2 tensors"."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
