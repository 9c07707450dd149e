"""What every blob promises, whatever its bytes lie in."""

from __future__ import annotations

import io
import os
import random
import threading

import pytest

from tensorkeep.errors import Damaged, StoreError
from tensorkeep.stores.local import LocalBlob
from tensorkeep.stores.memory import MemoryBlob
from tensorkeep.stores.opening import open_blob
from tensorkeep.stores.streams import FileObjectBlob

SIZE = 3_000_017
DATA = random.Random(7).randbytes(SIZE)


class OnlyReads:
    """Read, seek, tell and nothing else; reads come short."""

    def __init__(self, data):
        self._inner = io.BytesIO(data)
        self.random = random.Random(1)

    def read(self, size):
        return self._inner.read(self.random.randint(1, size) if size > 1 else size)

    def seek(self, offset, whence=0):
        self._inner.seek(offset, whence)

    def tell(self):
        return self._inner.tell()


@pytest.fixture(
    params=["local", "no-preadv", "memory", "bytearray", "bytesio", "only-reads", "open-file"]
)
def blob(request, tmp_path, monkeypatch):
    path = tmp_path / "data"
    path.write_bytes(DATA)
    if request.param == "no-preadv":
        for name in ("preadv", "posix_fadvise"):
            monkeypatch.delattr(os, name)
    with path.open("rb") as file:
        makers = {
            "local": lambda: LocalBlob(path),
            "no-preadv": lambda: LocalBlob(path),
            "memory": lambda: MemoryBlob(DATA),
            "bytearray": lambda: MemoryBlob(bytearray(DATA)),
            "bytesio": lambda: FileObjectBlob(io.BytesIO(DATA)),
            "only-reads": lambda: FileObjectBlob(OnlyReads(DATA)),
            "open-file": lambda: open_blob(file),
        }
        with makers[request.param]() as opened:
            yield opened


def test_it_gives_the_bytes_that_are_there(blob):
    assert blob.size == SIZE
    assert blob.name
    for offset, length in [
        (0, 0),
        (0, 1),
        (SIZE - 1, 1),
        (SIZE, 0),
        (1_000_003, 70_001),
        (0, SIZE),
    ]:
        data = blob.read(offset, length)
        assert type(data) is bytes
        assert data == DATA[offset : offset + length]


def test_it_fills_buffers(blob):
    buffer = bytearray(2_100_000)
    blob.read_into(5, memoryview(buffer))
    assert buffer == DATA[5:2_100_005]
    blob.read_into(77, memoryview(buffer)[10:20])
    assert buffer[10:20] == DATA[77:87]
    blob.read_into(SIZE, memoryview(buffer)[:0])


def test_it_counts_what_it_reads(blob):
    before = blob.bytes_read
    blob.read(10, 90)
    blob.read_into(0, memoryview(bytearray(900)))
    assert blob.bytes_read - before == 990


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, SIZE + 1), (SIZE, 1), (SIZE + 1, 0), (-1, 1), (0, -1), (1 << 70, 1), (0, 1 << 70)],
)
def test_it_refuses_what_is_outside(blob, offset, length):
    with pytest.raises(Damaged) as caught:
        blob.read(offset, length)
    assert caught.value.subject == blob.name
    assert caught.value.expected == f"{length} bytes"
    assert str(SIZE) in caught.value.got
    assert caught.value.where == f"offset {offset}"


def test_a_buffer_too_long_is_refused_untouched(blob):
    buffer = bytearray(b"x" * 10)
    with pytest.raises(Damaged):
        blob.read_into(SIZE - 9, memoryview(buffer))
    assert buffer == b"x" * 10


def test_many_threads_read_at_once(blob):
    wrong = []

    def work(seed):
        rng = random.Random(seed)
        buffer = bytearray(10_000)
        for _ in range(40):
            offset = rng.randrange(SIZE - 10_000)
            blob.read_into(offset, memoryview(buffer))
            if buffer != DATA[offset : offset + 10_000] or blob.read(offset, 99) != buffer[:99]:
                wrong.append(offset)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_hints_and_checks_change_nothing(blob):
    blob.advise_sequential()
    blob.check_unchanged()
    assert blob.read(1, 3) == DATA[1:4]


def test_closed_is_closed(blob):
    blob.close()
    blob.close()
    with pytest.raises(StoreError, match="closed"):
        blob.read(0, 1)
    with pytest.raises(StoreError, match="closed"):
        blob.read_into(0, memoryview(bytearray(1)))
