"""The fast forms: what PyTorch does slowly on a CPU, and the cross-entropy over a catalogue of any size.

Each computes what its plain form does, to rounding; tests/test_fast.py compares outputs and gradients.
"""

import contextlib
import ctypes
import functools
import itertools
import math
import sys
import warnings

import torch
import torch.nn.functional as F
from torch import nn

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of glibc's malloc.h
ITEM_CHUNK = 1 << 16  # items scored at a time, so that memory does not grow with the catalogue
POSITIONS = 1 << 12   # of histories predicted from at a time on a CPU, so that what a layer leaves stays in its cache


def item_chunks(num_items):
    """(first, last) of the items 1..num_items in chunks of at most ITEM_CHUNK, last not included."""
    return [(i, min(i + ITEM_CHUNK, num_items + 1)) for i in range(1, num_items + 1, ITEM_CHUNK)]


@functools.cache
def chosen_forms():
    """Which forms this processor gets, by what it has: {form: bool}. The caller's ATEN_CPU_CAPABILITY is obeyed.

    bfloat16: it has products in 16 bits; elsewhere they are emulated, many times slower than float32.
    onednn_products: float32 by oneDNN (`fast_matmul`). parts: predictions for a few users at a time (`in_parts`), which
    pays with AVX-512 and costs a quarter of the rate on processors with AVX2 alone. fused_gelu: see `FeedForward`.
    """
    found, wide = torch.cpu.get_capabilities(), torch.backends.cpu.get_cpu_capability() == "AVX512"
    bfloat16 = bool(wide and found.get("avx512_bf16"))
    return {
        "bfloat16": bfloat16, "onednn_products": bfloat16 and not found.get("amx_bf16"), "parts": wide,
        "fused_gelu": hasattr(torch.ops.mkldnn, "_linear_pointwise"),
    }


def warn_of_emulated_bfloat16(precision, device):
    """Says what bfloat16 costs on a CPU that has to emulate it."""
    if precision == "bfloat16" and device.type == "cpu" and not chosen_forms()["bfloat16"]:
        warnings.warn(
            "This processor has no products in bfloat16 and emulates them, so that everything takes many times as long "
            "as in float32; take precision='float32'.", stacklevel=3
        )


@contextlib.contextmanager
def fast_matmul():
    """float32 products by oneDNN on x86 processors with AVX-512 but without AMX, about twice as fast there on AMD.

    PyTorch knows this as leave to compute in bfloat16, which oneDNN has no use for without AMX: it computes in float32.
    Where there is AMX the products would lose digits, so there, as on other processors, all stays as it is.
    """
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    if chosen_forms()["onednn_products"]:
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


@contextlib.contextmanager
def kept_memory():
    """Lets the C library's malloc keep what is freed, and gives it back at the end.

    Otherwise large activations go back to the system and their successors get fresh pages, each cleared at its first
    touch, which took up to nearly half of the training's time at L = 50 and batch 512. The price is memory: 3 to 4 GB
    there instead of 2, and more the longer it is kept. Nothing happens where the library is not glibc.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(library, "mallopt"):
        yield
        return
    library.mallopt(M_MMAP_MAX, 0)                                               # no mapping of its own for a large block
    library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)                                 # bytes at the heap's end
    try:
        yield
    finally:
        # Once set, the thresholds no longer adapt: they end where glibc's own adapting ends for large tensors.
        library.mallopt(M_MMAP_MAX, 65_536)
        library.mallopt(M_MMAP_THRESHOLD, 2**25)
        library.mallopt(M_TRIM_THRESHOLD, 2**26)
        library.malloc_trim(0)


def in_parts(function, embedded, *others):
    """function(embedded, *others), where it pays for as many of the B rows at a time as have POSITIONS positions.

    embedded: [B, L, d]; others: tensors [B, ...] or None. For prediction alone: what gradients need fits no cache.
    """
    if embedded.device.type != "cpu" or not chosen_forms()["parts"]:
        return function(embedded, *others)
    rows = max(1, POSITIONS // embedded.shape[1])
    parts = [itertools.repeat(None) if x is None else x.split(rows) for x in (embedded, *others)]
    return torch.cat([function(*part) for part in zip(*parts)])


def softmax(scores):
    """scores.softmax(-1), rows of under 16 scores by its formula: PyTorch takes five times as long for them on a CPU."""
    if scores.device.type != "cpu" or scores.shape[-1] >= 16:
        return scores.softmax(-1)
    scores = scores.float() if scores.dtype == torch.bfloat16 else scores
    shares = (scores - scores.detach().amax(-1, keepdim=True)).exp()            # the largest cancels, gradients too
    return shares / shares.sum(-1, keepdim=True)


class Dropout(nn.Dropout):
    """nn.Dropout with masks of 16-bit numbers, four out of one draw: on a CPU p is met to 1/65536, ten times as fast."""

    def forward(self, x):
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        dropped = min(round(self.p * 2**16), 2**16 - 1)                          # of the 2^16 numbers; never all
        keep = draws[:x.numel()].view(x.shape) >= dropped - 2**15
        if x.dtype == torch.float32:
            return x * keep.to(x.dtype).mul_(1 / (1 - self.p))
        return x * keep * (1 / (1 - self.p))                                     # in 16 bits the factor itself would be rounded


class _TanhGELU(torch.autograd.Function):
    # 0.5 x (1 + tanh u) = x sigmoid(2u) with u = sqrt(2/pi) (x + 0.044715 x^3): a CPU's sigmoid is ten times its tanh.
    LINEAR, CUBIC = 2 * math.sqrt(2 / math.pi), 3 * 2 * math.sqrt(2 / math.pi) * 0.044715

    @staticmethod
    def forward(ctx, x):
        share = (x * x).mul_(_TanhGELU.CUBIC / 3).add_(_TanhGELU.LINEAR).mul_(x).sigmoid_()
        ctx.save_for_backward(x, share)
        return x * share

    @staticmethod
    def backward(ctx, grad):
        x, share = ctx.saved_tensors
        slope = (x * x).mul_(_TanhGELU.CUBIC).add_(_TanhGELU.LINEAR).mul_(x).mul_(1 - share).add_(1)  # of ln(x share)
        return slope.mul_(share).mul_(grad)


class TanhGELU(nn.Module):
    """nn.GELU(approximate="tanh"), on a CPU through the sigmoid."""

    def forward(self, x):
        return _TanhGELU.apply(x) if x.device.type == "cpu" else F.gelu(x, approximate="tanh")


class FeedForward(nn.Sequential):
    """nn.Sequential(linear, activation, linear); without gradients oneDNN takes GELU along in the first product.

    On a CPU. The operation is one of PyTorch's own, made for its compiler: where it is missing, all is
    as in nn.Sequential.
    """

    def forward(self, x):
        widen, activation, narrow = self
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        forms = chosen_forms()
        known = dtype == torch.float32 or dtype == torch.bfloat16 and forms["bfloat16"]
        if (
            x.device.type != "cpu" or torch.is_grad_enabled() or not isinstance(activation, TanhGELU) or not known
            or not forms["fused_gelu"]
        ):
            return super().forward(x)
        x, weight, bias = (tensor.to(dtype) for tensor in (x, widen.weight, widen.bias))
        return narrow(torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "tanh"))


def own_scores(scores, targets, first, before):
    """The targets' own scores [B, 1] out of those of the items from `first` on [B, n]; `before` for targets not there.

    Read from the product that gives their rivals' scores: a second product would be rounded otherwise.
    """
    index = (targets - first).unsqueeze(1)
    here = (index >= 0) & (index < scores.shape[1])
    return torch.where(here, scores.gather(1, index.clamp(0, scores.shape[1] - 1)), before)


class _CatalogueCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, items, targets):
        spans = item_chunks(len(items) - 1)
        own = x.new_zeros(len(x), 1)
        top, total = torch.full_like(own, -math.inf), torch.zeros_like(own)     # of softmax, over the chunks so far
        for first, last in spans:
            shares = x @ items[first:last].T                                    # [B, last - first], one at a time
            own = own_scores(shares, targets, first, own)
            new_top = torch.maximum(top, shares.amax(1, keepdim=True))
            shares.sub_(new_top).exp_()
            total = total * (top - new_top).exp() + shares.sum(1, keepdim=True)
            top = new_top
        ctx.save_for_backward(x, items, targets, top, total, *([shares] if len(spans) == 1 else []))
        return (top + total.log() - own).squeeze(1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        x, items, targets, top, total, *kept = ctx.saved_tensors
        grad = grad.unsqueeze(1)                                                # [B, 1]
        weighed = x * (grad / total)
        x_grad, items_grad = torch.zeros_like(x), torch.zeros_like(items)
        for first, last in item_chunks(len(items) - 1):
            shares = kept[0] if kept else (x @ items[first:last].T).sub_(top).exp_()
            x_grad.addmm_(shares, items[first:last])
            torch.mm(shares.T, weighed, out=items_grad[first:last])
        x_grad.mul_(grad / total).sub_(grad * items[targets])
        items_grad.index_add_(0, targets, grad * x, alpha=-1)
        return x_grad, items_grad, None


def catalogue_cross_entropy(x, items, targets):
    """-log softmax_j(x . e_j)[target] over the items j = 1.. of `items` (row 0 is padding and left out) -> [B].

    x: [B, d]; items: [num_items + 1, d]; targets: [B] in 1..num_items. Only ITEM_CHUNK scores per example are in memory
    at a time, in the forward pass and in the backward pass, where a larger catalogue's are computed again.
    """
    with torch.autocast(x.device.type, enabled=False):                          # sums over a catalogue need all digits
        return _CatalogueCrossEntropy.apply(x.float() if x.dtype == torch.bfloat16 else x, items, targets)
