"""torch's and numpy's values in a state: tensors go to a file of tensors, the rest into JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch

from tensorkeep.checkpoints.states import TAG, Json, decoded, encoded
from tensorkeep.dtypes import BY_NAME
from tensorkeep.errors import Damaged, Unwritable

Tensors = dict[str, torch.Tensor]
# Written as numbers of another dtype, of which each makes a part.
_PARTS = {torch.complex128: torch.float64, torch.complex32: torch.float16}


class Collector:
    """Takes a state apart: `tensors` by name, and JSON that says where each belongs."""

    def __init__(self) -> None:
        self.tensors: Tensors = {}
        self._names: dict[int, str] = {}
        # A tensor that died would give its number to another.
        self._alive: list[object] = []

    def json(self, value: object, path: str) -> Json:
        """Raises `Unwritable`, which names the path and the type."""
        return encoded(value, path, self._other)

    def _other(self, value: object, path: str) -> Json | None:
        if isinstance(value, torch.Tensor):
            return self._tensor(value, path)
        if isinstance(value, torch.dtype | torch.device | torch.Size):
            text = list(value) if isinstance(value, torch.Size) else str(value)
            return {TAG: type(value).__name__, "is": text}
        numpy = sys.modules.get("numpy")
        if numpy is None:
            return None
        if isinstance(value, numpy.generic):
            return {**self._array(value, path), TAG: "numpy.generic"}
        if type(value) is numpy.ndarray:
            return self._array(value, path)
        return None

    def _tensor(self, value: torch.Tensor, path: str) -> Json:
        known = self._names.get(id(value))
        if known is not None:
            return {TAG: "tensor", "name": known}
        tensor, made = plain(value.detach(), path)
        self._names[id(value)] = path
        self._alive.append(value)
        self.tensors[path] = tensor
        return {TAG: "tensor", "name": path, **made}

    def _array(self, value: Any, path: str) -> Json:  # noqa: ANN401
        import numpy as np

        array = np.asarray(value)
        if array.dtype.hasobject or array.dtype.fields:
            raise Unwritable(path, expected="an array of numbers", got=f"one of {array.dtype}")
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.tensors[path] = torch.from_numpy(raw.copy())
        return {TAG: "ndarray", "name": path, "dtype": array.dtype.str, "shape": list(array.shape)}


def plain(tensor: torch.Tensor, path: str) -> tuple[torch.Tensor, Mapping[str, Json]]:
    """A tensor as safetensors can hold it, and how to make the old one of it again."""
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        what = "one on meta" if tensor.is_meta else f"one of layout {tensor.layout}"
        raise Unwritable(path, expected="a dense tensor", got=what)
    part = _PARTS.get(tensor.dtype)
    if part is not None:
        return torch.view_as_real(tensor.resolve_conj()), {"dtype": str(tensor.dtype)[6:]}
    known = BY_NAME.get(str(tensor.dtype).removeprefix("torch."))
    if known is None or known.safetensors is None:
        raise Unwritable(path, expected="a dtype of safetensors", got=tensor.dtype)
    return tensor.resolve_conj().resolve_neg(), {}


def rebuilt(value: Json, tensors: Callable[[str], torch.Tensor], subject: str) -> Any:  # noqa: ANN401
    """What `Collector.json` was given; `tensors` gives the tensor of a name. Raises `Damaged`."""
    made: dict[str, torch.Tensor] = {}

    def other(item: Mapping[str, Json]) -> object:
        tag = item[TAG]
        if tag == "tensor":
            name = item["name"]
            if name not in made:
                made[name] = _original(tensors(name), item.get("dtype"))
            return made[name]
        if tag in ("ndarray", "numpy.generic"):
            return _array_of(item, tensors(item["name"]))
        if tag == "Size":
            return torch.Size(item["is"])
        if tag == "device":
            return torch.device(item["is"])
        if tag == "dtype":
            found = getattr(torch, item["is"].removeprefix("torch."))
            if isinstance(found, torch.dtype):  # torch has functions, too
                return found
        raise Damaged(subject, expected="a value that tensorkeep writes", got=repr(tag))

    return decoded(value, other, subject)


def _original(tensor: torch.Tensor, dtype: str | None) -> torch.Tensor:
    return tensor if dtype is None else torch.view_as_complex(tensor)


def _array_of(item: Mapping[str, Json], raw: torch.Tensor) -> Any:  # noqa: ANN401
    import numpy as np

    array = raw.cpu().numpy().view(np.dtype(item["dtype"])).reshape(item["shape"])
    return array[()] if item[TAG] == "numpy.generic" else array.copy()
