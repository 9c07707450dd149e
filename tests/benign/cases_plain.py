"""Values of the standard library, numpy and torch's own small classes, in every protocol."""

from __future__ import annotations

import argparse
import array
import collections
import datetime
import decimal
import fractions
import http
import ipaddress
import pathlib
import re
import signal
import socket
import types
import uuid
from typing import Any

import numpy as np
import torch
import torch.distributed.fsdp
import torch.nn.attention.bias
from writing import Case, Make, pickled, torch_zip

PROTOCOLS = range(6)


def containers() -> dict[str, Any]:
    return {
        "ordered": collections.OrderedDict([("a", 1), (2, [3])]),
        "defaultdict": collections.defaultdict(list, {"a": [1]}),
        "nested defaultdict": collections.defaultdict(dict, {1: {2: 3}}),
        "counter": collections.Counter("abca"),
        "deque": collections.deque([1, 2, 3], maxlen=3),
        "set": {1, "a", (2, 3)},
        "frozenset": frozenset({1, 2}),
        "shared": [shared := [1, 2], shared],
        "deep": [[[[[{"a": ({"b": [1]},)}]]]]],
    }


def dates() -> list[Any]:
    hour = datetime.timezone(datetime.timedelta(hours=1), "CET")
    return [
        datetime.datetime(2024, 5, 6, 7, 8, 9, 10),
        datetime.datetime(2024, 5, 6, tzinfo=datetime.UTC),
        datetime.datetime(2024, 10, 27, 2, 30, tzinfo=hour, fold=1),
        datetime.date(2024, 1, 1),
        datetime.time(1, 2, tzinfo=hour),
        datetime.timedelta(-1, 2, 3),
        hour,
    ]


def numbers() -> list[Any]:
    return [
        True, None, 0, -1, 2**70, 1.5, float("inf"), float("nan"), 1j,
        decimal.Decimal("-1.50E+3"), decimal.Decimal("NaN"), fractions.Fraction(-1, 3),
    ]  # fmt: skip


def texts() -> list[Any]:
    return ["", "é\n\\", "\U0001f600", b"", b"\xff\x00", bytearray(b"abc")]


def small() -> list[Any]:
    return [slice(1, None, 2), range(3, 9, 2), Ellipsis, NotImplemented, int, dict, type(None)]


def uuids() -> list[Any]:
    return [uuid.UUID(int=5), uuid.uuid5(uuid.NAMESPACE_URL, "x")]


def paths() -> list[Any]:
    return [pathlib.Path("/a/b"), pathlib.PurePosixPath("c"), pathlib.PureWindowsPath("c:\\d")]


def namespaces() -> list[Any]:
    return [
        argparse.Namespace(lr=0.1, betas=(0.9, 0.999), save=pathlib.Path("x"), seed=None),
        types.SimpleNamespace(a={1: 2}),
    ]


def enums() -> list[Any]:
    return [
        http.HTTPStatus.OK, signal.SIGINT, uuid.SafeUUID.unknown, re.IGNORECASE | re.DOTALL,
        socket.AF_INET, http.HTTPMethod.GET, torch.distributed.fsdp.ShardingStrategy.FULL_SHARD,
        torch.nn.attention.bias.CausalVariant.UPPER_LEFT,
    ]  # fmt: skip


def other_values() -> list[Any]:
    return [
        ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"),
        ipaddress.ip_network("10.0.0.0/8"), array.array("f", [1, 2]), array.array("b", [-1]),
    ]  # fmt: skip


def random_generators() -> list[Any]:
    random = np.random
    return [
        random.default_rng(0), random.Generator(random.MT19937(1)), random.Philox(1),
        random.SFC64(1), random.PCG64DXSM(1), random.RandomState(1), random.SeedSequence(4),
        random.default_rng([1, 2]).spawn(1)[0],
    ]  # fmt: skip


def random_states() -> dict[str, Any]:
    return {
        "python": __import__("random").Random(0).getstate(),
        "numpy": np.random.RandomState(0).get_state(),
        "generator": np.random.default_rng(0).bit_generator.state,
        "torch": torch.get_rng_state(),
    }


def masked() -> list[Any]:
    return [np.ma.array([1.0, 2.0], mask=[False, True]), np.ma.masked_equal([1, 2], 2)]


def nested_records() -> list[Any]:
    inner = np.dtype([("x", "f4"), ("y", "f4")])
    return [np.zeros(2, np.dtype([("p", inner), ("q", "f4", (2, 3)), ("r", inner, (2,))]))]


RECORD = np.dtype([("a", "f4"), ("b", "<i8"), ("c", "S3"), ("d", "U2")], align=True)


def scalars() -> list[Any]:
    return [
        np.float64(1), np.float16(1), np.int64(-1), np.uint8(3), np.bool_(True), np.complex64(1j),
        np.longdouble(1), np.str_("a"), np.bytes_(b"a"), np.datetime64("2020-01-01"),
        np.timedelta64(3, "s"), np.zeros(1, RECORD)[0],
    ]  # fmt: skip


def arrays() -> list[Any]:
    return [
        np.ones((2, 3)), np.asfortranarray(np.ones((2, 3))), np.array(3), np.zeros(0, ">i2"),
        np.array(["a", "bc"]), np.array([b"a"]), np.array(["2020-01-01"], dtype="M8[D]"),
        np.zeros((2, 3, 4)).transpose(1, 0, 2), np.arange(9)[::2],
    ]  # fmt: skip


def structured() -> Any:
    return np.zeros(2, RECORD)


def objects() -> Any:
    return np.array([1, "a", None, [2], {"b": (3,)}], dtype=object)


def dtypes() -> list[Any]:
    titled = np.dtype([(("Width in metres", "w"), "f4"), ("h", "f8")])
    codes = ("f4", ">i8", "O", "V3", "M8[ns]", "U5", "?")
    return [*map(np.dtype, codes), RECORD, titled]


def number_types() -> list[Any]:
    return [np.float32, np.int64, np.ndarray]


VALUES: dict[str, Make] = {
    "containers": containers,
    "dates": dates,
    "numbers": numbers,
    "texts": texts,
    "small": small,
    "uuids": uuids,
    "paths": paths,
    "namespaces": namespaces,
    "enums": enums,
    "other-values": other_values,
    "random-generators": random_generators,
    "random-states": random_states,
    "numpy-masked": masked,
    "numpy-nested-records": nested_records,
    "numpy-scalars": scalars,
    "numpy-arrays": arrays,
    "numpy-structured": structured,
    "numpy-objects": objects,
    "numpy-dtypes": dtypes,
    "numpy-types": number_types,
}

CASES: dict[str, Case] = {
    **{f"plain/{name}-zip": torch_zip(make) for name, make in VALUES.items()},
    **{
        f"plain/{name}-protocol-{n}": pickled(make, n)
        for name, make in VALUES.items()
        for n in PROTOCOLS
        if n > 1 or make is not random_states  # a tensor needs protocol 2
    },
    **{f"plain/torch-generator-protocol-{n}": pickled(torch.Generator, n) for n in range(2, 6)},
}


def regex() -> Any:
    return {"pattern": re.compile(r"\d+", re.ASCII)}


ODD: dict[str, tuple[Case, set[str]]] = {
    # Compiling what the file brings along can take hours.
    "odd/regex": (torch_zip(regex), {"pickle/unknown-call"}),
}
