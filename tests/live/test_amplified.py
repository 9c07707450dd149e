"""Little that would load as very much: refused before the memory is gone."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tensorkeep as tk
from tensorkeep import errors

MANY = 3_000
CALL = b"h\x02h\x01\x85R"  # what memo 2 names, called with what memo 1 holds


def opened(name: bytes, inner: bytes) -> bytes:
    """A pickle that has begun: `inner` is in memo 1, the class `name` in memo 2."""
    return b"\x80\x02" + inner + b"q\x010" + b"c" + name + b"\nq\x020"


def numbers() -> bytes:
    return b"](" + b"".join(b"M" + n.to_bytes(2, "little") for n in range(MANY)) + b"e"


def attributes(name: bytes) -> bytes:
    """An OrderedDict with `MANY` attributes, each a copy of the same numbers."""
    pairs = b"".join(b"U\x05%05d" % n + CALL for n in range(MANY))
    return opened(name, numbers()) + b"ccollections\nOrderedDict\n)R}(" + pairs + b"ub."


def keys(name: bytes) -> bytes:
    pairs = b"".join(CALL + b"N" for _ in range(MANY))
    return opened(name, numbers()) + b"}(" + pairs + b"u."


def copies(_name: bytes) -> bytes:
    """As many bytearrays, each a copy of the same hundred thousand bytes."""
    text = b"X" + (100_000).to_bytes(4, "little") + b"a" * 100_000
    encoded = b"c_codecs\nencode\n" + text + b"U\x06latin1\x86R"
    return opened(b"builtins\nbytearray", encoded) + b"](" + CALL * MANY + b"e."


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("build", [attributes, keys, copies])
@pytest.mark.parametrize("name", [b"builtins\nfrozenset", b"torch\nSize", b"collections\ndeque"])
def test_copies_of_one_value_are_counted(build: Callable[[bytes], bytes], name: bytes) -> None:
    with pytest.raises(errors.Amplified, match=r"Limits.max_expansion when they are copied"):
        tk.load(build(name), nested=True)


def test_what_the_bytes_spell_is_never_too_much() -> None:
    limits = tk.Limits(max_expansion=0)
    value = [{"a": n, "b": [n, None], "c": {n, -1}} for n in range(1_000)]
    assert tk.load(pickle.dumps(value), nested=True, limits=limits) == value


def test_views_of_one_storage_stay_within_a_multiple_of_it(tmp_path: Path) -> None:
    whole = torch.arange(1 << 20, dtype=torch.uint8)
    torch.save({f"t{n}": whole[n:] for n in range(1_100)}, tmp_path / "views.pth")
    with pytest.raises(errors.LimitExceeded, match="at most 64 times the 1,048,576 bytes"):
        tk.load(tmp_path / "views.pth")
    assert len(tk.load(tmp_path / "views.pth", only=["t1?"])) == 10
    nested = tk.load(tmp_path / "views.pth", nested=True)
    assert isinstance(nested, dict) and nested["t7"][0] == 7


@pytest.mark.parametrize("options", [{}, {"nested": True}, {"mmap": True}, {"device": "meta"}])
def test_a_shape_that_torch_cannot_count(options: dict[str, object]) -> None:
    entry = {"dtype": "F32", "shape": [1 << 61, 1 << 61, 0], "data_offsets": [0, 0]}
    header = json.dumps({"w": entry}).encode()
    with pytest.raises(errors.Unsupported, match="'w'.*a shape that torch can count"):
        tk.load(len(header).to_bytes(8, "little") + header, **options)  # type: ignore[call-overload]
