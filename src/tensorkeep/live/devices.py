"""Where each tensor goes: the host unless the caller says otherwise, whatever the file names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch

from tensorkeep.checkpoints.tensor import TensorRef
from tensorkeep.errors import BadArgument, Unsupported
from tensorkeep.live.policies import is_real

Device = str | int | torch.device
# As torch.load takes it: a device for all, a new place for each place, or a function of a storage
# in memory and the place that the file names, which gives the storage, moved or not.
MapLocation = Device | Mapping[str, Any] | Callable[[Any, str], Any]

_CPU = torch.device("cpu")


class Destinations:
    """Where tensors go by name, and by the place that the file names.

    `device`: for all that nothing else is said of. `device_map`: by prefix of the name, cut at
    dots; the longest one that fits decides. `map_location`: as `torch.load` takes it. Raises
    `BadArgument` for what is no device.
    """

    def __init__(
        self,
        device: Device = "cpu",
        *,
        device_map: Mapping[str, Device] | None = None,
        map_location: MapLocation | None = None,
    ) -> None:
        self.device = device_named(device)
        self.by_prefix = _by_prefix({} if device_map is None else device_map)
        self.by_location: dict[str, torch.device] = {}
        self.function: Callable[[Any, str], Any] | None = None
        self._map(map_location)

    def _map(self, given: MapLocation | None) -> None:
        if given is None:
            return
        if isinstance(given, Mapping):
            self.by_location = {str(name): device_named(each) for name, each in given.items()}
        elif callable(given):
            self.function = given
        else:
            self.device = device_named(given)

    def require(self) -> None:
        """Raise `BadArgument` for a device that is not here. Those by location may not be met."""
        for each in (self.device, *self.by_prefix.values()):
            present(each)

    def unmet(self, names: Iterable[str]) -> str:
        """A sentence on prefixes of `device_map` that none of `names` begins with; or ""."""
        met = {prefix for name in names for prefix in _prefixes(name)} if self.by_prefix else set()
        odd = [repr(prefix) for prefix in self.by_prefix if prefix not in met and prefix]
        return f"no name begins with {', '.join(odd)} of device_map" if odd else ""

    @property
    def is_host(self) -> bool:
        """Whether everything stays where it was read to."""
        devices = [self.device, *self.by_prefix.values(), *self.by_location.values()]
        return self.function is None and all(device == _CPU for device in devices)

    def all_meta(self, names: Sequence[str], location: str) -> bool:
        """Whether nobody will see the bytes of a tensor of these names."""
        return self.function is None and all(
            self.of(name, location).type == "meta" for name in names
        )

    def of(self, name: str, location: str) -> torch.device:
        """The device of the tensor `name` that the file has on `location`.

        Raises `BadArgument` if this machine has no such device.
        """
        for prefix in _prefixes(name) if self.by_prefix else ():
            if prefix in self.by_prefix:
                return present(self.by_prefix[prefix])
        return present(self.by_location.get(location, self.device))

    def place(
        self,
        tensor: torch.Tensor,
        ref: TensorRef,
        names: Sequence[str],
        dtype: torch.dtype | None = None,
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensor under each of its names, where it shall be, cast to `dtype` if it is real.

        Names that go to one device share one storage there.
        """
        location = ref.record.storage.device
        tensor = self._mapped(tensor, location)
        made: dict[torch.device, torch.Tensor] = {}
        for name in names:
            device = self.of(name, location) if self.function is None else tensor.device
            if device in made:
                yield name, alias(made[device])
            else:
                made[device] = moved(tensor, device, dtype)
                yield name, made[device]

    def _mapped(self, tensor: torch.Tensor, location: str) -> torch.Tensor:
        if self.function is None or tensor.device.type == "meta":
            return tensor
        untyped = self._called(tensor.untyped_storage(), location)
        made = torch.empty(0, dtype=tensor.dtype, device=untyped.device)
        return made.set_(untyped, tensor.storage_offset(), tensor.shape, tensor.stride())

    def storage(
        self, storage: torch.UntypedStorage, name: str, location: str
    ) -> torch.UntypedStorage:
        """The storage where it shall be: one that is there already is given back as it is."""
        if self.function is not None:
            return self._called(storage, location)
        return _copied(storage, self.of(name, location))

    def _called(self, storage: torch.UntypedStorage, location: str) -> torch.UntypedStorage:
        """What the caller's function makes of the storage; None leaves it to `device`."""
        assert self.function is not None
        made = self.function(storage, location)
        if made is None:
            return _copied(storage, self.device)
        untyped = getattr(made, "_untyped_storage", made)
        if isinstance(untyped, torch.UntypedStorage):
            return untyped
        raise BadArgument(
            "map_location",
            expected="a function that returns a storage, or None",
            got=f"one that returned a {type(made).__name__}",
        )


def _copied(storage: torch.UntypedStorage, device: torch.device) -> torch.UntypedStorage:
    if storage.device == device or not storage.nbytes():
        return storage
    flat = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(
        storage, 0, (storage.nbytes(),), (1,)
    )
    return flat.to(device).untyped_storage()


def moved(
    tensor: torch.Tensor, device: torch.device, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """The tensor on `device`; of `dtype` where it is one of real numbers. Meta tensors stay."""
    if tensor.device.type == "meta":
        device = tensor.device
    if dtype is None or not is_real(tensor.dtype):
        dtype = tensor.dtype
    if tensor.device == device and tensor.dtype == dtype:
        return tensor
    try:
        return tensor.to(device=device, dtype=dtype)
    except NotImplementedError as error:
        raise Unsupported(
            f"a tensor of {str(tensor.dtype)[6:]}",
            expected=f"one that torch can bring to {device}",
            got=str(error).partition("\n")[0].partition(". ")[0],
            remedy="Leave it on the CPU, or leave it out with skip=.",
        ) from error


def alias(tensor: torch.Tensor) -> torch.Tensor:
    """Another tensor over the same memory."""
    made = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    if tensor.device.type == "meta":
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return made.set_(
        tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride()
    )


def _by_prefix(given: object) -> dict[str, torch.device]:
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise BadArgument(
            "device_map",
            expected="a dict of prefixes of names to devices",
            got=repr(given),
            remedy='Write the prefixes out, as in {"": "cpu", "head": "cuda:0"}.',
        )
    return {name: device_named(each) for name, each in given.items()}


def device_named(given: object) -> torch.device:
    """torch's device of that name. Raises `BadArgument`."""
    got = repr(given)
    try:
        if isinstance(given, str | int | torch.device) and not isinstance(given, bool):
            return torch.device(given)
    except RuntimeError as error:
        raise BadArgument("device", expected="a device of torch's", got=got) from error
    raise BadArgument("device", expected="a device of torch's", got=got)


@cache
def present(device: torch.device) -> torch.device:
    """The device itself. Raises `BadArgument` if nothing can be put on it here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        got = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
        raise BadArgument(
            f"device {device}",
            expected="a device that is here",
            got=got,
            remedy="Leave it out: tensors go to the CPU then, whatever device the file names.",
        ) from error
    return device


def _prefixes(name: str) -> Iterator[str]:
    """The name, and what is left of it when parts at its end are cut off; "" last."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""


HOST = Destinations()
