"""DiffuRec (Li, Sun, Li 2023): a Transformer that reconstructs the next item's embedding from noise and a history.

DiffuRecSys (Zolghadr, Winther, Jeha 2024) is the same model with two settings changed: `cross_attention`, here, and
`offset_noise`, in diffusion.py.
"""

import math
import reprlib
from dataclasses import replace
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .checks import whole
from .config import PRECISIONS, ModelConfig
from .diffusion import GaussianDiffusion
from .fast import (
    Dropout, FeedForward, TanhGELU, catalogue_cross_entropy, fast_matmul, in_parts, item_chunks, softmax,
    warn_of_emulated_bfloat16,
)

ACTIVATIONS = {"gelu": TanhGELU, "relu": nn.ReLU}


class Attention(nn.Module):
    """Multi-head scaled dot-product attention: queries [B, Q, d], keys and values from memory [B, L, d] -> [B, Q, d]."""

    def __init__(self, hidden_size, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key_value = nn.Linear(hidden_size, 2 * hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)
        nn.init.xavier_normal_(self.out.weight)

    def _heads(self, queries, memory, key_mask):
        """Queries [B, H, Q, d/H], keys and values [B, H, L, d/H], and the mask for all queries [B, 1, 1, L] or None."""
        split = lambda x: x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # noqa: E731  [B, ., d] -> [B, H, ., d/H]
        key, value = self.key_value(memory).chunk(2, dim=-1)
        mask = None if key_mask is None else key_mask[:, None, None, :]
        return split(self.query(queries)), split(key), split(value), mask

    def forward(self, queries, memory, key_mask=None):
        """key_mask: [B, L] bool, True where a key may be attended to; None where every key may."""
        query, key, value, mask = self._heads(queries, memory, key_mask)
        if query.device.type != "cpu":
            heads = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        else:                                                                    # PyTorch's fused one is slow on a CPU
            heads = self._softmax(query, key, mask) @ value
        return self.out(heads.transpose(1, 2).flatten(2))

    @staticmethod
    def _softmax(query, key, mask):
        scores = query / math.sqrt(query.shape[-1]) @ key.transpose(2, 3)
        return softmax(scores if mask is None else scores.masked_fill(~mask, -math.inf))

    def weights(self, queries, memory, key_mask=None):
        """softmax(q . k / sqrt(d/H)), what `forward` weighs the values by: [B, H, Q, L], each row adding up to 1."""
        query, key, _, mask = self._heads(queries, memory, key_mask)
        return self._softmax(query, key, mask)


class Block(nn.Module):
    """Pre-LayerNorm Transformer block: x + attention(LN x), then x + feed-forward(LN x)."""

    def __init__(self, config):
        super().__init__()
        d = config.hidden_size
        self.attention_norm = nn.LayerNorm(d, eps=1e-12)
        self.attention = Attention(d, config.num_heads)
        self.feed_forward_norm = nn.LayerNorm(d, eps=1e-12)
        self.feed_forward = FeedForward(nn.Linear(d, 4 * d), ACTIVATIONS[config.activation](), nn.Linear(4 * d, d))
        self.dropout = Dropout(config.dropout)
        nn.init.xavier_normal_(self.feed_forward[0].weight)
        nn.init.xavier_normal_(self.feed_forward[2].weight)

    def forward(self, x, key_mask=None, last_only=False):
        """[B, L, d] -> [B, L, d]; with last_only -> [B, 1, d]: only the last position asks, all positions answer."""
        memory = self.attention_norm(x)
        x, queries = (x[:, -1:], memory[:, -1:]) if last_only else (x, memory)
        x = x + self.dropout(self.attention(queries, memory, key_mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class StepEmbedding(nn.Module):
    """d_s: sinusoids of the rescaled step (cosines first), then Linear - SiLU - Linear. [B] -> [B, d]."""

    def __init__(self, hidden_size, num_steps, max_period=10_000):
        super().__init__()
        self.scale = 1000 / num_steps
        half = hidden_size // 2
        frequencies = torch.exp(-math.log(max_period) * torch.arange(half) / half)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.mlp = nn.Sequential(
            nn.Linear(hidden_size, 4 * hidden_size), nn.SiLU(), nn.Linear(4 * hidden_size, hidden_size)
        )

    def forward(self, t):
        angles = t.unsqueeze(-1) * self.scale * self.frequencies                # [B, d/2]
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))


class Approximator(nn.Module):
    """f: the item distributions z_1..z_n [B, L, d] -> x_0_hat [B, d], the last position's output.

    Attention is bidirectional and there are no positions, so only the last item's place matters.
    """

    def __init__(self, config):
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.dropout = Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.hidden_size, eps=1e-12)

    def forward(self, z, key_mask=None):
        for block in self.blocks[:-1]:
            z = block(z, key_mask)
        last = self.blocks[-1](z, key_mask, last_only=True).squeeze(1)           # no other position is read
        return self.norm(self.dropout(last))


class Ensemble(NamedTuple):
    """E predictions for each of B histories, and what makes a distribution over the catalogue of each one's scores."""

    x_start: torch.Tensor         # [B, E, d]
    log_normalizer: torch.Tensor  # [B, E], log sum_j exp(x_0 . e_j)


class DiffuRec(nn.Module):
    """The whole model over a catalogue of `num_items` items, numbered from 1; 0 is padding, never scored.

    Weights are drawn from torch's global random numbers: call torch.manual_seed before for a repeatable model.
    """

    def __init__(self, num_items, config=ModelConfig()):
        super().__init__()
        self.num_items, self.config = whole(num_items, "num_items"), config
        self.numbering = None       # `Dataset.numbering` of the data it was trained on; None: not trained
        d = config.hidden_size
        self.item_embedding = nn.Embedding(num_items + 1, d, padding_idx=0)
        nn.init.normal_(self.item_embedding.weight, std=config.embedding_std)
        with torch.no_grad():
            self.item_embedding.weight[0] = 0
        self.history_dropout = Dropout(config.embedding_dropout)
        self.history_norm = nn.LayerNorm(d, eps=1e-12)
        self.diffusion = GaussianDiffusion(
            config.num_diffusion_steps, config.noise_schedule, config.offset_noise, config.offset_strength
        )
        self.step_embedding = StepEmbedding(d, config.num_diffusion_steps)
        self.approximator = Approximator(config)
        # Last, so that the other weights start alike with and without it.
        self.cross_attention = Attention(d, config.num_heads) if config.cross_attention else None
        self.cross_dropout = Dropout(config.dropout)

    @property
    def device(self):
        return self.item_embedding.weight.device

    @property
    def max_length(self):
        return self.config.max_length

    def embed_history(self, histories):
        """Left-padded item ids [B, L] -> (e_1..e_n [B, L, d], key mask [B, L] or None if there is no padding)."""
        embedded = self.history_norm(self.history_dropout(self.item_embedding(histories)))
        key_mask = histories != 0
        return embedded, None if bool(key_mask[:, 0].all()) else key_mask        # left-padded: column 0 tells

    def draw_lambda(self, shape, generator=None):
        """l_i ~ N(delta, delta), elementwise; delta is mean and standard deviation."""
        delta = self.config.lambda_uncertainty
        noise = torch.randn(shape, generator=generator, device=self.device, dtype=self.item_embedding.weight.dtype)
        return noise.add_(1).mul_(delta)

    def item_distributions(self, embedded, key_mask, x_t, t, lambda_):
        """z_1..z_n, where the noisy target meets the history. embedded, lambda_: [B, L, d]; x_t: [B, d]; t: [B] -> [B, L, d].

        The sum (Li et al. 2023): z_i = e_i + l_i (x_s + d_s).
        Cross-attention (Zolghadr et al. 2024, eq. 16): z_i = e_i + CrossAttention(query l_i (x_s + d_s), keys and values
        e_1..e_n). The equation leaves open which is which; the target asks and the history answers, as in the released
        code, because with the target as the only key the softmax would be 1 and nothing would be weighed. It leaves
        open a residual too. There is one, around the history: the queries of two positions differ by their l alone, so
        that without e_i all z_i would be nearly one vector, and nothing would tell which item was the last. Eq. 16
        stands where the sum stood, before the blocks, so that each block reads the one before it and learns (in the
        released code each reads the history again, and only the last one is used). Attention is the scaled dot-product
        softmax over the items, and padding is masked.
        """
        target = (x_t + self.step_embedding(t)).unsqueeze(1)                     # [B, 1, d]
        if self.cross_attention is None:
            return torch.addcmul(embedded, lambda_, target)
        return embedded + self.cross_dropout(self.cross_attention(lambda_ * target, embedded, key_mask))

    def predict_x_start(self, embedded, key_mask, x_t, t, lambda_):
        """x_0_hat = f(z_1..z_n). embedded, lambda_: [B, L, d]; x_t: [B, d]; t: [B] -> [B, d]."""
        return self.approximator(self.item_distributions(embedded, key_mask, x_t, t, lambda_), key_mask)

    @torch.no_grad()
    def cross_attention_weights(self, histories, x_t, t, generator=None):
        """How much each position asks of each item of the history: [B, H, L, L], rows adding up to 1, padding 0.

        histories: [B, L] left-padded ids; x_t: [B, d]; t: [B]. Call model.eval() before, or dropout has its say.
        ValueError for a model without cross-attention.
        """
        if self.cross_attention is None:
            raise ValueError("This model has no cross-attention; make it with ModelConfig(cross_attention=True).")
        embedded, key_mask = self.embed_history(histories)
        target = (x_t + self.step_embedding(t)).unsqueeze(1)
        queries = self.draw_lambda(embedded.shape, generator) * target
        return self.cross_attention.weights(queries, embedded, key_mask)

    def forward(self, histories, targets, t, noise, generator=None):
        """Cross-entropy of x_0_hat . e_j over the catalogue, per example: [B].

        histories: [B, L] left-padded ids; targets: [B] ids; t: [B] in 0..T-1; noise: [B, d].
        x_0 is the target's embedding, as in the released code (the paper draws it around sqrt(a_0) e).
        """
        embedded, key_mask = self.embed_history(histories)
        x_t = self.diffusion.q_sample(self.item_embedding(targets), t, noise)
        x_start = self.predict_x_start(embedded, key_mask, x_t, t, self.draw_lambda(embedded.shape, generator))
        return catalogue_cross_entropy(x_start, self.item_embedding.weight, targets)

    @torch.no_grad()
    @fast_matmul()
    def predict(self, histories, num_steps=None, generator=None, ensemble=None, precision="float32"):
        """The reverse process: left-padded ids [B, L] -> reconstructed target embeddings x_0 [B, d].

        With `ensemble` = E it is run E times, in a single step unless num_steps says otherwise (Zolghadr et al. 2024,
        Algorithm 3) -> Ensemble.
        With `precision` "bfloat16" the Approximator's products are in 16 bits; x_t and what is returned are not.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, but it is {precision!r}.")
        warn_of_emulated_bfloat16(precision, self.device)
        embedded, key_mask = self.embed_history(histories)

        def predict_x_start(x_t, t):
            lambda_ = self.draw_lambda(embedded.shape, generator)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                return in_parts(self.predict_x_start, embedded, key_mask, x_t, t, lambda_)

        def sample(num_steps):
            x_t = torch.randn(
                (len(histories), self.config.hidden_size), generator=generator, device=self.device, dtype=embedded.dtype
            )
            return self.diffusion.p_sample_loop(predict_x_start, x_t, num_steps, generator)

        if ensemble is None:
            return sample(num_steps)
        ensemble = whole(ensemble, "ensemble")
        num_steps = 1 if num_steps is None else num_steps
        x_start = torch.stack([sample(num_steps) for _ in range(ensemble)], dim=1)  # [B, E, d]
        log_normalizer = torch.full(x_start.shape[:2], -math.inf, dtype=x_start.dtype, device=self.device)
        for first, last in item_chunks(self.num_items):
            chunk = torch.stack([self.score_items(x, first, last).logsumexp(1) for x in x_start.unbind(1)], dim=1)
            log_normalizer = torch.logaddexp(log_normalizer, chunk)
        return Ensemble(x_start, log_normalizer)

    @torch.no_grad()
    def score_items(self, prediction, first, last):
        """Scores of the items first..last-1 -> [B, last - first].

        Rounding, for a prediction [B, d]: x_0 . e_j. For an Ensemble: the log of the mean over its members of
        softmax_j(x_0 . e_j), which ranks as the mean does and does not underflow.
        """
        if not isinstance(prediction, Ensemble):
            return prediction @ self.item_embedding.weight[first:last].T
        members = zip(prediction.x_start.unbind(1), prediction.log_normalizer.unbind(1))
        log_shares = (self.score_items(x, first, last) - z.unsqueeze(1) for x, z in members)
        return reduce(torch.logaddexp, log_shares) - math.log(prediction.x_start.shape[1])

    @fast_matmul()
    def recommend(self, histories, k=None, num_steps=None, generator=None, ensemble=None):
        """The k best items per history and their scores x_0 . e_j: ([B, k] ids, [B, k]), best first.

        histories: a list of id sequences of any lengths (the latest `max_length` count), or a tensor or array [B, L],
        left-padded with 0. k: None takes 20, or all items of a smaller catalogue. Items already in the history are not
        removed, as in the evaluation of the papers.
        ensemble=E averages the distributions over the catalogue of E predictions, in one step each unless num_steps
        says otherwise (Algorithm 3); the scores are then logs of mean probabilities.
        Runs in evaluation mode. ValueError for empty or all-padding histories, ids that are no whole numbers in
        1..num_items, or a k that is none; FloatingPointError for scores that are not finite.
        """
        k = min(20, self.num_items) if k is None else whole(k, "k, of the items of the catalogue,", most=self.num_items)
        histories = self._left_padded(histories)
        training = self.training
        self.eval()
        try:
            prediction = self.predict(histories, num_steps, generator, ensemble)
        finally:
            self.train(training)
        scores = torch.empty(len(histories), 0, device=self.device)
        items = torch.empty(len(histories), 0, dtype=torch.long, device=self.device)
        for first, last in item_chunks(self.num_items):
            chunk = self.score_items(prediction, first, last)
            if not torch.stack(chunk.aminmax()).isfinite().all():                # the extremes are NaN if any is
                raise FloatingPointError("The model gives scores that are not finite; it cannot recommend.")
            best, index = chunk.topk(min(k, chunk.shape[1]), dim=1)
            scores, items = torch.cat([scores, best], dim=1), torch.cat([items, index + first], dim=1)
            scores, index = scores.topk(min(k, scores.shape[1]), dim=1)
            items = items.gather(1, index)
        return items, scores

    def _left_padded(self, histories):
        """Checks histories and left-pads them to [B, L], L the longest but at most max_length."""
        padded = isinstance(histories, (torch.Tensor, np.ndarray))
        rows = [row.numpy(force=True) if isinstance(row, torch.Tensor) else row for row in histories]
        if not rows:
            raise ValueError("histories is empty; give at least one history.")
        for user, row in enumerate(rows):
            try:
                ids = np.asarray(row)
            except ValueError:                                                   # sequences within a sequence
                ids = np.asarray(row, dtype=object)
            if ids.ndim != 1 or ids.size and ids.dtype.kind not in "iu":
                raise ValueError(f"History {user} must be a sequence of whole item ids, but it is {reprlib.repr(row)}.")
            if ids.size and (ids.min() < 0 or ids.max() > self.num_items):
                raise ValueError(
                    f"History {user} holds an item id outside 1..{self.num_items} "
                    f"(smallest {ids.min()}, largest {ids.max()}); ids are those of the data set the model knows."
                )
            if not ids.any():
                raise ValueError(f"History {user} holds no item; a recommendation needs at least one.")
            ids = np.trim_zeros(ids, "f") if padded else ids
            if not ids.all():
                raise ValueError(
                    f"History {user} holds the id 0, which is no item but the padding of a tensor's rows, on their "
                    "left alone; leave it out."
                )
            rows[user] = torch.from_numpy(ids[-self.max_length:].astype(np.int64))
        length = max(len(row) for row in rows)
        return torch.stack([F.pad(row, (length - len(row), 0)) for row in rows]).to(self.device)


class DiffuRecSys(DiffuRec):
    """DiffuRecSys (Zolghadr, Winther, Jeha 2024): DiffuRec with cross-attention and offset noise, whatever else `config` says.

    A reading of offset noise that `config` names is kept; otherwise it is the paper's, "constant".
    """

    def __init__(self, num_items, config=ModelConfig()):
        reading = "constant" if config.offset_noise == "none" else config.offset_noise
        super().__init__(num_items, replace(config, cross_attention=True, offset_noise=reading))
