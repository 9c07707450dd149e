"""Each sample with random numbers of its own, so that the order of loading does not matter.

A sample's augmentation depends on the run's seed, the epoch and the sample's index, and on nothing
that was loaded before it: a run goes on in the middle of an epoch without loading anything twice,
with whatever number of workers.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, get_worker_info

from tensorkeep.training.indices import key


class SeededDataset(Dataset[Any]):
    """`dataset`, whose every access finds the global generators seeded for that sample.

    `salt`: what names the run, the loader and the epoch. In the main process the generators are
    left as they were found.
    """

    def __init__(self, dataset: Any, salt: str) -> None:  # noqa: ANN401
        # Not by `setattr`, which goes on to the dataset.
        self.__dict__.update(_dataset=dataset, _salt=salt.encode())

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401
        with _untouched():
            return self._one(index)

    def __getitems__(self, indices: Sequence[Any]) -> list[Any]:
        """A batch, one by one: numbers of a batch as a whole would be no sample's own."""
        with _untouched():
            return [self._one(index) for index in indices]

    def _one(self, index: Any) -> Any:  # noqa: ANN401
        _seed(self._salt + key(index))
        return self._dataset[index]

    def __len__(self) -> int:
        return len(self._dataset)

    # What a `worker_init_fn` looks for or sets is the dataset's.
    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name.startswith("__") or name == "_dataset":
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401
        setattr(self._dataset, name, value)


def _seed(material: bytes) -> None:
    digest = hashlib.blake2b(material, digest_size=40).digest()
    random.seed(digest[:16])
    # Not torch.manual_seed, which would seed the generators of every device, too.
    torch.default_generator.manual_seed(int.from_bytes(digest[16:24], "little"))
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(numpy.frombuffer(digest[24:], dtype="<u4"))


@contextlib.contextmanager
def _untouched() -> Iterator[None]:
    """The generators of the main process afterwards as before; a worker has no other use of its."""
    if get_worker_info() is not None:
        yield
        return
    numpy = sys.modules.get("numpy")
    own, torchs = random.getstate(), torch.get_rng_state()
    numpys = None if numpy is None else numpy.random.get_state()
    try:
        yield
    finally:
        random.setstate(own)
        torch.set_rng_state(torchs)
        if numpy is not None and numpys is not None:
            numpy.random.set_state(numpys)
