"""What a store promises about bytes that are written: whole under their name, or absent."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path

from tensorkeep.errors import AlreadyExists, StoreError
from tensorkeep.stores import Sink
from tensorkeep.testing._expecting import at_once, raises

_DATA = random.Random(11).randbytes(300_007)  # noqa: S311 - the same bytes each time
_NAME = "model.safetensors"
_STEP = 7_001


class SinkConformance(ABC):
    """Inherit, and say how to `make` a sink and what is `stored`: every promise of `Sink`.

    The place is pytest's `tmp_path`; a store that writes elsewhere may take it for a name that
    no other test uses.
    """

    @abstractmethod
    def make(
        self, place: Path, name: str, *, overwrite: bool = False, size: int | None = None
    ) -> Sink:
        """A sink for `name` in `place`; `size` in bytes where that is known beforehand."""

    @abstractmethod
    def stored(self, place: Path) -> dict[str, bytes]:
        """Everything that lies in `place` now, hidden and temporary files included."""

    def put(self, place: Path, data: bytes, *, overwrite: bool = False) -> None:
        """Write and commit."""
        with self.make(place, _NAME, overwrite=overwrite) as sink:
            sink.write_at(0, data)
            sink.commit()

    def test_it_appears_when_committed_and_not_before(self, tmp_path: Path) -> None:
        """Nobody can read half of it under its name."""
        with self.make(tmp_path, _NAME, size=len(_DATA)) as sink:
            sink.write_at(0, _DATA)
            assert _NAME not in self.stored(tmp_path)
            sink.commit()
            assert self.stored(tmp_path) == {_NAME: _DATA}
        assert self.stored(tmp_path) == {_NAME: _DATA}

    def test_an_empty_file_is_a_file(self, tmp_path: Path) -> None:
        """Nothing written and committed is a file of no bytes."""
        with self.make(tmp_path, _NAME, size=0) as sink:
            sink.commit()
        assert self.stored(tmp_path) == {_NAME: b""}

    def test_an_abort_leaves_nothing(self, tmp_path: Path) -> None:
        """Neither under the name nor beside it; aborting twice is aborting once."""
        with self.make(tmp_path, _NAME) as sink:
            sink.write_at(0, _DATA)
            sink.abort()
            sink.abort()
        assert self.stored(tmp_path) == {}

    def test_leaving_the_block_without_a_commit_aborts(self, tmp_path: Path) -> None:
        """With an exception and without one."""
        with self.make(tmp_path, _NAME) as sink:
            sink.write_at(0, _DATA)
        assert self.stored(tmp_path) == {}
        with raises(ZeroDivisionError), self.make(tmp_path, _NAME) as sink:
            sink.write_at(0, _DATA)
            raise ZeroDivisionError
        assert self.stored(tmp_path) == {}

    def test_an_abort_after_the_commit_does_nothing(self, tmp_path: Path) -> None:
        """What was committed stays."""
        with self.make(tmp_path, _NAME) as sink:
            sink.write_at(0, _DATA)
            sink.commit()
            sink.commit()
            sink.abort()
        assert self.stored(tmp_path) == {_NAME: _DATA}

    def test_what_exists_is_not_replaced(self, tmp_path: Path) -> None:
        """Unless that was asked for; told at the start or at the commit."""
        self.put(tmp_path, b"old")
        with raises(AlreadyExists):
            self.put(tmp_path, b"new")
        assert self.stored(tmp_path) == {_NAME: b"old"}

    def test_overwriting_replaces_at_the_commit(self, tmp_path: Path) -> None:
        """Until then, the old bytes stand under the name."""
        self.put(tmp_path, b"old")
        with self.make(tmp_path, _NAME, overwrite=True) as sink:
            sink.write_at(0, b"new")
            assert self.stored(tmp_path)[_NAME] == b"old"
            sink.commit()
        assert self.stored(tmp_path) == {_NAME: b"new"}

    def test_a_failed_overwrite_keeps_the_old(self, tmp_path: Path) -> None:
        """An abort, an exception or a refused commit loses nothing that was good."""
        self.put(tmp_path, b"old")
        with self.make(tmp_path, _NAME, overwrite=True) as sink:
            sink.write_at(0, b"new")
            sink.abort()
        with raises(ZeroDivisionError), self.make(tmp_path, _NAME, overwrite=True) as sink:
            sink.write_at(0, b"new")
            raise ZeroDivisionError
        with raises(StoreError), self.make(tmp_path, _NAME, overwrite=True, size=4) as sink:
            sink.write_at(0, b"new")
            sink.commit()
        assert self.stored(tmp_path) == {_NAME: b"old"}

    def test_a_wrong_size_is_refused(self, tmp_path: Path) -> None:
        """Fewer bytes than announced, or more, never get the name."""
        for size in (len(_DATA) + 1, len(_DATA) - 1):
            with raises(StoreError), self.make(tmp_path, _NAME, size=size) as sink:
                sink.write_at(0, _DATA)
                sink.commit()
            assert self.stored(tmp_path) == {}

    def test_writes_come_in_any_order(self, tmp_path: Path) -> None:
        """Each byte lies where it was put, whatever kind of buffer it came in."""
        offsets = list(range(0, len(_DATA), _STEP))
        random.Random(3).shuffle(offsets)  # noqa: S311 - the same order each time
        with self.make(tmp_path, _NAME, size=len(_DATA)) as sink:
            for number, offset in enumerate(offsets):
                piece = _DATA[offset : offset + _STEP]
                kinds = (piece, bytearray(piece), memoryview(piece))
                sink.write_at(offset, kinds[number % 3])
            sink.commit()
        assert self.stored(tmp_path) == {_NAME: _DATA}

    def test_several_threads_write_at_once(self, tmp_path: Path) -> None:
        """No byte of one lands in the range of another."""
        with self.make(tmp_path, _NAME, size=len(_DATA)) as sink:
            work = [partial(_write_every, sink, first) for first in range(4)]
            assert at_once(work) == []
            sink.commit()
        assert self.stored(tmp_path) == {_NAME: _DATA}

    def test_of_two_writers_one_wins(self, tmp_path: Path) -> None:
        """The second commit is refused, and leaves nothing behind."""
        with self.make(tmp_path, _NAME) as first, self.make(tmp_path, _NAME) as second:
            first.write_at(0, b"first")
            second.write_at(0, b"second")
            first.commit()
            with raises(AlreadyExists):
                second.commit()
        assert self.stored(tmp_path) == {_NAME: b"first"}

    def test_of_writers_that_race_one_wins(self, tmp_path: Path) -> None:
        """All commit at the same moment: one file, whole, and everybody else is told."""
        sinks = [self.make(tmp_path, _NAME) for _ in range(4)]
        for number, sink in enumerate(sinks):
            sink.write_at(0, bytes([number]) * 1000)
        raised = at_once([sink.commit for sink in sinks])
        for sink in sinks:
            sink.abort()
        assert [type(error) for error in raised] == [AlreadyExists] * 3
        assert self.stored(tmp_path) in [{_NAME: bytes([number]) * 1000} for number in range(4)]

    def test_it_can_be_read_back_before_the_commit(self, tmp_path: Path) -> None:
        """So that what is named can be compared first with what was meant."""
        with self.make(tmp_path, _NAME, size=len(_DATA)) as sink:
            sink.write_at(0, _DATA)
            with sink.reader() as blob:
                assert blob.read(0, blob.size) == _DATA
            sink.commit()
        assert self.stored(tmp_path) == {_NAME: _DATA}

    def test_a_finished_sink_takes_no_more(self, tmp_path: Path) -> None:
        """Neither after an abort nor after a commit."""
        with self.make(tmp_path, "aborted") as aborted, self.make(tmp_path, _NAME) as done:
            aborted.abort()
            done.commit()
            for sink in (aborted, done):
                with raises(StoreError):
                    sink.write_at(0, b"late")
            with raises(StoreError):
                aborted.commit()
        assert self.stored(tmp_path) == {_NAME: b""}


def _write_every(sink: Sink, first: int) -> None:
    for offset in range(first * _STEP, len(_DATA), 4 * _STEP):
        sink.write_at(offset, _DATA[offset : offset + _STEP])
