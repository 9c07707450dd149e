"""TorchScript's operators and Python source, judged without running any of it."""

from __future__ import annotations

import pytest
import torch

from tensorkeep.formats.contents import Code
from tensorkeep.scanning import _operators
from tensorkeep.scanning.code import judge_code

OUTSIDE, UNKNOWN = "code/reaches-outside", "code/unknown-operator"
UNCHECKED = "code/unchecked-operator"


def rules(text, language="torchscript"):
    return [found.rule for found in judge_code([Code("code/__torch__.py", language, text)])]


HARMLESS = [
    "torch.add(x, 1)",
    "ops.quantized.linear_dynamic(x, y)",
    'ops.prim.RaiseException("cannot save: torch wants ops, see torch", "builtins.Error")',
    "ops.torchvision.nms(boxes, scores, 0.5)",
    'device=torch.device("cpu")',
    "weight : __torch__.torch.nn.modules.linear.Linear",
    "saved = torch.relu(x)",
    "save = torch.relu(x)",
    "_0 = __torch__.save.f",
    'raise RuntimeError("torch.save failed, ops.x")',
    '_9 = "please use torch.save instead, or ops.mine.f, or torch.classes.my.Own"',
    "_9 = 'x.save(y) of torch.from_file'",
    "_0 = torch._unsafe_view(torch.unsafe_chunk(x, 2)[0], [4])",
    "p : __torch__.torch.classes.quantized.LinearPackedParamsBase",
    "p : __torch__.torch.classes.sparse.LinearPackedParamsBase",
    "p : __torch__.torch.classes.xnnpack.Conv2dOpContext",
    "p : __torch__.torch.classes.rnn.CellParamsBase",
]


@pytest.mark.parametrize("line", HARMLESS)
def test_operators_that_compute(line):
    assert rules(f"def f(x: Tensor) -> Tensor:\n  {line}\n  return x\n") == [] or ".save." in line


HARMFUL = [
    'torch.save(x, "/tmp/x")',
    'torch . save(x, "/tmp/x")',
    'ops.aten.save(x, "/tmp/x")',
    'x.save("/tmp/x")',
    "f = torch.save",
    'getattr(torch, "save")(x, "/tmp/x")',
    '(torch.  # a comment\n  save(x, "/tmp/x"))',
    '(torch.\n\n\n  save)(x, "/tmp/x")',
    'torch.from_file("/etc/passwd", False, 10)',
    "ops.prim.rpc_sync(x)",
    "ops.image.read_file(x)",
    "torch.to_dense(torch._sparse_coo_tensor_unsafe(i, torch.ones([1]), [3]))",
    "torch._sparse_csr_tensor_unsafe(i, j, v, [1, 3])",
    "ops.aten._sparse_compressed_tensor_unsafe(i, j, v, [1, 3])",
    "torch._nested_view_from_buffer(x, i, j, k)",
    "torch._reshape_alias(x, [1000000], [1])",
    '_9 = "a string"; torch.save(x, "torch")',
    'getattr(__torch__.f("a"), "save")(x)',
    "getattr(torch, 'from_file')(x)",
    "ops.inductor._reinterpret_tensor(x, [1], [1], 0)",
]


@pytest.mark.parametrize("line", HARMFUL)
def test_operators_that_reach_outside(line):
    assert OUTSIDE in rules(f"def f(x: Tensor) -> Tensor:\n  {line}\n  return x\n")


ODD = [
    "ops.mine.anything(x)",
    "o = ops\n  o.mine.anything(x)",
    "t = torch\n  t.add(x, 1)",
    "(ops.\n  mine.anything(x))",
    'getattr(torch, "sa\\x76e")(x)',
    "^python_function()(x)",
    "_0 = __torch__.torch.classes.my.Own.run(x)",
    "g : __torch__.torch.classes.dist_c10d.ProcessGroup",
    "_0 = torch.classes.dist_c10d.ProcessGroup",
    "_0 = torch . classes . my . Own()",
    "_0 = (__torch__.torch.\n  classes.my.Own)()",
    "_0 = (__torch__.\n  torch.classes.my.Own)()",
    '_0 = getattr(__torch__, "torch")',
    "_0 = (torch.classes.quantized\n  .Own)()",
    '"""a " """; o = ops; """ " """',
]


@pytest.mark.parametrize("line", ODD)
def test_what_is_not_torchs_own_or_hides_itself(line):
    assert UNKNOWN in rules(f"def f(x: Tensor) -> Tensor:\n  {line}\n  return x\n")


TRUSTING = [
    "torch.max_pool2d_with_indices_backward(g, x, [2, 2], [2, 2], [0, 0], [1, 1], False, i)",
    "ops.aten._embedding_bag_dense_backward(g, i, j, k, l, 10, False, 0, None)",
    "torch . _convert_indices_from_coo_to_csr(x, 5)",
    'getattr(torch, "_ctc_loss")(x, t, [5], [3])',
    "x._segment_reduce_backward(y, z, 'sum')",
    "(g).nll_loss_backward(x, t, None, 0, -100, w)",
]


@pytest.mark.parametrize("line", TRUSTING)
def test_operators_that_check_nothing_and_that_no_forward_calls(line):
    assert UNCHECKED in rules(f"def f(x: Tensor) -> Tensor:\n  {line}\n  return x\n")


def test_operators_that_ordinary_forwards_call_are_no_finding():
    lines = [
        "torch.sparse_coo_tensor(i, v, [3])",
        "torch._indices(x)",
        "torch.ctc_loss(x, t, [5], [3])",
        'torch.segment_reduce(x, "sum", unsafe=True)',
        "linear_backward = self.linear_backward",
        '_0 = "nll_loss_backward"',
    ]
    assert [rules(f"def f(x: Tensor):\n  {line}\n") for line in lines] == [[]] * len(lines)


def test_every_unchecked_operator_is_one_of_torchs():
    names = {schema.name for schema in torch._C._jit_get_all_schemas()}
    assert _operators.UNCHECKED.keys() <= names
    assert not _operators.UNCHECKED.keys() & _operators.HARMFUL.keys()


def test_a_method_of_the_archives_own_is_no_operator():
    text = "class A(Module):\n  def save(self, x: Tensor) -> Tensor:\n    return x\n"
    assert rules(text) == []
    assert rules(text + "  def f(self, x: Tensor):\n    return (self).save(x, )\n") == [UNKNOWN]


def test_python_source_says_what_it_calls():
    text = "import os\ndef handle(x):\n    os.system('echo')\n    return eval(x)\n"
    (found,) = judge_code([Code("handler.py", "python", text)])
    assert (found.rule, found.severity) == ("code/python-source", "suspicious")
    assert "os.system, eval" in found.what


def test_compiled_code():
    (found,) = judge_code([Code("lib.so", "native", "")])
    assert (found.rule, found.severity) == ("container/native-code", "suspicious")


@pytest.mark.parametrize(
    "text",
    [
        "ops#" * 200_000,
        "torch.\n" * 100_000,
        '"' * 400_000,
        "ops." * 200_000,
        "^a" * 200_000,
        "torch.classes." * 90_000,
        "__torch__ " * 99_000,
    ],
)
def test_any_text_is_judged_in_linear_time(text):
    assert len(rules(text)) < 20
