"""Composes pickles out of allowlisted names only, to hunt for a `safe` that is not.

A seed is an honest pickle, read into symbolic values. Each child of it is written out anew with
faults put in where they can hurt: a number, a text, a name, an argument, an effect more, a key
that hides a method, another value of any seed in its place, in any protocol. Faults in the values
come first; then, now and then, faults in the opcodes.
"""

from __future__ import annotations

import io
import pickletools
import struct

from tensorkeep.pickles import Call, Global, Node, Persistent, run
from tensorkeep.scanning.allowlist import ENTRIES

NUMBERS = (
    *(0, 1, -1, 2, 3, 7, 8, 16, 63, 64, 127, 128, 255, 256, 1 << 15, 1 << 16, (1 << 31) - 1),
    *(1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, -(1 << 31), -(1 << 63), 1 << 64, 10**30),
)
_WORDS_TEXT = (
    "append extend add __setstate__ __reduce__ __class__ __dict__ __call__ __getattr__ __del__ "
    "__hash__ __eq__ __len__ forward training state_dict parameters _parameters _buffers "
    "_modules _forward_hooks _forward_pre_hooks _backward_hooks _backward_pre_hooks "
    "_state_dict_hooks _load_state_dict_pre_hooks _load_state_dict_post_hooks "
    "_is_full_backward_hook weight bias _non_persistent_buffers_set _call_impl "
    "_compiled_call_impl _forward_hooks_with_kwargs eval _forward_hooks_always_called "
    "_state_dict_pre_hooks _get_name extra_repr activation dtype shape data grad _metadata "
    "default_factory items keys values get update copy _get_kwargs x name int is_safe cpu meta "
    "cuda:0 latin1 utf-8 f8 <f4 |V8 |O8 <U4 S3 M8[us] <M8[ns] V0 U0 torch.strided "
    "torch.sparse_coo torch.sparse_csr torch.sparse_csc storage 0 1 num_layers mode "
    "_all_weights _flat_weights _flat_weights_names inplace in_features out_features "
    "padding_mode normalized_shape "
)
WORDS = tuple(_WORDS_TEXT.split())
PROTOCOLS = (0, 1, 2, 2, 2, 3, 4, 4, 4, 5)
_DEEPEST = 40
_LONGEST = 64
_NATIVE_EMPTY = {list: b"]", dict: b"}", set: b"\x8f"}


class Seeds:
    """Honest pickles as programs, every value in them that another can get, and their storages."""

    def __init__(self, pickles):
        """`pickles`: pairs of a pickle and the storages beside it, by their keys."""
        self.programs, self.pool, self.records = [], [], {}
        for data, storages in pickles:
            program = run(data)
            if program.error is None:
                self._take(program, storages)

    def _take(self, program, storages):
        self.programs.append(program)
        self.pool += [event for event in program.trace if isinstance(event, Call)]
        effects = (event for event in program.trace if getattr(event, "kind", "") == "BUILD")
        self.pool += [event.args[0] for event in effects]
        for node in program.persistents:
            if type(node.pid) is tuple and len(node.pid) == 5 and node.pid[2] in storages:
                self.records[id(node)] = storages[node.pid[2]]


class Composer:
    """Writes programs; `rng` decides everything, so a seed of it names a program."""

    def __init__(self, rng, seeds):
        self.rng, self.programs, self.pool = rng, seeds.programs, seeds.pool
        self.bytes_of = seeds.records
        self.references = [Global(entry.module, entry.name, 0) for entry in ENTRIES]
        self.rate = 0.02

    def program(self):
        """The bytes of one pickle, and the storages that lie beside it."""
        rng = self.rng
        self.protocol = rng.choice(PROTOCOLS)
        self.rate = rng.choice((0.005, 0.02, 0.05, 0.15))
        self.memo, self.open, self.out = {}, set(), io.BytesIO()
        self.room = 4_000
        self.records, self.keys = {}, {}
        if self.protocol >= 2:
            self.out.write(b"\x80" + bytes([self.protocol]))
        if rng.random() < 0.6:
            self.value(rng.choice(self.programs).value)
        else:
            self.made_up()
        data = self.out.getvalue() + b"."
        return (self.shaken(data) if rng.random() < 0.2 else data), self.records

    def made_up(self):
        """A dictionary of values that never stood together."""
        self.out.write(b"}")
        for _ in range(self.rng.randrange(1, 5)):
            self.text(self.rng.choice(WORDS))
            self.any(0)
            self.out.write(b"s")

    # Values

    def any(self, depth):
        rng = self.rng
        kind = rng.random()
        if kind < 0.2 or depth > _DEEPEST:
            self.number(rng.choice(NUMBERS))
        elif kind < 0.4:
            self.text(rng.choice(WORDS))
        elif kind < 0.6:
            self.name(rng.choice(self.references))
        elif kind < 0.75:
            self.out.write(rng.choice((b"N", b"\x88", b"\x89", b")", b"]", b"}", b"\x8f", b"C\0")))
        elif kind < 0.8:
            self.odd_call(depth)
        else:
            self.value(rng.choice(self.pool), depth + 1)

    def odd_call(self, depth):
        """A call of an allowlisted name with whatever comes."""
        self.name(self.rng.choice(self.references))
        count = self.rng.randrange(4)
        self.out.write(b"(")
        for _ in range(count):
            self.any(depth + 1)
        self.out.write(self.rng.choice((b"tR", b"tR", b"t\x81", b"t}\x92")))

    def value(self, value, depth=0):
        """Write `value`, or something in its place."""
        rng = self.rng
        if self.room < 0 or depth > _DEEPEST or id(value) in self.open:
            self.out.write(b"N")
            return
        self.room -= 1
        if rng.random() < self.rate:
            self.any(depth)
            return
        if id(value) in self.memo and rng.random() < 0.9:
            self.get(self.memo[id(value)])
            return
        self.open.add(id(value))
        self.written(value, depth)
        self.open.discard(id(value))
        if isinstance(value, Node | list | dict):
            self.put(value)
        if rng.random() < self.rate:
            self.effect(depth)

    def written(self, value, depth):
        if isinstance(value, Global):
            self.name(self.rng.choice(self.references) if self.hit() else value)
        elif isinstance(value, Call):
            self.call(value, depth)
        elif isinstance(value, Persistent):
            self.value(self.pid(value), depth + 1)
            self.out.write(b"Q")
        elif type(value) in (tuple, list, dict, set, frozenset):
            self.container(value, depth)
        else:
            self.atom(value)

    def pid(self, node):
        """The persistent id under a key of this program, and the bytes that belong to it."""
        data = self.bytes_of.get(id(node))
        if data is None:
            return node.pid
        key = self.keys.setdefault(id(node), str(len(self.keys)))
        self.records[key] = data
        return (*node.pid[:2], key, *node.pid[3:])

    def hit(self):
        return self.rng.random() < self.rate

    def atom(self, value):
        kind = type(value)
        if kind is bool or value is None:
            value = self.rng.choice((True, False, None)) if self.hit() else value
            self.out.write({None: b"N", True: b"\x88", False: b"\x89"}[value])
        elif kind is int:
            self.number(self.rng.choice(NUMBERS) if self.hit() else value)
        elif kind is float:
            self.out.write(b"G" + struct.pack(">d", value))
        elif kind is str:
            self.text(self.rng.choice(WORDS) if self.hit() else value)
        elif kind is bytes:
            self.raw(value[: self.rng.randrange(len(value) + 1)] if self.hit() else value)
        elif kind is bytearray:
            self.out.write(b"\x96" + struct.pack("<Q", len(value)) + value)
        else:
            self.out.write(b"N")

    def raw(self, value):
        self.out.write(b"B" + struct.pack("<I", len(value)) + value)

    def number(self, value):
        if self.protocol == 0:
            self.out.write(b"L%dL\n" % value)
        elif -(1 << 31) <= value < 1 << 31:
            self.out.write(b"J" + struct.pack("<i", value))
        else:
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            self.out.write(b"\x8a" + bytes([len(data)]) + data)

    def text(self, value):
        data = value.encode("utf-8", "surrogatepass")
        self.out.write(b"X" + struct.pack("<I", len(data)) + data)

    def name(self, value):
        if self.protocol >= 4 and self.rng.random() < 0.7:
            self.text(value.module)
            self.text(value.name)
            self.out.write(b"\x93")
        else:
            self.out.write(f"c{value.module}\n{value.name}\n".encode())

    def put(self, value):
        if self.rng.random() < 0.8:
            index = len(self.memo) if self.rng.random() > self.rate else self.rng.randrange(9)
            self.memo[id(value)] = index
            self.out.write(b"r" + struct.pack("<I", index))

    def get(self, index):
        self.out.write(b"j" + struct.pack("<I", index))

    def container(self, value, depth):
        kind = type(value)
        if kind is tuple or kind is frozenset:
            self.out.write(b"(")
            for item in list(value)[:_LONGEST]:
                self.part(item, depth)
            self.out.write(b"t" if kind is tuple else b"\x91")
            return
        self.out.write(_NATIVE_EMPTY[kind])
        if kind is dict:
            for key, item in list(value.items())[:_LONGEST]:
                self.pair(key, item, depth)
        elif value:
            self.out.write(b"(")
            for item in list(value)[:_LONGEST]:
                self.part(item, depth)
            self.out.write(b"e" if kind is list else b"\x90")

    def part(self, item, depth):
        """One item: it, none, it twice, or something else beside it."""
        if self.hit() and self.rng.random() < 0.3:
            return
        self.value(item, depth + 1)
        if self.hit() and self.rng.random() < 0.3:
            self.any(depth + 1)

    def pair(self, key, item, depth):
        self.value(key, depth + 1)
        self.value(item, depth + 1)
        self.out.write(b"s")
        if self.hit():
            self.text(self.rng.choice(WORDS))
            self.any(depth + 1)
            self.out.write(b"s")

    def call(self, call, depth):
        args = call.args if type(call.args) is tuple else ()
        opcode = {"NEWOBJ": b"\x81", "NEWOBJ_EX": b"}\x92"}.get(call.kind, b"R")
        if self.hit():
            opcode = self.rng.choice((b"R", b"\x81", b"}\x92"))
        if self.hit() and opcode == b"R":
            self.out.write(b"(")
            self.value(call.func, depth + 1)
            for arg in args:
                self.part(arg, depth)
            self.out.write(b"o")
        else:
            self.value(call.func, depth + 1)
            self.container(args, depth)
            self.out.write(opcode)
        self.put(call)
        for effect in (call.effects or ())[:_LONGEST]:
            if not (self.hit() and self.rng.random() < 0.2):
                self.replay(effect, depth)

    def replay(self, effect, depth):
        if effect.kind == "BUILD":
            self.value(effect.args[0], depth + 1)
            self.out.write(b"b")
            return
        self.out.write(b"(")
        for item in effect.args[:_LONGEST]:
            self.value(item, depth + 1)
        self.out.write({"A": b"e", "S": b"u"}.get(effect.kind[0]) or b"e")
        if effect.kind == "ADDITEMS":
            self.out.seek(-1, io.SEEK_CUR)
            self.out.write(b"\x90")

    def effect(self, depth):
        """A change that no honest writer makes, to what lies on top of the stack."""
        rng = self.rng
        how = rng.randrange(8)
        if how < 3:
            slots = how == 0
            self.out.write(b"N}" if slots else b"}")
            self.text(rng.choice(WORDS))
            self.any(depth + 1)
            self.out.write(b"s\x86b" if slots else b"sb")
        elif how == 3:
            self.value(rng.choice(self.pool), depth + 1)
            self.out.write(b"b")
        elif how == 4:
            self.out.write(b"(")
            self.any(depth + 1)
            self.out.write(rng.choice((b"e", b"\x90")))
        elif how == 5:
            self.any(depth + 1)
            self.out.write(b"a")
        elif how == 6:
            self.any(depth + 1)
            self.any(depth + 1)
            self.out.write(b"s")
        else:
            self.out.write(rng.choice((b"20", b"2\x86", b")R", b")\x81", b"(1", b"\x94", b"Q")))

    # Opcodes

    def shaken(self, data):
        """The program with an opcode lost, doubled, moved, replaced or added."""
        try:
            starts = [at for _, _, at in pickletools.genops(data)]
        except ValueError:
            return data
        parts = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
        for _ in range(self.rng.randrange(1, 4)):
            place, other = self.rng.randrange(len(parts)), self.rng.randrange(len(parts))
            change = self.rng.randrange(5)
            if change == 0:
                parts[place] = b""
            elif change == 1:
                parts[place] *= 2
            elif change == 2:
                parts[place], parts[other] = parts[other], parts[place]
            elif change == 3:
                parts[place] = parts[other]
            else:
                extra = (
                    b"0",
                    b"2",
                    b"(",
                    b"1",
                    b"a",
                    b"e",
                    b"s",
                    b"u",
                    b"b",
                    b"R",
                    b"\x81",
                    b"\x90",
                )
                parts.insert(place, self.rng.choice(extra))
        return b"".join(parts)
