"""Bytes cut and flipped at random: the right tensors, or an error of ours, or an oddity reported.

What stands beside: `torch.load(weights_only=True)` and the safetensors library on the same bytes.
"""

from __future__ import annotations

import io
import json
import pickle
import time

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorkeep as tk

SECONDS = 5

# (where in the file, of a thousand; what is done; by which byte)
CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["flip", "set", "insert", "delete", "cut", "double", "swap"]),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=3,
)


def mutated(data, changes):
    data = bytearray(data)
    for place, how, value in changes:
        at = int(place * len(data))
        if how == "flip":
            data[at] ^= 1 << value % 8
        elif how == "set":
            data[at] = value
        elif how == "insert":
            data.insert(at, value)
        elif how == "delete":
            del data[at]
        elif how == "cut":
            del data[at:]
        elif how == "double":
            data[at:at] = data[at : at + value]
        else:
            data[at : at + 8] = data[at : at + 8][::-1]
        if not data:
            break
    return bytes(data)


def ours(data):
    """Name to (dtype, shape, bytes); None where an error of ours or a report says: damaged."""
    try:
        if tk.scan(data, deep=True).verdict != "safe" or not tk.verify(data).ok:
            return None
        with tk.open(data) as ckpt:
            return {n: (r.dtype, tuple(r.shape), r.read()) for n, r in ckpt.tensors.items()}
    except tk.TensorkeepError:
        return None


def theirs(state):
    return {
        name: (str(t.dtype).removeprefix("torch."), tuple(t.shape), bytes_of(t))
        for name, t in state.items()
    }


def bytes_of(tensor):
    return bytes(tensor.contiguous().flatten().view(torch.uint8).numpy()) if tensor.numel() else b""


def check(data, load, errors):
    started = time.monotonic()
    found = ours(data)
    assert time.monotonic() - started < SECONDS
    if found is None:
        return
    try:
        expected = theirs(load(data))
    except errors:
        return  # the library refuses what was read in full: nothing wrong came of it
    assert found == expected


def torch_load(data):
    return torch.load(io.BytesIO(data), weights_only=True)


# What a program gets from torch.load on damaged bytes: all sorts.
TORCH_ERRORS = (
    RuntimeError, pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError,
    AttributeError, AssertionError, OSError,
)  # fmt: skip


@given(changes=CHANGES)
def test_mutated_pth(good, changes):
    data = mutated((good / "good.pth").read_bytes(), changes)
    check(data, torch_load, TORCH_ERRORS)


@given(changes=CHANGES)
def test_mutated_safetensors(good, changes):
    data = mutated((good / "good.safetensors").read_bytes(), changes)
    check(data, safetensors.torch.load, safetensors.SafetensorError)


@given(changes=CHANGES)
def test_mutated_headers_of_safetensors(good, changes):
    whole = (good / "good.safetensors").read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    data = mutated(whole[:end], changes) + whole[end:]
    check(data, safetensors.torch.load, safetensors.SafetensorError)


@given(changes=CHANGES)
def test_mutated_indexes(good, tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("parts", numbered=True)
    for part in (good / "parts").iterdir():
        (folder / part.name).write_bytes(part.read_bytes())
    index = folder / "model.safetensors.index.json"
    index.write_bytes(mutated(index.read_bytes(), changes))
    started = time.monotonic()
    try:
        scanned, verified = tk.scan(index), tk.verify(index)
        with tk.open(index) as ckpt:
            found = {name: ref.digest() for name, ref in ckpt.tensors.items()}
    except tk.TensorkeepError:
        return
    finally:
        assert time.monotonic() - started < SECONDS
    with tk.open(good / "good.safetensors") as ckpt:
        assert found.items() <= {n: r.digest() for n, r in ckpt.tensors.items()}.items()
        whole = len(found) == len(ckpt)
    assert whole or not verified.ok or scanned.verdict != "safe"


@pytest.mark.long
@given(changes=CHANGES)
def test_mutated_pth_long(good, changes):
    check(mutated((good / "good.pth").read_bytes(), changes), torch_load, TORCH_ERRORS)


@pytest.mark.long
@given(changes=CHANGES)
def test_mutated_safetensors_long(good, changes):
    data = mutated((good / "good.safetensors").read_bytes(), changes)
    check(data, safetensors.torch.load, safetensors.SafetensorError)


MANY = """
import json, pathlib, random, sys, time
import tensorkeep as tk

random.seed(int(sys.argv[1]))
rounds, folder, wrong, slowest = int(sys.argv[2]), pathlib.Path(sys.argv[3]), [], 0.0
verbs = {
    "inspect": lambda data: json.dumps(tk.inspect(data).to_dict(), allow_nan=False),
    "scan": lambda data: json.dumps(tk.scan(data, deep=True).to_dict(), allow_nan=False),
    "diff": lambda data: json.dumps(tk.diff(data, data).to_dict(), allow_nan=False),
    "verify": tk.verify,
    "to torch": lambda data: tk.convert(data, "out.pth", overwrite=True, section="all"),
    "to safetensors": lambda data: tk.convert(data, "out.safetensors", overwrite=True),
}
for name in sys.argv[4:]:
    whole = (folder / name).read_bytes()
    for number in range(rounds):
        data = bytearray(whole)
        for _ in range(random.choice((1, 1, 2, 8))):
            at = random.randrange(len(data))
            data[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF, data[at] ^ 1 << random.randrange(8)))
        if random.random() < 0.3:
            del data[random.randrange(len(data)) :]
        for verb, function in verbs.items():
            started = time.monotonic()
            try:
                function(bytes(data))
            except tk.TensorkeepError as error:
                if "\\n" in str(error):
                    wrong.append([name, number, verb, "two lines"])
            except Exception as error:
                wrong.append([name, number, verb, repr(error)])
            slowest = max(slowest, time.monotonic() - started)
print(json.dumps([wrong, slowest]))
"""


def many(command, good, digits, tmp_path, seed, rounds):
    names = [good / "good.pth", good / "good.safetensors", digits]
    arguments = [seed, rounds, "/", *names]
    # A quarter of a gigabyte of address space: a size believed from a file would not fit.
    limits = {"AS": 256 << 20}
    done = command(*arguments, cwd=tmp_path, limits=limits, timeout=3000, python=MANY)
    assert done.code == 0, done.err[-2000:]
    wrong, slowest = json.loads(done.out)
    assert wrong == []
    assert slowest < SECONDS
    assert done.peak < 128 << 20


def test_many_mutations_in_little_memory(command, good, digits, tmp_path):
    many(command, good, digits, tmp_path, 1, 60)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_many_more_mutations_in_little_memory(command, good, digits, tmp_path, seed):
    many(command, good, digits, tmp_path, seed, 2000)
