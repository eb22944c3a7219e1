"""The fast forms: parts of the model that PyTorch computes slowly, each beside its plain counterpart in ../paper.

A form computes what its plain counterpart does, to rounding, with the same weights; only the masks of dropout are drawn
otherwise. tests/test_fast.py compares outputs and gradients. `install` puts the forms into a model.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import paper
from ..paper.approximator import over_heads
from ..paper.config import Precision
from .catalogue import catalogue_cross_entropy, item_chunks
from .processor import chosen_forms, fast_matmul, warn_of_emulated_bfloat16

POSITIONS = 1 << 12   # of histories predicted from at a time on a CPU, so that what a layer leaves stays in its cache

Model = TypeVar("Model")
_wanted = ContextVar("whether install installs", default=True)


def softmax(scores: Tensor) -> Tensor:
    """scores.softmax(-1), rows of under 16 scores by its formula: PyTorch takes five times as long for them on a CPU."""
    if scores.device.type != "cpu" or scores.shape[-1] >= 16:
        return scores.softmax(-1)
    scores = scores.float() if scores.dtype == torch.bfloat16 else scores
    shares = (scores - scores.detach().amax(-1, keepdim=True)).exp()            # the largest cancels, gradients too
    return shares / shares.sum(-1, keepdim=True)


class Dropout(nn.Dropout):              # plain: nn.Dropout
    """Masks of 16-bit numbers, four out of one draw: on a CPU p is met to 1/65536, ten times as fast."""

    def forward(self, x: Tensor) -> Tensor:
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
    def forward(ctx: Any, x: Tensor) -> Tensor:
        share = (x * x).mul_(_TanhGELU.CUBIC / 3).add_(_TanhGELU.LINEAR).mul_(x).sigmoid_()
        ctx.save_for_backward(x, share)
        return x * share

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, share = ctx.saved_tensors
        slope = (x * x).mul_(_TanhGELU.CUBIC).add_(_TanhGELU.LINEAR).mul_(x).mul_(1 - share).add_(1)  # of ln(x share)
        return slope.mul_(share).mul_(grad)


class TanhGELU(nn.GELU):                # plain: nn.GELU(approximate="tanh")
    """On a CPU through the sigmoid; a GELU that is not by tanh stays what it is."""

    def __init__(self) -> None:
        super().__init__("tanh")

    def forward(self, x: Tensor) -> Tensor:
        return _TanhGELU.apply(x) if x.device.type == "cpu" and self.approximate == "tanh" else super().forward(x)


class FeedForward(paper.FeedForward):   # plain: paper.FeedForward
    """Linear, activation, linear; without gradients oneDNN takes GELU along in the first product.

    On a CPU. The operation is one of PyTorch's own, made for its compiler: where it is missing, all is as in the plain form.
    """

    def forward(self, x: Tensor) -> Tensor:
        widen: Any                                                               # nn.Linear
        widen, activation, narrow = self
        if isinstance(activation, nn.Sequential) and not self.training:          # with a dropout
            activation = activation[0]
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


class Attention(paper.Attention):       # plain: paper.Attention
    """On a CPU with the softmax above, elsewhere by PyTorch's fused operation, which is slow on a CPU."""

    def shares(self, query: Tensor, key: Tensor, key_mask: Tensor | None) -> Tensor:
        scores = query / math.sqrt(query.shape[-1]) @ key.transpose(2, 3)
        return softmax(scores if key_mask is None else scores.masked_fill(~over_heads(key_mask), -math.inf))

    def forward(self, queries: Tensor, memory: Tensor, key_mask: Tensor | None = None) -> Tensor:
        if queries.device.type == "cpu":
            return super().forward(queries, memory, key_mask)
        query, key, value = self.project(queries, memory)
        mask, dropped = None if key_mask is None else over_heads(key_mask), self.dropout.p if self.training else 0.0
        heads = F.scaled_dot_product_attention(query, key, value, mask, dropped)
        return self.out(heads.transpose(1, 2).flatten(2))


class Block(paper.Block):               # plain: paper.Block
    """With last_only -> [B, 1, d]: only the last position asks, all positions answer."""

    def forward(self, x: Tensor, key_mask: Tensor | None = None, last_only: bool = False) -> Tensor:
        memory = self.attention_norm(x)
        x, queries = (x[:, -1:], memory[:, -1:]) if last_only else (x, memory)
        if last_only and key_mask is not None and key_mask.dim() == 3:
            key_mask = key_mask[:, -1:]
        x = x + self.dropout(self.attention(queries, memory, key_mask))
        return self.last_dropout(x + self.dropout(self.feed_forward(self.feed_forward_norm(x))))


class StepEmbedding(paper.StepEmbedding):   # plain: paper.StepEmbedding
    """Each of the T steps embedded once, where more are asked for."""

    def forward(self, t: Tensor) -> Tensor:
        if t.numel() <= self.num_steps:
            return super().forward(t)
        return F.embedding(t, super().forward(torch.arange(self.num_steps, device=t.device)))


class Approximator(paper.Approximator):  # plain: paper.Approximator
    """The last block computes the last position alone, because no other is read."""

    def forward(self, z: Tensor, key_mask: Tensor | None = None, every: bool = False) -> Tensor:
        if every:
            return super().forward(z, key_mask, every)
        *blocks, last = self.blocks
        for block in blocks:
            z = block(z, key_mask)
        only = {"last_only": True} if isinstance(last, Block) else {}           # a subclass of the plain one has no such
        return self.norm(self.dropout(last(z, key_mask, **only)[:, -1]))


def in_parts(function: Callable[..., Tensor], embedded: Tensor, *others: Tensor | None) -> Tensor:
    """function(embedded, *others), where it pays for as many of the B rows at a time as have POSITIONS positions.

    embedded: [B, L, d]; others: tensors [B, ...] or None. For prediction alone: what gradients need fits no cache.
    """
    if embedded.device.type != "cpu" or not chosen_forms()["parts"]:
        return function(embedded, *others)
    rows = max(1, POSITIONS // embedded.shape[1])
    parts = [itertools.repeat(None) if x is None else x.split(rows) for x in (embedded, *others)]
    return torch.cat([function(*part) for part in zip(*parts)])


class SequenceModel(paper.SequenceModel):
    """The loss over the catalogue in chunks."""

    def cross_entropy(self, x_start: Tensor, targets: Tensor) -> Tensor:
        return catalogue_cross_entropy(x_start, self.item_embedding.weight, targets)


class SASRec(SequenceModel, paper.SASRec):          # plain: paper.SASRec
    """As SequenceModel."""


class GRU4Rec(SequenceModel, paper.GRU4Rec):        # plain: paper.GRU4Rec
    """As SequenceModel."""


class DiffuRec(SequenceModel, paper.DiffuRec):      # plain: paper.DiffuRec
    """No mask where there is no padding; prediction in parts that fit the cache; the catalogue in chunks."""

    def embed_history(self, histories: Tensor) -> tuple[Tensor, Tensor | None]:
        embedded, key_mask = super().embed_history(histories)
        if key_mask is None or key_mask.dim() == 3 or not bool(key_mask[:, 0].all()):       # left-padded: column 0 tells
            return embedded, key_mask
        return embedded, None

    def predict_x_start(
        self, embedded: Tensor, key_mask: Tensor | None, x_t: Tensor, t: Tensor, lambda_: Tensor
    ) -> Tensor:
        compute = super().predict_x_start
        if torch.is_grad_enabled():
            return compute(embedded, key_mask, x_t, t, lambda_)
        return in_parts(compute, embedded, key_mask, x_t, t, lambda_)

    @fast_matmul()
    def predict(
        self, histories: Tensor, num_steps: int | None = None, generator: torch.Generator | None = None,
        ensemble: int | None = None, precision: Precision = "float32",
    ) -> Tensor | paper.Ensemble:
        warn_of_emulated_bfloat16(precision, self.device)
        return super().predict(histories, num_steps, generator, ensemble, precision)

    def log_normalizer(self, x_start: Tensor) -> Tensor:
        total = torch.full((len(x_start),), -math.inf, dtype=x_start.dtype, device=x_start.device)
        for first, last in item_chunks(self.num_items):
            total = torch.logaddexp(total, self.score_items(x_start, first, last).logsumexp(1))
        return total


class DiffuRecSys(DiffuRec, paper.DiffuRecSys):     # plain: paper.DiffuRecSys
    """As DiffuRec."""


FORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Dropout: Dropout, nn.GELU: TanhGELU, paper.FeedForward: FeedForward, paper.Attention: Attention,
    paper.Block: Block, paper.StepEmbedding: StepEmbedding, paper.Approximator: Approximator,
    paper.DiffuRec: DiffuRec, paper.DiffuRecSys: DiffuRecSys, paper.SASRec: SASRec, paper.GRU4Rec: GRU4Rec,
}


def install(model: Model) -> Model:
    """Puts the fast forms into a model, in place: weights, their names and the model's place stay, only classes change.

    `train`, `evaluate`, `recommend` and `load_model` do it. A subclass of a plain class stays as it is.
    Inside `switched_off` the plain forms are put back.
    """
    forms = FORMS if _wanted.get() else {form: plain for plain, form in FORMS.items()}
    for module in model.modules() if isinstance(model, nn.Module) else ():       # a baseline has none
        module.__class__ = forms.get(type(module), type(module))
    return model


@contextlib.contextmanager
def switched_off() -> Iterator[None]:
    """Within, everything is computed by the paper's plain forms."""
    before = _wanted.set(False)
    try:
        yield
    finally:
        _wanted.reset(before)
