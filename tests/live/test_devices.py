"""Where tensors go: the CPU, unless the caller says otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tensorkeep as tk
from tensorkeep import errors
from tensorkeep.live.devices import Destinations


@pytest.fixture
def on_gpu(tmp_path: Path) -> Path:
    """A checkpoint as a machine with GPUs writes it: only the location of a storage differs."""
    state = {"a.weight": torch.ones(2, 2), "a.bias": torch.zeros(2), "b": torch.arange(3)}
    torch.save(state, tmp_path / "cpu.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "cpu.pth").read_bytes()
    path = tmp_path / "gpu.pth"
    assert data.count(b"X\x03\x00\x00\x00cpu") == 1  # the pickle names it once
    path.write_bytes(data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:1"))
    return path


@pytest.mark.parametrize("nested", [False, True])
def test_a_gpu_checkpoint_loads_on_the_cpu(on_gpu: Path, nested: bool) -> None:
    with pytest.raises(RuntimeError):
        torch.load(on_gpu)
    found = tk.load(on_gpu, nested=nested)
    assert {tensor.device.type for tensor in found.values()} == {"cpu"}
    assert torch.equal(found["b"], torch.arange(3))


@pytest.mark.parametrize("nested", [False, True])
def test_map_location_as_torch_takes_it(on_gpu: Path, nested: bool) -> None:
    seen = []

    def place(storage: torch.UntypedStorage, location: str) -> object:
        seen.append(location)
        return storage if len(seen) == 1 else None

    for given in ("cpu", torch.device("cpu"), {"cuda:1": "cpu"}, place):
        found = tk.load(on_gpu, map_location=given, nested=nested)
        assert torch.equal(found["b"], torch.arange(3))
    assert seen == ["cuda:1"] * 3
    moved = tk.load(on_gpu, map_location={"cuda:1": "meta"}, nested=nested)
    assert {tensor.device.type for tensor in moved.values()} == {"meta"}
    with pytest.raises(errors.BadArgument, match="map_location"):
        tk.load(on_gpu, map_location=lambda storage, location: "cpu", nested=nested)


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without one")
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    "where", [{"device": "cuda"}, {"map_location": "cuda"}, {"map_location": {"cuda:1": "cuda:0"}}]
)
def test_a_device_that_is_not_here(on_gpu: Path, where: dict[str, object], nested: bool) -> None:
    with pytest.raises(errors.BadArgument, match="device cuda.*: expected a device that is here"):
        tk.load(on_gpu, nested=nested, **where)  # type: ignore[call-overload]
    unused = tk.load(on_gpu, map_location={"cuda:9": "cuda:0"})  # no tensor is there
    assert len(unused) == 3


def test_the_longest_prefix_decides(on_gpu: Path) -> None:
    found = tk.load(on_gpu, device_map={"": "meta", "a": "cpu", "a.bias": "meta"})
    assert {name: tensor.device.type for name, tensor in found.items()} == {
        "a.weight": "cpu",
        "a.bias": "meta",
        "b": "meta",
    }
    # A prefix ends at a dot.
    assert Destinations(device_map={"a.b": "meta"}).of("a.bias", "cpu").type == "cpu"


def test_what_is_no_device(on_gpu: Path) -> None:
    for given in ("nowhere", 1.5):
        with pytest.raises(errors.BadArgument, match="device"):
            tk.load(on_gpu, device=given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda:99"}, "device cuda:99: expected a device that is here, got .*CPU then"),
        ({"device": "nowhere"}, "device: expected a device of torch's, got 'nowhere'"),
        ({"device": True}, "got True"),
        ({"device_map": "auto"}, "device_map: expected a dict of prefixes.*got 'auto'"),
        ({"device_map": {0: "cpu"}}, "device_map"),
        ({"device_map": {"b": "cuda:99"}}, "device cuda:99"),
        ({"map_location": {"cuda:1": "cuda:99"}}, "device cuda:99"),
        ({"only": "a"}, "only: expected a list of globs, got 'a'"),
        ({"skip": [1]}, "skip: expected"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(
    on_gpu: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(errors.BadArgument, match=message) as caught:
        tk.load(on_gpu, **options)  # type: ignore[call-overload]
    assert "\n" not in str(caught.value)


def test_a_place_that_the_file_does_not_name_need_not_be_here(on_gpu: Path) -> None:
    assert tk.load(on_gpu, map_location={"cuda:0": "cuda:99"})["b"].device.type == "cpu"


def test_a_prefix_that_no_name_has_is_told(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
    torch.save(model.state_dict(), path := tmp_path / "x.pth")
    told = "no name begins with 'hed' of device_map"
    with pytest.warns(errors.TensorkeepWarning, match=told) as warned:
        tk.load(path, device_map={"": "cpu", "0": "cpu", "hed": "cpu"}, only=["*.bias"])
    assert warned[0].filename == __file__
    report = tk.load_into(model, path, device_map={"": "cpu", "1": "cpu", "hed": "cpu"})
    assert report.notes == [told]
    assert not tk.load_into(model, path, device_map={"0": "cpu", "1": "cpu"}).notes
