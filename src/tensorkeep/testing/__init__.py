"""Conformance suites: what every store and every format promises, as tests to inherit.

Subclass a suite in a test module, say how to make the thing that is tested, and pytest runs the
rest. The suites are plain classes; they import neither pytest nor torch, and no other room
imports this one. A store or format of a third party is held to the same promises as ours.

    class TestMyBlob(BlobConformance):
        def make(self, data: bytes) -> Blob:
            return MyBlob(upload(data))
"""

from tensorkeep.testing.blobs import BlobConformance
from tensorkeep.testing.formats import FormatConformance
from tensorkeep.testing.sinks import SinkConformance

__all__ = ["BlobConformance", "FormatConformance", "SinkConformance"]
