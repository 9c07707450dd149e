"""safetensors: what is called safe, the official library reads as the same tensors."""

from __future__ import annotations

import json
import random
import struct

import safetensors
import seeds as samples
from promises import every_verb, format_of, tensors_of

WORDS = [
    *(b'"dtype":', b'"shape":', b'"data_offsets":', b'"__metadata__":', b'"format":"pt"'),
    *(f'"{name}"'.encode() for name in ("F32", "F16", "BF16", "I64", "BOOL", "F8_E4M3", "F4")),
    *(b"[0,4]", b"[]", b"{}", b"null", b"-1", b"1e2", b"18446744073709551615", b"\\u0000"),
    *(b"\\ud800", b"NaN", b"true", b'"":', b",", b":", b"  "),
]


def seeds() -> list[bytes]:
    return [*samples.samples(lambda data: format_of(data) == "safetensors"), *_small()]


def _small() -> list[bytes]:
    texts = [
        {},
        {"__metadata__": {"format": "pt"}},
        {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}},
        {"a": {"dtype": "I8", "shape": [], "data_offsets": [0, 1]}},
        {
            "a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
            "b": {"dtype": "F4", "shape": [2, 2], "data_offsets": [3, 5]},
        },
    ]
    return [packed(json.dumps(text).encode(), bytes(range(16))) for text in texts]


def packed(header: bytes, body: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def one(data: bytes) -> None:
    if every_verb(data) == "safe" and format_of(data) == "safetensors":
        theirs = dict(safetensors.deserialize(data))
        for name, record in tensors_of(data).items():
            if name in theirs:  # further names of a tensor are in the metadata only
                assert bytes(theirs[name]["data"]) == record, name


def mutate(data: bytes, longest: int, seed: int) -> bytes:
    """Bytes as libFuzzer changes them; two times in three the header, and its length is right."""
    import atheris

    rng = random.Random(seed)
    if rng.random() < 0.33 or len(data) < 10:
        return atheris.Mutate(data, longest)
    length = min(struct.unpack("<Q", data[:8])[0], len(data) - 8)
    header = atheris.Mutate(data[8 : 8 + length], length + 32)
    return packed(header, data[8 + length :])[:longest]
