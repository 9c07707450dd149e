"""Pairs of tensors compared in pieces: large, strided, by two threads, in bounded memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import tensorkeep as tk
from tensorkeep.edits.comparing import compare
from tensorkeep.errors import Damaged, Unsupported
from tensorkeep.progress import Reporter

LARGE = 5_000_003  # elements: more than a job


class Counter(Reporter):
    def __init__(self):
        self.done = 0

    def advance(self, amount):
        self.done += amount


def distances(tmp_path, first, second, **options):
    for name, value in (("a", first), ("b", second)):
        torch.save(value, tmp_path / name)
    with tk.open(tmp_path / "a") as a, tk.open(tmp_path / "b") as b:
        pairs = [(a[name], b[name]) for name in a]
        return dict(zip(a, compare(pairs, **options), strict=True))


@pytest.mark.parametrize("at", [0, 4_200_000, LARGE - 1])
def test_one_element_of_a_large_tensor(tmp_path, at):
    """Wherever it lies, the norms are over all: what was passed is caught up with."""
    a = {"same": torch.ones(70_000), "large": torch.randn(LARGE), "last": torch.ones(3)}
    b = {name: tensor.clone() for name, tensor in a.items()}
    b["large"][at] += 1
    counter = Counter()
    found = distances(tmp_path, a, b, reporter=counter)
    assert [name for name, distance in found.items() if distance.apart] == ["large"]
    for name, tensor in a.items():
        assert found[name].first == pytest.approx(tensor.double().square().sum().item(), rel=1e-6)
        assert found[name].second == pytest.approx(found[name].first, rel=1e-4)
    assert found["large"].max_abs == pytest.approx(1, abs=1e-6)
    assert counter.done == 2 * sum(tensor.nbytes for tensor in a.values())


def test_equal_tensors_are_only_read(tmp_path):
    a = {"w": torch.randn(LARGE // 10)}
    found = distances(tmp_path, a, a)
    assert not found["w"].apart
    assert found["w"].first == 0


def test_views_are_compared_element_by_element(tmp_path):
    base = torch.randn(300, 700)
    a = {"t": base.t(), "s": base[::3, 5:600:2], "e": base[0].expand(50, 700), "n": base}
    b = {name: tensor.contiguous() + (name == "s") for name, tensor in a.items()}
    found = distances(tmp_path, a, b)
    assert [name for name, distance in found.items() if distance.apart] == ["s"]
    wanted = (a["s"].double() - b["s"].double()).norm() / a["s"].double().norm()
    assert found["s"].rel_l2 == pytest.approx(wanted.item(), rel=1e-6)


def test_bytes_that_mean_the_same(tmp_path):
    a = {"z": torch.zeros(5), "n": torch.tensor([float("nan")])}
    b = {"z": -torch.zeros(5), "n": -torch.tensor([float("nan")])}
    found = distances(tmp_path, a, b)
    assert all(d.recoded and not d.apart for d in found.values())
    assert found["n"].nans == 1


def test_packed_bits_are_compared_as_bytes(tmp_path):
    codes = torch.arange(64, dtype=torch.uint8)
    a = {"same": codes.view(torch.bits8), "other": codes.view(torch.bits8)}
    b = {"same": codes.view(torch.bits8), "other": codes.roll(1).view(torch.bits8)}
    found = distances(tmp_path, a, b)
    assert not found["same"].apart
    assert found["other"].unmeasured
    assert found["other"].apart


def test_no_values_to_compare(tmp_path):
    a = {"w": torch.empty(3, device="meta")}
    with pytest.raises(Unsupported, match="meta tensor"):
        distances(tmp_path, a, {"w": torch.empty(3)})


def test_a_file_cut_short_is_an_error_from_whichever_thread(tmp_path):
    torch.save({"w": torch.randn(LARGE)}, tmp_path / "a")
    with tk.open(tmp_path / "a") as a, tk.open(tmp_path / "a") as b:
        b["w"].record.storage.blob.size //= 2
        with pytest.raises(Damaged):
            compare([(a["w"], b["w"])])


MEMORY = r"""
import re, sys, tensorkeep as tk
assert tk.diff(sys.argv[1], sys.argv[2]).same is (sys.argv[3] == "same")
# ru_maxrss would count the memory of the process that started this one.
print(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
"""


def test_memory_does_not_grow_with_the_tensor(tmp_path):
    size = 400_000_000
    with torch.serialization.skip_data():
        torch.save({"w": torch.empty(size // 4)}, tmp_path / "a")
        torch.save({"w": torch.empty(size // 4)}, tmp_path / "b")
    with tk.open(tmp_path / "b") as b:
        last = b["w"].record.storage.offset + size - 4
    with (tmp_path / "b").open("r+b") as file:
        file.seek(last)
        file.write(b"\0\0\x80\x3f")
    command = [sys.executable, "-c", MEMORY, tmp_path / "a", tmp_path / "b", "other"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 120_000  # KiB
