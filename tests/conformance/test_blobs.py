"""Every blob of ours keeps every promise of a blob."""

from __future__ import annotations

import io
import itertools

import pytest

from tensorkeep.stores.local import BriefBlob, LocalBlob
from tensorkeep.stores.memory import MemoryBlob
from tensorkeep.stores.slices import SliceBlob
from tensorkeep.stores.streams import FileObjectBlob, plain_file_blob
from tensorkeep.testing import BlobConformance


class InFiles:
    """For blobs that want a file of this machine."""

    @pytest.fixture(autouse=True)
    def place(self, tmp_path):
        self.paths = (tmp_path / f"blob-{number}" for number in itertools.count())

    def file(self, data):
        path = next(self.paths)
        path.write_bytes(data)
        return path


class TestLocalBlob(InFiles, BlobConformance):
    def make(self, data):
        return LocalBlob(self.file(data))


class TestBriefBlob(InFiles, BlobConformance):
    def make(self, data):
        return BriefBlob(self.file(data))


class TestPlainFileBlob(InFiles, BlobConformance):
    def make(self, data):
        with self.file(data).open("rb") as file:
            return plain_file_blob(file)


class TestMemoryBlob(BlobConformance):
    def make(self, data):
        return MemoryBlob(data)


class TestFileObjectBlob(BlobConformance):
    def make(self, data):
        return FileObjectBlob(io.BytesIO(data))


class TestSliceBlob(BlobConformance):
    def make(self, data):
        return SliceBlob(MemoryBlob(b"before" + data + b"behind"), 6, len(data), "slice")
