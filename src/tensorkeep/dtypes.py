"""One table: every dtype that a checkpoint can hold, under each name that somebody gives it.

Sources: torch 2.13 (`torch/_C` dtypes and `torch.storage._dtype_to_storage_type_map`),
safetensors 0.8 (`Dtype`), ONNX 1.18 (`TensorProto.DataType`), GGUF (`ggml_type`).
The *name* is torch's without the `torch.` in front.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DType:
    """How one element is stored.

    `itemsize` is in bytes. `safetensors`, `numpy`, `onnx` and `gguf` are the names used there,
    or None where that format cannot hold it. `storage` is the class that torch pickles as the
    storage's type ("UntypedStorage" for what came after typed storages).
    """

    name: str
    itemsize: int
    kind: str  # float, complex, int, uint, bool, bits, quantized
    safetensors: str | None = None
    numpy: str | None = None
    storage: str = "UntypedStorage"
    onnx: str | None = None
    gguf: str | None = None

    @property
    def is_floating(self) -> bool:
        """Whether values are real floating point numbers."""
        return self.kind == "float"

    def __str__(self) -> str:
        return self.name


_TABLE = (
    DType("float64", 8, "float", "F64", "<f8", "DoubleStorage", "DOUBLE", "F64"),
    DType("float32", 4, "float", "F32", "<f4", "FloatStorage", "FLOAT", "F32"),
    DType("float16", 2, "float", "F16", "<f2", "HalfStorage", "FLOAT16", "F16"),
    DType("bfloat16", 2, "float", "BF16", None, "BFloat16Storage", "BFLOAT16", "BF16"),
    DType("float8_e4m3fn", 1, "float", "F8_E4M3", None, onnx="FLOAT8E4M3FN"),
    DType("float8_e5m2", 1, "float", "F8_E5M2", None, onnx="FLOAT8E5M2"),
    DType("float8_e4m3fnuz", 1, "float", "F8_E4M3FNUZ", None, onnx="FLOAT8E4M3FNUZ"),
    DType("float8_e5m2fnuz", 1, "float", "F8_E5M2FNUZ", None, onnx="FLOAT8E5M2FNUZ"),
    DType("float8_e8m0fnu", 1, "float", "F8_E8M0", None, onnx="FLOAT8E8M0"),
    DType("float4_e2m1fn_x2", 1, "bits", "F4", None, onnx="FLOAT4E2M1"),
    DType("complex32", 4, "complex"),
    DType("complex64", 8, "complex", "C64", "<c8", "ComplexFloatStorage", "COMPLEX64"),
    DType("complex128", 16, "complex", None, "<c16", "ComplexDoubleStorage", "COMPLEX128"),
    DType("uint8", 1, "uint", "U8", "|u1", "ByteStorage", "UINT8"),
    DType("int8", 1, "int", "I8", "|i1", "CharStorage", "INT8", "I8"),
    DType("int16", 2, "int", "I16", "<i2", "ShortStorage", "INT16", "I16"),
    DType("int32", 4, "int", "I32", "<i4", "IntStorage", "INT32", "I32"),
    DType("int64", 8, "int", "I64", "<i8", "LongStorage", "INT64", "I64"),
    DType("uint16", 2, "uint", "U16", "<u2", onnx="UINT16"),
    DType("uint32", 4, "uint", "U32", "<u4", onnx="UINT32"),
    DType("uint64", 8, "uint", "U64", "<u8", onnx="UINT64"),
    DType("bool", 1, "bool", "BOOL", "|b1", "BoolStorage", "BOOL"),
    DType("bits8", 1, "bits"),
    DType("bits16", 2, "bits"),
    DType("bits1x8", 1, "bits"),
    DType("bits2x4", 1, "bits"),
    DType("bits4x2", 1, "bits"),
    *(DType(f"int{bits}", 1, "bits") for bits in range(1, 8)),
    *(DType(f"uint{bits}", 1, "bits") for bits in range(1, 8)),
    DType("quint8", 1, "quantized", storage="QUInt8Storage"),
    DType("qint8", 1, "quantized", storage="QInt8Storage"),
    DType("qint32", 4, "quantized", storage="QInt32Storage"),
    DType("quint4x2", 1, "quantized", storage="QUInt4x2Storage"),
    DType("quint2x4", 1, "quantized", storage="QUInt2x4Storage"),
)

BY_NAME: dict[str, DType] = {dtype.name: dtype for dtype in _TABLE}
BY_SAFETENSORS: dict[str, DType] = {d.safetensors: d for d in _TABLE if d.safetensors}
# By numpy's code without the byte order, as "f4".
BY_NUMPY: dict[str, DType] = {d.numpy[1:]: d for d in _TABLE if d.numpy}
BY_STORAGE: dict[str, DType] = {d.storage: d for d in _TABLE if d.storage != "UntypedStorage"}

_ALIASES = {
    "half": "float16", "fp16": "float16", "f16": "float16",
    "bf16": "bfloat16",
    "float": "float32", "fp32": "float32", "f32": "float32",
    "double": "float64", "fp64": "float64", "f64": "float64",
    "fp8": "float8_e4m3fn", "cfloat": "complex64", "cdouble": "complex128", "chalf": "complex32",
    "short": "int16", "int": "int32", "long": "int64",
}  # fmt: skip


def find(name: str) -> DType | None:
    """The dtype that users mean by `name` ("torch.bfloat16", "bf16", "BF16"), or None."""
    plain = name.strip().removeprefix("torch.")
    by_alias = BY_NAME.get(plain) or BY_NAME.get(_ALIASES.get(plain.lower(), ""))
    return by_alias or BY_SAFETENSORS.get(plain.upper())
