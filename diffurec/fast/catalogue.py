"""Scores of a catalogue of any size, a chunk of items at a time, so that memory does not grow with it."""

import math
from typing import Any

import torch

ITEM_CHUNK = 1 << 16  # items scored at a time


def item_chunks(num_items: int) -> list[tuple[int, int]]:
    """(first, last) of the items 1..num_items in chunks of at most ITEM_CHUNK, last not included."""
    return [(i, min(i + ITEM_CHUNK, num_items + 1)) for i in range(1, num_items + 1, ITEM_CHUNK)]


def own_scores(scores: torch.Tensor, targets: torch.Tensor, first: int, before: torch.Tensor | float) -> torch.Tensor:
    """The targets' own scores [B, 1] out of those of the items from `first` on [B, n]; `before` for targets not there.

    Read from the product that gives their rivals' scores: a second product would be rounded otherwise.
    """
    index = (targets - first).unsqueeze(1)
    here = (index >= 0) & (index < scores.shape[1])
    return torch.where(here, scores.gather(1, index.clamp(0, scores.shape[1] - 1)), before)


class _CatalogueCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, items: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
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
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
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


def catalogue_cross_entropy(x: torch.Tensor, items: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-log softmax_j(x . e_j)[target] over the items j = 1.. of `items` (row 0 is padding and left out) -> [B].

    x: [B, d]; items: [num_items + 1, d]; targets: [B] in 1..num_items. Only ITEM_CHUNK scores per example are in memory
    at a time, in the forward pass and in the backward pass, where a larger catalogue's are computed again.
    """
    with torch.autocast(x.device.type, enabled=False):                          # sums over a catalogue need all digits
        return _CatalogueCrossEntropy.apply(x.float() if x.dtype == torch.bfloat16 else x, items, targets)
