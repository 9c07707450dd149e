"""What a program does with what it has loaded: looks at it, prints it, trains it.

A file that is safe may not have its own code run by any of that. Two things are looked for: what
the audit hook refuses meanwhile, and *lasting* changes in what was loaded that make later code
call what the file put there (a method hidden by an attribute, a hook, a module that is none).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import enum
import io
import types

_MOST = 4_000
_CALLABLE = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    property,
    classmethod,
    staticmethod,
)
# Instance attributes of honest objects that have the name of something callable in their class.
HONEST_SHADOWS = {
    ("torch.nn.modules.module.Module", "training"): "a flag; the class only annotates it",
}
_HOOKS = "hooks"
# Classes that call nothing of what their instances hold, whatever it is called.
_HOLDERS = (argparse.Namespace, types.SimpleNamespace)


def walk(root):
    """Every object of the file, each once, a bounded number."""
    seen, queue = {}, collections.deque([root])
    while queue and len(seen) < _MOST:
        value = queue.popleft()
        if id(value) in seen or isinstance(value, type | types.FunctionType | types.ModuleType):
            continue
        seen[id(value)] = value
        yield value
        queue.extend(_parts(value))


def _parts(value):
    parts = []
    if isinstance(value, dict):
        parts += [*dict.keys(value), *dict.values(value)]
    elif isinstance(value, list | tuple | set | frozenset | collections.deque):
        parts += list(value)
    own = _own(value)
    return parts + list(own.values())


def _own(value):
    try:
        own = object.__getattribute__(value, "__dict__")
    except Exception:
        return {}
    return own if type(own) is dict else {}


def later_code(root):
    """Sentences for what the file has put where later code calls it."""
    for value in walk(root):
        if isinstance(value, enum.Enum):
            continue  # a member is found by its value: nothing of it is the file's
        cls = type(value)
        name = f"{cls.__module__}.{cls.__qualname__}"
        for key, item in _own(value).items():
            if type(key) is not str:
                continue
            if isinstance(_in_class(cls, key), _CALLABLE) and _is_method(cls, key):
                yield f"{name}.{key} is hidden by an attribute of the instance"
            elif _HOOKS in key and cls not in _HOLDERS and _to_call(item):
                yield f"{name}.{key} holds something to call"
            elif key.startswith("__") and key.endswith("__"):
                yield f"{name} has an attribute {key}"


def _in_class(cls, key):
    for base in cls.__mro__:
        if key in vars(base):
            return vars(base)[key]
    return None


def _is_method(cls, key):
    # A data descriptor wins over the instance's own dictionary: nothing is hidden.
    found = _in_class(cls, key)
    return not isinstance(found, property)


def _to_call(item):
    if item is None or callable(item):
        return item is not None
    return isinstance(item, dict) and any(callable(part) for part in item.values())


def use(root):
    """Look at everything and train what can be trained. Errors are the file's own affair."""
    for value in list(walk(root))[:200]:
        if _is_tensor(value) and _try(check_tensor, value) is not True:
            continue  # unsound bytes are found by `beyond`, and would end the process here
        for action in (repr, str, _iterate, bool, len, _compare, _copy):
            _try(action, value)
        _tensor(value)
        _module(value)
        _optimizer(value)


def _try(action, *args):
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return action(*args)
        except (Exception, RecursionError):
            return None


def _is_tensor(value):
    import torch

    return isinstance(value, torch.Tensor)


def _iterate(value):
    return [part for part, _ in zip(iter(value), range(100), strict=False)]


def _compare(value):
    return value == value, hash(value), value < value


def _copy(value):
    import copy

    return copy.copy(value)


def _tensor(value):
    import torch

    if isinstance(value, torch.Tensor):
        for action in (torch.clone, torch.sum, torch.Tensor.tolist):
            _try(action, value)


def check_tensor(value):
    """Raises unless every element lies in the storage."""
    import torch

    if value.layout in (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc):
        _check_compressed(torch, value)
    elif value.is_sparse:
        torch._validate_sparse_coo_tensor_args(
            value._indices(), value._values(), value.shape, value.is_coalesced()
        )
    elif value.layout is torch.strided and value.device.type == "cpu" and not value.is_nested:
        reach = value.storage_offset() + 1
        reach += sum(
            (size - 1) * step for size, step in zip(value.shape, value.stride(), strict=True)
        )
        if value.numel() and reach * value.element_size() > value.untyped_storage().nbytes():
            raise MemoryError("a tensor reaches beyond its storage")
    return True


def _check_compressed(torch, value):
    rows = value.layout in (torch.sparse_csr, torch.sparse_bsr)
    compressed = value.crow_indices() if rows else value.ccol_indices()
    plain = value.col_indices() if rows else value.row_indices()
    torch._validate_sparse_compressed_tensor_args(
        compressed, plain, value.values(), value.shape, value.layout
    )


def beyond(root):
    """Sentences for tensors that reach beyond their bytes."""
    import torch

    for value in walk(root):
        if isinstance(value, torch.Tensor):
            try:
                check_tensor(value)
            except Exception as error:
                yield f"a tensor is not sound: {str(error)[:100]}"


def _module(value):
    import torch

    if not isinstance(value, torch.nn.Module):
        return
    _try(lambda: value.state_dict())
    _try(lambda: value.eval())
    _try(lambda: value.train())
    _try(lambda: value.to("cpu"))
    _try(lambda: list(value.named_parameters()))
    _try(lambda: value.zero_grad())
    for example in _examples():
        _try(lambda example=example: _trained(value(*example)))


def _trained(result):
    import torch

    if isinstance(result, torch.Tensor) and result.requires_grad:
        result.sum().backward()


def _examples():
    import torch

    yield (torch.ones(2, 4),)
    yield (torch.ones(1, 3, 8, 8),)
    yield (torch.zeros(2, 3, dtype=torch.long),)
    yield (torch.ones(2, 3, 4), torch.ones(2, 3, 4))
    yield (torch.ones(2, 3, 4), torch.ones(2, 3, 4), torch.ones(2, 3, 4))
    yield (torch.ones(4), torch.ones(4))


def _optimizer(value):
    import torch

    if isinstance(value, torch.optim.Optimizer):
        _try(lambda: value.state_dict())
        _try(lambda: value.zero_grad())
        _try(lambda: value.step())
