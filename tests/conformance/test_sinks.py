"""Every sink of ours keeps every promise of a sink."""

from __future__ import annotations

from tensorkeep.stores.local import LocalSink
from tensorkeep.testing import SinkConformance


class TestLocalSink(SinkConformance):
    def make(self, place, name, *, overwrite=False, size=None):
        return LocalSink(place / name, overwrite=overwrite, size=size)

    def stored(self, place):
        return {path.name: path.read_bytes() for path in place.iterdir()}
