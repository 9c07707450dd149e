"""Every exception that tensorkeep raises on purpose.

TensorkeepError
├── ReadError                the bytes are not what they claim to be
│   ├── NotACheckpoint       no format recognises them
│   ├── Damaged              truncated, out of bounds, contradicting themselves
│   ├── Unsupported          well formed, and nothing here reads it yet
│   └── LimitExceeded        reading on would cost more than Limits allows
│       └── Amplified        because a little unpacks to very much
├── StoreError               the place where bytes live said no
│   ├── NotFound
│   ├── AccessDenied
│   ├── AlreadyExists
│   ├── NoSpace
│   ├── ChangedWhileRead
│   └── UnknownScheme
├── SelectionError           what was asked for is not in the checkpoint, or is in it twice
│   ├── UnknownSection
│   ├── UnknownTensor        also a KeyError
│   ├── AmbiguousSection
│   ├── NothingSelected
│   └── NameCollision
├── DoesNotFit               what the checkpoint holds is not what the module (optimizer) wants
├── Unwritable               the target format cannot hold this
├── NotSafe                  require="safe" was asked for and the scan says otherwise
│   └── Refused              by guard; in tensorkeep.live.refusing, as it is pickle's error, too
├── Untrusted                a model needs classes that nobody named
├── InertValue               an object that was not made is used; also an AttributeError
├── BadArgument              an option or a combination of options that means nothing
├── DidNotFinish             a function that the caller named raised, or did not do its part
├── MissingExtra             a library that only an extra installs
└── Interrupted              a signal ended the work

TensorkeepWarning            a UserWarning: the work goes on
└── NotSafeWarning           a file is read that a scan does not call safe; nothing of it is run

Every one carries the same five fields, and its text is made of them alone: subject (what
was being read or written), expected, got, where (path and offset, or key) and remedy.
"""

from __future__ import annotations

from typing import ClassVar

# A field may hold a name out of a hostile file, as long as it likes to be.
_LONGEST_FIELD = 600
_BIDI = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C, 0xFEFF}


def escape(text: object) -> str:
    """`text` with control, bidirectional and surrogate characters written as escapes.

    Names out of a hostile file end up in messages: an escape sequence that reached the
    terminal could rewrite what the user reads.
    """
    string = str(text)
    if string.isascii() and string.isprintable():
        return string
    return "".join(_escape_one(char) for char in string)


def _escape_one(char: str) -> str:
    code = ord(char)
    if char.isprintable() and code not in _BIDI:
        return char
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _short(field: object) -> str:
    text = escape(field)
    return text if len(text) <= _LONGEST_FIELD else text[: _LONGEST_FIELD - 3] + "..."


class TensorkeepError(Exception):
    """Root of the tree. Fields are plain text; empty ones are left out of the sentence."""

    default_remedy: ClassVar[str] = ""

    def __init__(
        self,
        subject: object,
        *,
        expected: object = "",
        got: object = "",
        where: object = "",
        remedy: str = "",
    ) -> None:
        self.subject = _short(subject)
        self.expected = _short(expected)
        self.got = _short(got)
        self.where = _short(where)
        self.remedy = escape(remedy) or self.default_remedy
        super().__init__(self.sentence())

    def sentence(self) -> str:
        """Subject, expected, got, where, remedy: one line, whatever is empty left out."""
        parts = []
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.got:
            parts.append(f"got {self.got}")
        text = self.subject + (": " + ", ".join(parts) if parts else "")
        if self.where:
            text += f" (at {self.where})"
        return f"{text}. {self.remedy}" if self.remedy else text

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword arguments do not cross a process pool otherwise.
        fields = (self.subject, self.expected, self.got, self.where, self.remedy)
        return (_rebuild, (type(self), *fields))


def _rebuild(
    kind: type[TensorkeepError], subject: str, expected: str, got: str, where: str, remedy: str
) -> TensorkeepError:
    return kind(subject, expected=expected, got=got, where=where, remedy=remedy)


class ReadError(TensorkeepError):
    """The bytes are not what they claim to be."""


class NotACheckpoint(ReadError):
    """No format recognises these bytes."""


class Damaged(ReadError):
    """Truncated, out of bounds, or contradicting itself."""

    default_remedy = "Get the file again from where it came, or restore it from a backup."


class Unsupported(ReadError):
    """Well formed as far as it was read, and nothing here reads it yet."""


class LimitExceeded(ReadError):
    """Reading on would cost more time or memory than `Limits` allows."""

    default_remedy = "If you trust the file, pass larger Limits."


class Amplified(LimitExceeded):
    """A little that unpacks to very much: no honest writer makes it, and readers choke on it."""

    default_remedy = "Do not unpack it; if you made it yourself, pass larger Limits."


class StoreError(TensorkeepError):
    """The place where bytes live said no."""


class NotFound(StoreError):
    """Nothing lies under this name."""


class AccessDenied(StoreError):
    """It is there, and this process may not read or write it."""


class AlreadyExists(StoreError):
    """The destination exists, and overwriting was not asked for."""


class NoSpace(StoreError):
    """The device, the quota or the file size limit is full."""

    default_remedy = "Free some room or choose another destination; nothing was left behind."


class ChangedWhileRead(StoreError):
    """The bytes under this name changed between two reads."""


class UnknownScheme(StoreError):
    """No store answers to this URL scheme."""


class SelectionError(TensorkeepError):
    """What was asked for is not in the checkpoint, or is in it more than once."""


class UnknownSection(SelectionError):
    """No section has this name."""


class UnknownTensor(SelectionError, KeyError):
    """No tensor has this name."""

    def __str__(self) -> str:
        # KeyError would print the sentence in quotes.
        return self.sentence()


class AmbiguousSection(SelectionError):
    """Several sections could be the weights."""


class NothingSelected(SelectionError):
    """The selection holds no tensor."""


class NameCollision(SelectionError):
    """Two tensors would get the same name."""


class DoesNotFit(TensorkeepError):
    """What the checkpoint holds is not what the module or optimizer wants.

    `report` says all of it, where the names were compared.
    """

    report: object = None


class Unwritable(TensorkeepError):
    """The target format cannot hold this."""


class NotSafe(TensorkeepError):
    """`require="safe"` was asked for and the scan says otherwise."""


class Untrusted(TensorkeepError):
    """A whole model needs classes that the caller did not name."""


class InertValue(TensorkeepError, AttributeError):
    """An attribute is wanted of an object that was not made, since nobody named its class."""


class BadArgument(TensorkeepError):
    """An option, or a combination of options, that means nothing."""


class DidNotFinish(TensorkeepError):
    """A training function that the caller named raised, or did not do its part.

    `output`: the last lines that it wrote.
    """

    output: tuple[str, ...] = ()


class MissingExtra(TensorkeepError):
    """A library is missing that one of the extras installs."""


class OutOfMemory(TensorkeepError, MemoryError):
    """The system has no room for what was to be loaded."""

    default_remedy = "Load it mapped (mmap=True), or less of it (only=)."


class Interrupted(TensorkeepError):
    """A signal ended the work before it was done."""


class TensorkeepWarning(UserWarning):
    """Root of what is worth saying although the work goes on."""


class NotSafeWarning(TensorkeepWarning):
    """A file is read that a scan does not call safe. Nothing of it is run."""
