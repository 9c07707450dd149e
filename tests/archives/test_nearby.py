"""Small reads out of a larger one: the same bytes, in fewer calls, and none read on for nothing."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tensorkeep.archives._nearby import Nearby
from tensorkeep.stores.local import LocalBlob
from tensorkeep.stores.memory import MemoryBlob

DATA = bytes(i * 7 % 251 for i in range(20_000))
PLACES = st.integers(0, len(DATA)).flatmap(
    lambda at: st.tuples(st.just(at), st.integers(0, min(len(DATA) - at, 5000)))
)


@given(st.lists(PLACES, max_size=30))
def test_reads_in_any_order_give_the_bytes(places: list[tuple[int, int]]) -> None:
    near = Nearby(MemoryBlob(DATA))
    for at, length in places:
        assert near.read(at, length) == DATA[at : at + length]


def test_headers_side_by_side_share_reads_that_grow() -> None:
    lengths = []

    class Counted(MemoryBlob):
        def read(self, offset: int, length: int) -> bytes:
            lengths.append(length)
            return super().read(offset, length)

    near = Nearby(Counted(DATA))
    for at in range(0, len(DATA) - 64, 192):
        assert near.read(at, 64) == DATA[at : at + 64]
    assert lengths[:2] == [64, 8 << 10]
    assert len(lengths) < 5
    assert sum(lengths) <= len(DATA)


def test_headers_far_apart_are_read_alone(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(DATA)
    with LocalBlob(tmp_path / "x") as blob:
        near = Nearby(blob)
        for at in (0, 6000, 12_000, 3000):
            assert near.read(at, 64) == DATA[at : at + 64]
        assert blob.bytes_read == 4 * 64
