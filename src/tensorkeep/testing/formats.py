"""What a format promises about any bytes: a right answer, something odd, or one of our errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tensorkeep.checkpoints import index
from tensorkeep.checkpoints.checkpoint import Checkpoint
from tensorkeep.errors import TensorkeepError
from tensorkeep.facts import Limits
from tensorkeep.formats import HEAD, Format, inside
from tensorkeep.stores import Blob
from tensorkeep.stores.local import LocalBlob
from tensorkeep.stores.memory import MemoryBlob

# dtype by torch's name, shape in elements, contiguous little-endian bytes
Expected = Mapping[str, tuple[str, tuple[int, ...], bytes]]

_ENDS = 2048  # bytes at either end in which every place is tried while they are few
_TRIES = 700
_LARGE = 8 << 20
_OPENING = 256 << 10


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a reader came to know of some bytes. `odd`: it noticed that something is wrong."""

    tensors: dict[str, tuple[str, tuple[int, ...], bytes]]
    odd: bool


class FormatConformance(ABC):
    """Inherit, and give the `format` and `samples` of it: every promise of a format.

    Samples are small (kilobytes: hundreds of damaged copies of each are read) and between them
    hold everything that the format can.
    """

    format: Format

    @abstractmethod
    def samples(self) -> Mapping[str, tuple[bytes, Expected]]:
        """By a word that names each: the bytes of a file, and every tensor that is in it."""

    @abstractmethod
    def large(self) -> bytes:
        """A file with at least 8 MiB of tensor bytes in a few tensors."""

    def test_samples_are_identified(self) -> None:
        """By their first bytes."""
        for word, (data, _) in self.samples().items():
            assert self.format.identify(MemoryBlob(data), data[:HEAD]), word

    def test_other_bytes_are_not_identified(self) -> None:
        """Neither nothing nor what no format begins with."""
        for data in (b"", b"\0", b"\xff" * 600, b"no checkpoint\n" * 50):
            assert not self.format.identify(MemoryBlob(data), data[:HEAD])

    def test_samples_are_read_as_they_are(self) -> None:
        """Every tensor, bit for bit; no other tensor; nothing odd."""
        for word, (data, expected) in self.samples().items():
            seen = self._see(data)
            assert isinstance(seen, _Seen), word
            assert seen.tensors == dict(expected), word
            assert not seen.odd, word

    def test_every_truncation_is_noticed(self) -> None:
        """A file cut short gives an error or something odd: a prefix is never the whole."""
        for word, (data, expected) in self.samples().items():
            for length in _places(len(data)):
                seen = self._see(data[:length])
                assert (
                    isinstance(seen, TensorkeepError)
                    or seen.odd
                    or (seen.tensors == dict(expected))
                ), f"{word}, cut to {length} bytes"

    def test_no_flipped_bit_goes_unnoticed(self) -> None:
        """The right answer, something odd, or one of our errors.

        A container without checksums cannot notice all; there, what is read stays in bounds.
        """
        for word, (data, expected) in self.samples().items():
            guarded = self._guarded(data)
            for place in _places(len(data)):
                flipped = bytearray(data)
                flipped[place] ^= 1 << place % 8
                seen = self._see(bytes(flipped))
                if isinstance(seen, TensorkeepError) or seen.odd:
                    continue
                about = f"{word}, bit {place % 8} of byte {place}"
                assert not guarded or seen.tensors == dict(expected), about
                for _, _, content in seen.tensors.values():
                    assert len(content) <= len(data), about

    def test_opening_reads_no_tensor_bytes(self) -> None:
        """The index of a file is kilobytes, whatever its tensors weigh."""
        data = self.large()
        assert len(data) >= _LARGE
        with MemoryBlob(data) as blob, self._open(blob) as ckpt:
            assert sum(ref.nbytes for ref in ckpt.tensors.values()) >= _LARGE
            assert blob.bytes_read <= _OPENING

    def test_reading_writes_nothing(self, tmp_path: Path) -> None:
        """Neither into the file nor beside it."""
        for word, (data, _) in self.samples().items():
            path = tmp_path / word
            path.write_bytes(data)
            before = path.stat().st_mtime_ns
            with LocalBlob(path) as blob:
                self._look(blob)
            assert path.stat().st_mtime_ns == before
            assert path.read_bytes() == data
            assert list(tmp_path.iterdir()) == [path]
            path.unlink()

    def _open(self, blob: Blob) -> Checkpoint:
        limits = Limits()
        contents = self.format.read(blob, limits, inside(blob, limits))
        if contents.error is not None:
            raise contents.error
        found = index.build(contents, limits, blob.name)
        return Checkpoint(blob.name, contents, found, [blob], blob.close)

    def _look(self, blob: Blob) -> _Seen:
        with self._open(blob) as ckpt:
            contents = ckpt.contents
            tensors = {
                name: (ref.dtype, ref.shape, ref.read()) for name, ref in ckpt.tensors.items()
            }
            odd = any(expected != got for _, _, expected, got in contents.verify())
            odd = bool([*contents.anomalies, *contents.audit(True)]) or odd
            return _Seen(tensors, odd)

    def _see(self, data: bytes) -> _Seen | TensorkeepError:
        """What is read of `data`, or the error of ours that says why not; any other escapes."""
        try:
            return self._look(MemoryBlob(data))
        except TensorkeepError as error:
            return error

    def _guarded(self, data: bytes) -> bool:
        with self._open(MemoryBlob(data)) as ckpt:
            return ckpt.contents.digests


def _places(size: int) -> Iterator[int]:
    """Places near both ends, evenly thinned out to a few hundred."""
    near = [place for place in range(size) if place < _ENDS or place >= size - _ENDS]
    step = max(1, -(-len(near) // _TRIES))
    # An odd step meets every byte of aligned fields, an even one would always skip the same.
    yield from near[:: step | 1]
