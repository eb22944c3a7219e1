"""f, the Approximator: a Transformer that reads the noisy target off the item distributions [1, section 4].

B  histories of a batch                  d  hidden size: an item's embedding, a position, a step
L  positions of a history, left-padded   H  attention heads, each of d/H
Q  positions that ask                    s  diffusion step, here t = s - 1
z  item distributions z_1..z_n           x_0_hat  f's estimate of the target's embedding
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from .config import Activation, ModelConfig

ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {"gelu": partial(nn.GELU, approximate="tanh"), "relu": nn.ReLU}


def over_heads(key_mask: Tensor) -> Tensor:
    """A key mask [B, L] as [B, 1, 1, L], or one of each query [B, Q, L] as [B, 1, Q, L]."""
    return key_mask.unsqueeze(1) if key_mask.dim() == 3 else key_mask[:, None, None, :]


class Attention(nn.Module):
    """Multi-head scaled dot-product attention: queries [B, Q, d], keys and values from memory [B, L, d] -> [B, Q, d]."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float = 0.0):
        super().__init__()
        self.num_heads, self.dropout = num_heads, nn.Dropout(dropout)            # of the weights
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key_value = nn.Linear(hidden_size, 2 * hidden_size)                 # both in one product
        self.out = nn.Linear(hidden_size, hidden_size)
        nn.init.xavier_normal_(self.out.weight)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)             # [B, ., d] -> [B, H, ., d/H]

    def project(self, queries: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        key, value = self.key_value(memory).chunk(2, dim=-1)                     # [B, L, d] each
        return self._heads(self.query(queries)), self._heads(key), self._heads(value)

    def shares(self, query: Tensor, key: Tensor, key_mask: Tensor | None) -> Tensor:
        """softmax(q . k / sqrt(d/H)): [B, H, Q, L], each row adding up to 1, and 0 where a key is masked."""
        scores = query / math.sqrt(query.shape[-1]) @ key.transpose(2, 3)        # [B, H, Q, L]
        if key_mask is not None:
            scores = scores.masked_fill(~over_heads(key_mask), -math.inf)        # no query sees padding, or what is later
        return scores.softmax(-1)

    def forward(self, queries: Tensor, memory: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """key_mask: [B, L] bool, True where a key may be attended to, or [B, Q, L] by which query; None where every key may."""
        query, key, value = self.project(queries, memory)                        # [B, H, Q, d/H], twice [B, H, L, d/H]
        mixed = self.dropout(self.shares(query, key, key_mask)) @ value          # [B, H, Q, d/H]
        return self.out(mixed.transpose(1, 2).flatten(2))                        # [B, Q, H, d/H] -> [B, Q, d]

    def weights(self, queries: Tensor, memory: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """What `forward` weighs the values by: [B, H, Q, L]."""
        query, key, _ = self.project(queries, memory)
        return self.shares(query, key, key_mask)


class FeedForward(nn.Sequential):
    """Linear d -> 4d, activation, Linear 4d -> d, each position alone: [B, L, d] -> [B, L, d]."""


class Block(nn.Module):
    """Pre-LayerNorm Transformer block: x + attention(LN x), then x + feed-forward(LN x).

    Dropout stands after each of the two. With `dropout_everywhere` also on the weights of attention, between the layers of
    the feed-forward and on what leaves the block, as in the released code, which its paper does not say.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        d, more = config.hidden_size, config.dropout if config.dropout_everywhere else 0.0      # d in and out: blocks stack
        self.attention_norm = nn.LayerNorm(d, eps=1e-12)                         # eps as in BERT
        self.attention = Attention(d, config.num_heads, more)
        self.feed_forward_norm = nn.LayerNorm(d, eps=1e-12)
        widen, narrow, activation = nn.Linear(d, 4 * d), nn.Linear(4 * d, d), ACTIVATIONS[config.activation]()
        if config.dropout_everywhere:
            activation = nn.Sequential(activation, nn.Dropout(more))
        self.feed_forward = FeedForward(widen, activation, narrow)
        self.dropout, self.last_dropout = nn.Dropout(config.dropout), nn.Dropout(more)
        nn.init.xavier_normal_(widen.weight)                                     # weights alone; biases as in PyTorch
        nn.init.xavier_normal_(narrow.weight)

    def forward(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """[B, L, d] -> [B, L, d]."""
        h = self.attention_norm(x)                                               # [B, L, d], normed before, not after
        x = x + self.dropout(self.attention(h, h, key_mask))                     # every position asks every real one
        x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))       # d -> 4d -> d, each position alone
        return self.last_dropout(x)


class StepEmbedding(nn.Module):
    """d_s: sinusoids of the rescaled step (cosines first), then Linear - SiLU - Linear. [B] -> [B, d]."""

    frequencies: Tensor

    def __init__(self, hidden_size: int, num_steps: int, max_period: int = 10_000):
        super().__init__()
        self.num_steps, self.scale = num_steps, 1000 / num_steps                 # as if there were 1,000 steps
        half = hidden_size // 2                                                  # half cosines, half sines
        frequencies = torch.exp(-math.log(max_period) * torch.arange(half) / half)  # [d/2], from 1 down to nearly 1/max_period
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.mlp = nn.Sequential(
            nn.Linear(hidden_size, 4 * hidden_size), nn.SiLU(), nn.Linear(4 * hidden_size, hidden_size)
        )

    def forward(self, t: Tensor) -> Tensor:
        angles = t.unsqueeze(-1) * self.scale * self.frequencies                 # [B, d/2]
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))         # [B, d]


class Approximator(nn.Module):
    """f: the item distributions z_1..z_n [B, L, d] -> x_0_hat [B, d], the last position's output; every: all of them.

    Attention is bidirectional and there are no positions, so only the last item's place matters. With a causal mask
    [B, L, L] position k reads z_1..z_k alone, so that its output is the last one of that prefix: [B, L, d] are all.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.hidden_size, eps=1e-12)                  # closes the stack: x_0_hat has one scale

    def forward(self, z: Tensor, key_mask: Tensor | None = None, every: bool = False) -> Tensor:
        for block in self.blocks:
            z = block(z, key_mask)                                               # [B, L, d], every position computed
        last = z if every else z[:, -1]                                          # [B, d], the latest item's position
        return self.norm(self.dropout(last))
