"""What a store promises about bytes that are read."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from functools import partial

from tensorkeep.errors import Damaged, StoreError
from tensorkeep.stores import Blob
from tensorkeep.testing._expecting import at_once, raises

# Past two pages and past a megabyte, and a multiple of nothing.
_SIZE = 1_200_007
_DATA = random.Random(7).randbytes(_SIZE)  # noqa: S311 - the same bytes each time
_THREADS = 4


class BlobConformance(ABC):
    """Inherit, and say how to `make` a blob: every promise of `tensorkeep.stores.Blob`."""

    @abstractmethod
    def make(self, data: bytes) -> Blob:
        """An open blob over exactly these bytes, nothing of which was read yet."""

    def test_it_says_what_it_is(self) -> None:
        """`name` is not empty, `size` is in bytes."""
        with self.make(_DATA) as blob:
            assert blob.name
            assert blob.size == _SIZE

    def test_reads_are_exact(self) -> None:
        """The first byte, the last, none, all, and some in between."""
        with self.make(_DATA) as blob:
            for offset, length in _RANGES:
                got = blob.read(offset, length)
                assert type(got) is bytes
                assert got == _DATA[offset : offset + length]

    def test_buffers_are_filled(self) -> None:
        """Exactly the bytes of the buffer change."""
        whole = bytearray(b"x" * 300_010)
        with self.make(_DATA) as blob:
            blob.read_into(77, memoryview(whole)[5:-5])
            blob.read_into(_SIZE, memoryview(whole)[:0])
        assert whole == b"x" * 5 + _DATA[77:300_077] + b"x" * 5

    def test_nothing_can_be_read_from_an_empty_blob(self) -> None:
        """An empty blob opens; only reading from it is an error."""
        with self.make(b"") as blob:
            assert blob.size == 0
            assert blob.read(0, 0) == b""
            with raises(Damaged):
                blob.read(0, 1)

    def test_reads_past_the_end_are_damage(self) -> None:
        """Never fewer bytes than were asked for, whichever way the range leaves the blob."""
        with self.make(b"0123456789") as blob:
            for offset, length in _OUTSIDE:
                with raises(Damaged):
                    blob.read(offset, length)
            with raises(Damaged):
                blob.read_into(5, memoryview(bytearray(6)))
            assert blob.read(0, 10) == b"0123456789"

    def test_a_buffer_too_long_stays_untouched(self) -> None:
        """What is outside is refused before the first byte moves."""
        buffer = bytearray(b"x" * 10)
        with self.make(b"0123456789") as blob, raises(Damaged):
            blob.read_into(1, memoryview(buffer))
        assert buffer == b"x" * 10

    def test_it_counts_what_it_reads(self) -> None:
        """`bytes_read` grows by what was asked for, at most by what a device must give more."""
        with self.make(_DATA) as blob:
            before = blob.bytes_read
            blob.read(10, 90_000)
            blob.read_into(500_000, memoryview(bytearray(10_000)))
            counted = blob.bytes_read - before
        assert 100_000 <= counted <= _SIZE

    def test_several_threads_read_at_once(self) -> None:
        """Each gets its own bytes, whatever the others read meanwhile."""
        with self.make(_DATA) as blob:
            work = [partial(_read_around, blob, seed) for seed in range(_THREADS)]
            assert at_once(work) == []

    def test_hints_and_checks_change_nothing(self) -> None:
        """Reading ahead is only a hint, and bytes that stand still are unchanged."""
        with self.make(_DATA) as blob:
            blob.advise_sequential()
            blob.check_unchanged()
            assert blob.read(1, 3) == _DATA[1:4]

    def test_closing_twice_is_closing_once(self) -> None:
        """A second `close` does nothing; reading after it is an error of the store."""
        blob = self.make(_DATA)
        blob.close()
        blob.close()
        with raises(StoreError):
            blob.read(0, 1)
        with raises(StoreError):
            blob.read_into(0, memoryview(bytearray(1)))

    def test_leaving_the_block_closes(self) -> None:
        """As `close` does."""
        with self.make(_DATA) as blob:
            pass
        with raises(StoreError):
            blob.read(0, 1)


_RANGES = (
    (0, 0),
    (0, 1),
    (_SIZE - 1, 1),
    (_SIZE, 0),
    (4095, 2),
    (1_000_003, 70_001),
    (0, _SIZE),
)
_OUTSIDE = ((0, 11), (10, 1), (11, 0), (-1, 1), (0, -1), (1 << 70, 1), (0, 1 << 70))


def _read_around(blob: Blob, seed: int) -> None:
    places = random.Random(seed)  # noqa: S311 - the same places each time
    buffer = bytearray(5_000)
    for _ in range(25):
        offset = places.randrange(_SIZE - len(buffer))
        blob.read_into(offset, memoryview(buffer))
        expected = _DATA[offset : offset + len(buffer)]
        assert buffer == expected
        assert blob.read(offset, 99) == expected[:99]
