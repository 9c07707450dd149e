"""Tensors copied into memory that is reused, each file as it will lie on disk.

What a step waits for is this copy and nothing else. The memory of a file begins on a page and is
its image: header, tensors, padding; so it is written from where it lies, past the page cache too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import torch

from tensorkeep.checkpoints.manifest import PREFIX, FileFacts, file_digest
from tensorkeep.dtypes import BY_NAME
from tensorkeep.formats import safetensors_layout
from tensorkeep.formats.layout import Entry, Request
from tensorkeep.live.arenas import Arena
from tensorkeep.stores.commit import BLOCK
from tensorkeep.training.packing import FileTensors

Job = Callable[[], None]


class Memory(Protocol):
    """Bytes that begin on a page: private memory, or pinned where an accelerator copies to it."""

    def view(self, start: int, stop: int) -> memoryview:
        """Bytes `start` to `stop`."""


class Pinned:
    """Page-locked memory of CUDA's: copies into it run beside the computation."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._tensor = torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def view(self, start: int, stop: int) -> memoryview:
        """Bytes `start` to `stop`."""
        return memoryview(self._tensor.numpy().data)[start:stop]


class Buffers:
    """Memory by file, kept from one checkpoint to the next."""

    def __init__(self, pinned: Callable[[int], Memory] = Pinned) -> None:
        self._memory: dict[str, tuple[int, bool, Memory]] = {}
        self._pinned = pinned

    def get(self, file: str, size: int, *, pin: bool) -> Memory:
        """At least `size` bytes, rounded up to whole blocks."""
        size = -(-max(size, 1) // BLOCK) * BLOCK
        have = self._memory.get(file)
        if have is None or have[0] < size or have[1] != pin:
            self._memory.pop(file, None)  # before the new one is made, not beside it
            have = size, pin, self._pinned(size) if pin else Arena(size)
            self._memory[file] = have
        return have[2]

    def forget(self, files: Mapping[str, object]) -> None:
        """Let go of the memory of files that are not among `files`."""
        for file in [name for name in self._memory if name not in files]:
            del self._memory[file]


class Image:
    """A safetensors file in memory."""

    def __init__(self, name: str, file: FileTensors, buffers: Buffers) -> None:
        self.name = name
        entries = [_entry(key, tensor) for key, tensor in file.tensors.items()]
        layout = safetensors_layout.layout(Request(entries, list(file.tensors), file.aliases, {}))
        self.size = layout.total
        pin = any(tensor.is_cuda for tensor in file.tensors.values())
        memory = buffers.get(name, self.size, pin=pin)
        self.data = memory.view(0, -(-self.size // BLOCK) * BLOCK)
        self._header = layout.fixed[0][1]
        self.data[: len(self._header)] = self._header
        spans = zip(layout.positions, entries, strict=True)
        self._spans = {entry.name: (at, at + entry.nbytes) for at, entry in spans}
        self._take(file)

    def _take(self, file: FileTensors) -> None:
        whole = torch.frombuffer(self.data, dtype=torch.uint8)
        for name, tensor in file.tensors.items():
            start, stop = self._spans[name]
            if start != stop:
                raw = tensor.contiguous().reshape(-1).view(torch.uint8)
                whole[start:stop].copy_(raw, non_blocking=True)

    def digests(self, found: dict[str, bytes]) -> Iterator[Job]:
        """Jobs that put the digest of each tensor into `found`."""
        for name, (start, stop) in self._spans.items():
            yield self._digesting(name, start, stop, found)

    def _digesting(self, name: str, start: int, stop: int, found: dict[str, bytes]) -> Job:
        def digest() -> None:
            found[name] = hashlib.sha256(self.data[start:stop]).digest()

        return digest

    def facts(self, found: Mapping[str, bytes]) -> FileFacts:
        """What the manifest says of the file, once all digests are there."""
        order = sorted(self._spans, key=lambda name: (self._spans[name], name))
        digest = file_digest(self._header, (found[name] for name in order))
        tensors = {name: PREFIX + found[name].hex() for name in order}
        return FileFacts(self.size, digest, tensors)


def _entry(name: str, tensor: torch.Tensor) -> Entry:
    dtype = BY_NAME[str(tensor.dtype).removeprefix("torch.")]
    return Entry(name, dtype, tuple(tensor.shape), tensor.numel() * tensor.element_size())


def taken(files: Mapping[str, FileTensors], buffers: Buffers) -> list[Image]:
    """A copy of everything, consistent in itself: the tensors may change when this returns."""
    buffers.forget(files)
    images = [Image(name, file, buffers) for name, file in files.items()]
    if any(tensor.is_cuda for file in files.values() for tensor in file.tensors.values()):
        torch.cuda.synchronize()
    return images
