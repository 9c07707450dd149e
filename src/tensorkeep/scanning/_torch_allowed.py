"""What torch's restricted unpickler takes (`torch.load(weights_only=True)`). Data, from torch 2.13.

Source: `torch/_weights_only_unpickler.py`. A test makes the same tables from the installed torch
and compares.
"""

from __future__ import annotations

_BY_MODULE = {
    "_codecs": "encode",
    "builtins": "bytearray complex set",
    "collections": "Counter OrderedDict",
    "torch": (
        "BFloat16Storage BFloat16Tensor BoolStorage BoolTensor ByteStorage ByteTensor "
        "CharStorage CharTensor ComplexDoubleStorage ComplexFloatStorage DoubleStorage "
        "DoubleTensor FloatStorage FloatTensor HalfStorage HalfTensor IntStorage "
        "IntTensor LongStorage LongTensor QInt32Storage QInt8Storage QUInt2x4Storage "
        "QUInt4x2Storage QUInt8Storage ShortStorage ShortTensor Size Tensor bfloat16 "
        "bits16 bits1x8 bits2x4 bits4x2 bits8 bool complex128 complex32 complex64 device "
        "float16 float32 float4_e2m1fn_x2 float64 float8_e4m3fn float8_e4m3fnuz "
        "float8_e5m2 float8_e5m2fnuz float8_e8m0fnu int1 int16 int2 int3 int32 int4 int5 "
        "int6 int64 int7 int8 per_channel_affine per_channel_affine_float_qparams "
        "per_channel_symmetric per_tensor_affine per_tensor_symmetric qint32 qint8 "
        "quint2x4 quint4x2 quint8 uint1 uint16 uint2 uint3 uint32 uint4 uint5 uint6 "
        "uint64 uint7 uint8"
    ),
    "torch._tensor": "_rebuild_from_type_v2",
    "torch._utils": (
        "_rebuild_device_tensor_from_cpu_tensor _rebuild_device_tensor_from_numpy "
        "_rebuild_meta_tensor_no_storage _rebuild_nested_tensor _rebuild_parameter "
        "_rebuild_parameter_with_state _rebuild_qtensor _rebuild_sparse_tensor "
        "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_wrapper_subclass"
    ),
    "torch.cuda": (
        "BFloat16Storage BFloat16Tensor BoolStorage BoolTensor ByteStorage ByteTensor "
        "CharStorage CharTensor ComplexDoubleStorage ComplexFloatStorage DoubleStorage "
        "DoubleTensor FloatStorage FloatTensor HalfStorage HalfTensor IntStorage "
        "IntTensor LongStorage LongTensor ShortStorage ShortTensor"
    ),
    "torch.cuda.sparse": (
        "BFloat16Tensor ByteTensor CharTensor DoubleTensor FloatTensor HalfTensor "
        "IntTensor LongTensor ShortTensor"
    ),
    "torch.nn.parameter": "Parameter",
    "torch.serialization": "_get_layout",
    "torch.sparse": (
        "BFloat16Tensor ByteTensor CharTensor DoubleTensor FloatTensor HalfTensor "
        "IntTensor LongTensor ShortTensor"
    ),
    "torch.storage": "TypedStorage UntypedStorage",
}

# Full names that may be imported and called without more ado.
ALLOWED = frozenset(
    f"{module}.{name}" for module, names in _BY_MODULE.items() for name in names.split()
)

# Modules of which nothing is taken, whatever the user adds.
BLOCKED = frozenset({"nt", "os", "posix", "sys"})

# Names that are taken once a module has been imported, which adds them itself.
REGISTERED = {
    "torch.nested._internal.nested_tensor.NestedTensor": "torch.nested",
    "torch.nested._internal.nested_tensor._rebuild_njt": "torch.nested",
    "torch._dynamo.decorators._DimRange": "torch._dynamo",
    "torch.distributed.device_mesh.DeviceMesh": "torch.distributed.tensor",
    "torch.distributed.tensor._dtensor_spec.DTensorSpec": "torch.distributed.tensor",
    "torch.distributed.tensor._dtensor_spec.TensorMeta": "torch.distributed.tensor",
    "torch.distributed.tensor.DTensor": "torch.distributed.tensor",
    "torch.distributed.tensor.placement_types.Partial": "torch.distributed.tensor",
    "torch.distributed.tensor.placement_types.Replicate": "torch.distributed.tensor",
    "torch.distributed.tensor.placement_types.Shard": "torch.distributed.tensor",
}

# The opcodes that it knows.
_OPCODES_TEXT = (
    "APPEND APPENDS BINFLOAT BINGET BININT BININT1 BININT2 BINPERSID BINPUT BINUNICODE BUILD "
    "EMPTY_DICT EMPTY_LIST EMPTY_SET EMPTY_TUPLE GLOBAL LONG1 LONG_BINGET LONG_BINPUT MARK "
    "NEWFALSE NEWOBJ NEWTRUE NONE PROTO REDUCE SETITEM SETITEMS SHORT_BINSTRING STOP "
    "TUPLE TUPLE1 TUPLE2 TUPLE3"
)
OPCODES = frozenset(_OPCODES_TEXT.split())

# What SETITEM and SETITEMS may fill. APPEND and APPENDS take lists only, and there is no ADDITEMS.
FILLABLE = frozenset({"collections.OrderedDict", "collections.Counter"})

# BUILD looks at the class of the object, which is not always named in the file: what these
# functions return.
RETURNS = {
    "numpy.random._pickle.__randomstate_ctor": "numpy.random.mtrand.RandomState",
    "numpy.random._pickle.__generator_ctor": "numpy.random._generator.Generator",
    "torch._utils._rebuild_tensor": "torch.Tensor",
    "torch._utils._rebuild_tensor_v2": "torch.Tensor",
    "torch._utils._rebuild_parameter": "torch.nn.parameter.Parameter",
}

# numpy's dtypes have a class each, by kind and bytes ("f8").
DTYPE_CLASSES = {
    "b1": "BoolDType",
    "i1": "Int8DType",
    "i2": "Int16DType",
    "i4": "Int32DType",
    "i8": "Int64DType",
    "u1": "UInt8DType",
    "u2": "UInt16DType",
    "u4": "UInt32DType",
    "u8": "UInt64DType",
    "f2": "Float16DType",
    "f4": "Float32DType",
    "f8": "Float64DType",
    "f16": "LongDoubleDType",
    "c8": "Complex64DType",
    "c16": "Complex128DType",
    "c32": "CLongDoubleDType",
    "M8": "DateTime64DType",
    "m8": "TimeDelta64DType",
}
# Those whose size is part of the name: "S5", "U12", "V16", "O8".
DTYPE_KINDS = {"S": "BytesDType", "U": "StrDType", "V": "VoidDType", "O": "ObjectDType"}
