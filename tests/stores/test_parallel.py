"""Spans into memory by several threads: the bytes arrive, and the kernel may read ahead."""

from __future__ import annotations

from pathlib import Path

import pytest

from tensorkeep.errors import ChangedWhileRead
from tensorkeep.stores import parallel
from tensorkeep.stores.local import LocalBlob
from tensorkeep.stores.parallel import Span


class Watched(LocalBlob):
    """Counts how often read-ahead was asked for."""

    asked = 0

    def advise_sequential(self) -> None:
        self.asked += 1
        super().advise_sequential()


def read(blob: LocalBlob, *ranges: tuple[int, int]) -> list[bytearray]:
    taken = [bytearray(length) for _, length in ranges]
    pairs = zip(ranges, taken, strict=True)
    parallel.fill([Span(blob, start, [memoryview(into)]) for (start, _), into in pairs])
    return taken


def test_all_threads_bring_their_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * (80 << 10) + b"end"
    (tmp_path / "x").write_bytes(data)
    with Watched(tmp_path / "x") as blob:
        assert read(blob, (0, len(data)), (3, 10)) == [data, data[3:13]]
        assert blob.asked == 1


@pytest.mark.parametrize("length", [100, 6 << 20])
def test_little_of_a_file_is_read_without_read_ahead(tmp_path: Path, length: int) -> None:
    (tmp_path / "x").write_bytes(b"ab" * (8 << 20))
    with Watched(tmp_path / "x") as blob:
        assert read(blob, (1, length)) == [b"ba" * (length // 2)]
        assert blob.asked == 0


def test_a_file_that_shrinks_is_an_error_when_all_have_ended(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(32 << 20))
    with LocalBlob(tmp_path / "x") as blob:
        (tmp_path / "x").write_bytes(bytes(9 << 20))
        with pytest.raises(ChangedWhileRead):
            read(blob, (0, 32 << 20))
