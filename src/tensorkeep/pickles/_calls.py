"""Opcodes that import and call: recorded, never done."""

from __future__ import annotations

from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from struct import Struct

from tensorkeep.errors import Unsupported
from tensorkeep.pickles._state import Fault, Handler, Machine
from tensorkeep.pickles.describe import describe
from tensorkeep.pickles.values import Call, Extension, Global, Import, Node, Persistent

_UINT16 = Struct("<H").unpack_from
_INT32 = Struct("<i").unpack_from


def global_(m: Machine, pos: int) -> int:
    module, middle = _name(m, pos, "utf-8")
    name, end = _name(m, middle, "utf-8")
    m.stack.append(_import(m, module, name, "GLOBAL", pos - 1))
    return end


def _name(m: Machine, pos: int, encoding: str) -> tuple[str, int]:
    end = m.line(pos)
    if end == pos:
        raise Fault("a name", "an empty line")
    try:
        return m.data[pos:end].decode(encoding), end + 1
    except UnicodeDecodeError as error:
        raise Fault(f"a name in {encoding}", error.reason) from None


def _import(m: Machine, module: str, name: str, opcode: str, offset: int) -> Global:
    """The one node for this name, its occurrence recorded."""
    written = (module, name)
    if m.proto < 3:  # Python 2 wrote it, perhaps: CPython translates
        module, name = NAME_MAPPING.get(written) or (IMPORT_MAPPING.get(module, module), name)
    dotted = m.proto >= 4 and "." in name
    key = (module, name, dotted)
    node = m.globals.get(key)
    if node is None:
        node = m.globals[key] = Global(module, name, offset, written=written, dotted=dotted)
    m.trace.append(Import(node, opcode, offset))
    return node


def stack_global(m: Machine, pos: int) -> int:
    name = m.stack.pop()
    module = m.stack.pop()
    if isinstance(name, str) and isinstance(module, str):
        node = _import(m, module, name, "STACK_GLOBAL", pos - 1)
    elif all(isinstance(part, str | Node) for part in (module, name)):
        node = _computed(m, module, name, pos - 1)
    else:
        raise Fault("two str", f"{kind_of(module)} and {kind_of(name)}")
    m.stack.append(node)
    return pos


def _computed(m: Machine, module: object, name: object, offset: int) -> Global:
    """A name that a call returns: only running it would tell, and no honest writer does it."""
    texts = [part if isinstance(part, str) else "<computed>" for part in (module, name)]
    node = Global(texts[0], texts[1], offset, operands=(module, name))
    m.note("computed-name", "the name of an import is what a call returns", offset)
    m.trace.append(Import(node, "STACK_GLOBAL", offset))
    return node


def kind_of(value: object) -> str:
    """`value` for a message: its type, and what it is."""
    return f"{type(value).__name__} {describe(value, 40)}"


def ext1(m: Machine, pos: int) -> int:
    _extension(m, m.data[pos], "EXT1", pos - 1)
    return pos + 1


def ext2(m: Machine, pos: int) -> int:
    _extension(m, _UINT16(m.data, pos)[0], "EXT2", pos - 1)
    return pos + 2


def ext4(m: Machine, pos: int) -> int:
    _extension(m, _INT32(m.data, pos)[0], "EXT4", pos - 1)
    return pos + 4


def _extension(m: Machine, code: int, opcode: str, offset: int) -> None:
    if code <= 0:
        raise Fault("an extension code above 0", str(code))
    node = m.extensions.get(code)
    if node is None:
        node = m.extensions[code] = Extension(code, offset)
    m.trace.append(Import(node, opcode, offset))
    m.stack.append(node)


def reduce_(m: Machine, pos: int) -> int:
    stack = m.stack
    args = stack.pop()
    func = stack.pop()
    if args.__class__ is not tuple:
        _check_args(args)
    if not isinstance(func, Node):
        raise Fault("something to call", kind_of(func))
    call = Call("REDUCE", func, args, None, pos - 1)  # type: ignore[arg-type]
    m.trace.append(call)
    stack.append(call)
    return pos


def _check_args(args: object) -> None:
    # A node may turn out to be a tuple of a subclass, which CPython accepts.
    if not isinstance(args, tuple | Node):
        raise Fault("a tuple of arguments", kind_of(args))


def newobj(m: Machine, pos: int) -> int:
    args = m.stack.pop()
    cls = m.stack.pop()
    _call(m, Call("NEWOBJ", cls, args, None, pos - 1))  # type: ignore[arg-type]
    return pos


def newobj_ex(m: Machine, pos: int) -> int:
    kwargs = m.stack.pop()
    args = m.stack.pop()
    cls = m.stack.pop()
    if not isinstance(kwargs, dict | Node):
        raise Fault("a dict of keyword arguments", kind_of(kwargs))
    _call(m, Call("NEWOBJ_EX", cls, args, kwargs, pos - 1))  # type: ignore[arg-type]
    return pos


def _call(m: Machine, call: Call) -> None:
    _check_args(call.args)
    if not isinstance(call.func, Node):
        raise Fault("a class", kind_of(call.func))
    m.trace.append(call)
    m.stack.append(call)


def inst(m: Machine, pos: int) -> int:
    args = tuple(m.pop_mark())
    module, middle = _name(m, pos, "ascii")
    name, end = _name(m, middle, "ascii")
    cls = _import(m, module, name, "INST", pos - 1)
    _call(m, Call("INST", cls, args, None, pos - 1))
    return end


def obj(m: Machine, pos: int) -> int:
    items = m.pop_mark()
    if not items:
        raise Fault("a class above the mark", "nothing")
    _call(m, Call("OBJ", items[0], tuple(items[1:]), None, pos - 1))  # type: ignore[arg-type]
    return pos


def persid(m: Machine, pos: int) -> int:
    end = m.line(pos)
    line = m.data[pos:end]
    if not line.isascii():
        raise Fault("a persistent id in ASCII", "other bytes")
    _persistent(m, line.decode("ascii"), pos - 1)
    return end + 1


def binpersid(m: Machine, pos: int) -> int:
    _persistent(m, m.stack.pop(), pos - 1)
    return pos


def _persistent(m: Machine, pid: object, offset: int) -> None:
    known = m.resolve(pid) if m.resolve is not None else None
    if known is not None:
        m.resolved.append(pid)
        m.stack.append(known)
        return
    node = Persistent(pid, offset)
    m.persistents.append(node)
    m.stack.append(node)


def next_buffer(m: Machine, pos: int) -> int:
    raise Fault(
        "all data within the pickle",
        "NEXT_BUFFER, which takes a buffer from outside it",
        Unsupported,
    )


CALLS: dict[bytes, tuple[str, Handler]] = {
    b"c": ("GLOBAL", global_),
    b"\x93": ("STACK_GLOBAL", stack_global),
    b"\x82": ("EXT1", ext1),
    b"\x83": ("EXT2", ext2),
    b"\x84": ("EXT4", ext4),
    b"R": ("REDUCE", reduce_),
    b"\x81": ("NEWOBJ", newobj),
    b"\x92": ("NEWOBJ_EX", newobj_ex),
    b"i": ("INST", inst),
    b"o": ("OBJ", obj),
    b"P": ("PERSID", persid),
    b"Q": ("BINPERSID", binpersid),
    b"\x97": ("NEXT_BUFFER", next_buffer),
}
