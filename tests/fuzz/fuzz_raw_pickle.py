"""Pickles outside containers: stacked, with arrays in their stream, in compressed streams."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
import random
import struct
import zlib

import fuzz_pickles
import seeds as samples
from promises import every_verb, format_of

tricks = samples.module("corpus/hostile/tricks")
WORDS = [
    *fuzz_pickles.WORDS,
    *(b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\x00", b"\x78\x9c", b"\x93NUMPY\x01\x00", b"\x00\x2e"),
    *(b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n", b"cnumpy.core.multiarray\n_reconstruct\n"),
]
_PACKERS = (gzip.compress, bz2.compress, lzma.compress, zlib.compress, lambda data: data)


def seeds() -> list[bytes]:
    raw = [*samples.pickles_inside(), *samples.programs(60), _array()]
    few = raw[:: max(1, len(raw) // 12)]
    stacked = [a + b for a, b in zip(few, few[1:], strict=False)]
    nested = [pickle.dumps({"inside": data}) for data in few[:6]]
    packed = [pack(data) for data in few for pack in _PACKERS[:4]]
    return [*raw, *stacked, *nested, *packed]


def _array() -> bytes:
    """A numpy array as a pickle has it, written by hand."""
    g, u = tricks.g, tricks.u
    made = g("numpy.core.multiarray", "_reconstruct") + g("numpy", "ndarray")
    dtype = g("numpy", "dtype") + u("f4") + b"\x89\x88\x87R(K\x03" + u("<") + b"NNN"
    dtype += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01(K\x04t" + dtype + b"\x89C\x10" + tricks.WEIGHT + b"tb."
    return b"\x80\x03" + made + b"K\x00\x85C\x01b\x87R" + state


def one(data: bytes) -> None:
    if format_of(data) in ("pickle", "compressed", "torch_legacy"):
        every_verb(data)


def mutate(data: bytes, longest: int, seed: int) -> bytes:
    """As the pickle machine's, and what is in a compressed stream is packed again."""
    rng = random.Random(seed)
    inside = _unpacked(data)
    if inside is None or rng.random() < 0.2:
        return fuzz_pickles.mutate(data, longest, seed)
    changed = fuzz_pickles.mutate(inside, longest, seed)
    packed = rng.choice(_PACKERS)(changed)
    if rng.random() < 0.1:
        packed += struct.pack("<I", seed & 0xFFFFFFFF)
    return packed[:longest]


def _unpacked(data: bytes) -> bytes | None:
    for unpack in (gzip.decompress, bz2.decompress, lzma.decompress, zlib.decompress):
        try:
            return unpack(data)[:8192]
        except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error):
            continue
    return None
