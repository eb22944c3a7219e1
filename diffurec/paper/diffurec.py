"""DiffuRec [1]: a Transformer that reconstructs the next item's embedding from noise and a history. Then DiffuRecSys [2].

DiffuRecSys is the same model with two settings changed: `cross_attention`, here, and `offset_noise`, in diffusion.py.
With `attention="causal"` one pass trains all K prefixes of a history, each with a target, step and noise of its own, as
in ADRec [3] (Chen, Xu, Jiang 2025); the weights and the prediction are those of any DiffuRec.

e_i  an item's embedding, [d]             x_s  the target's embedding after s steps of noise, [B, d]; x_0 without
d_s  the embedding of the step, [d]       l_i  ~ N(delta, delta), how much of the target an item gets, [B, L, d]
z_i  item distribution, [B, L, d]         f    the Approximator, x_0_hat = f(z_1..z_n), [B, d]
"""

import math
from dataclasses import replace
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..base.checks import whole
from .approximator import Approximator, Attention, StepEmbedding
from .config import PRECISIONS, ModelConfig, Precision
from .diffusion import GaussianDiffusion
from .sequence import SequenceModel, causal_mask


class Ensemble(NamedTuple):
    """E predictions for each of B histories, and what makes a distribution over the catalogue of each one's scores."""

    x_start: Tensor         # [B, E, d]
    log_normalizer: Tensor  # [B, E], log sum_j exp(x_0 . e_j)


class DiffuRec(SequenceModel):
    """The whole model; see SequenceModel for the catalogue and the random numbers of its weights."""

    def __init__(self, num_items: int, config: ModelConfig = ModelConfig()):
        if config.network != "diffurec":
            raise ValueError(f"These are settings of the network {config.network!r}: build_model(num_items, config) makes it.")
        super().__init__(num_items, config)
        d = config.hidden_size
        self.diffusion = GaussianDiffusion(
            config.num_diffusion_steps, config.noise_schedule, config.offset_noise, config.offset_strength
        )
        self.step_embedding = StepEmbedding(d, config.num_diffusion_steps)       # d_s
        self.approximator = Approximator(config)                                 # f
        # Last, so that the other weights start alike with and without it.
        self.cross_attention = Attention(d, config.num_heads) if config.cross_attention else None
        self.cross_dropout = nn.Dropout(config.dropout)

    def embed_history(self, histories: Tensor) -> tuple[Tensor, Tensor | None]:
        """Padded item ids [B, L] -> (e_1..e_n [B, L, d], key mask [B, L], True at items; fast: None where all are).

        Causal: the mask is [B, L, L], True where a query may see a key: items up to its own place, and itself.
        """
        key_mask = causal_mask(histories) if self.config.attention == "causal" else histories != 0
        return self.history_norm(self.history_dropout(self.item_embedding(histories))), key_mask

    def draw_lambda(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """l_i ~ N(delta, delta), elementwise; delta is mean and standard deviation."""
        delta = self.config.lambda_uncertainty                                   # 0.001: the target is hardly heard
        noise = torch.randn(shape, generator=generator, device=self.device, dtype=self.item_embedding.weight.dtype)
        return noise.add_(1).mul_(delta)                                         # delta (1 + noise)

    def _noisy_target(self, x_t: Tensor, t: Tensor) -> Tensor:
        target = x_t + self.step_embedding(t)                                    # x_s + d_s: [B, d], or [B, L, d]
        return target if target.dim() == 3 else target.unsqueeze(1)              # [B, 1, d]: the same for all positions

    def item_distributions(
        self, embedded: Tensor, key_mask: Tensor | None, x_t: Tensor, t: Tensor, lambda_: Tensor
    ) -> Tensor:
        """z_1..z_n, where the noisy target meets the history. embedded, lambda_: [B, L, d]; x_t: [B, d]; t: [B] -> [B, L, d].
        With x_t: [B, L, d] and t: [B, L] each position has a target of its own.

        The sum [1]: z_i = e_i + l_i (x_s + d_s).
        Cross-attention [2]: z_i = e_i + CrossAttention(query l_i (x_s + d_s), keys and values
        e_1..e_n). The equation leaves open which is which; the target asks and the history answers, as in the released
        code, because with the target as the only key the softmax would be 1 and nothing would be weighed. It leaves
        open a residual too. There is one, around the history: the queries of two positions differ by their l alone, so
        that without e_i all z_i would be nearly one vector, and nothing would tell which item was the last. Eq. 16
        stands where the sum stood, before the blocks, so that each block reads the one before it and learns (in the
        released code each reads the history again, and only the last one is used). Attention is the scaled dot-product
        softmax over the items, and padding is masked.
        """
        target = self._noisy_target(x_t, t)                                      # [B, 1, d]
        if self.cross_attention is None:
            return torch.addcmul(embedded, lambda_, target)                      # [2] eq. 15: e_i + l_i (x_s + d_s)
        asked = self.cross_attention(lambda_ * target, embedded, key_mask)       # [2] eq. 16: one query per position
        return embedded + self.cross_dropout(asked)                              # [B, L, d], around the history

    def predict_x_start(
        self, embedded: Tensor, key_mask: Tensor | None, x_t: Tensor, t: Tensor, lambda_: Tensor
    ) -> Tensor:
        """x_0_hat = f(z_1..z_n). embedded, lambda_: [B, L, d]; x_t: [B, d]; t: [B] -> [B, d].

        With x_t: [B, L, d] and t: [B, L], a target for each position -> [B, L, d], the output of each.
        """
        z = self.item_distributions(embedded, key_mask, x_t, t, lambda_)         # [B, L, d]
        return self.approximator(z, key_mask, every=True) if x_t.dim() == 3 else self.approximator(z, key_mask)

    @torch.no_grad()
    def cross_attention_weights(
        self, histories: Tensor, x_t: Tensor, t: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """How much each position asks of each item of the history: [B, H, L, L], rows adding up to 1, padding 0.

        histories: [B, L] left-padded ids; x_t: [B, d]; t: [B]. Call model.eval() before, or dropout has its say.
        ValueError for a model without cross-attention.
        """
        if self.cross_attention is None:
            raise ValueError("This model has no cross-attention; make it with ModelConfig(cross_attention=True).")
        embedded, key_mask = self.embed_history(histories)
        queries = self.draw_lambda(embedded.shape, generator) * self._noisy_target(x_t, t)
        return self.cross_attention.weights(queries, embedded, key_mask)         # [B, H, L, L]

    def draw_for_training(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A step and noise for each target: t in 0..T-1 [*shape] and [*shape, d]."""
        t = torch.randint(self.diffusion.num_steps, shape, generator=generator, device=self.device)
        return t, self.diffusion.draw_noise((*shape, self.config.hidden_size), generator)

    def forward(                                                                 # [2] Algorithm 1: training
        self, histories: Tensor, targets: Tensor, t: Tensor, noise: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Cross-entropy of x_0_hat . e_j over the catalogue, per example: [B].

        histories: [B, L] left-padded ids; targets: [B] ids; t: [B] in 0..T-1; noise: [B, d].
        x_0 is the target's embedding, as in the released code (the paper draws it around sqrt(a_0) e).

        Every prefix at once, for a causal model: histories [B, L], padded on the right; targets [B, L], the item after
        each position, 0 at padding; t: [B, L]; noise: [B, L, d] -> [P], one loss for each of the P targets, row by row.
        ValueError for such targets and a model that is not causal: it would see them in its history.
        """
        if targets.dim() == 2 and self.config.attention != "causal":
            raise ValueError('A target for each position needs ModelConfig(attention="causal"); this model sees later items.')
        embedded, key_mask = self.embed_history(histories)                       # [B, L, d], [B, L]
        x_start = self.item_embedding(targets)                                   # [2] eq. 19: x_0, [B, d]
        x_t = self.diffusion.q_sample(x_start, t, noise)                         # [B, d]
        x_start_hat = self.predict_x_start(embedded, key_mask, x_t, t, self.draw_lambda(embedded.shape, generator))
        if targets.dim() == 2:
            x_start_hat, targets = x_start_hat[targets != 0], targets[targets != 0]     # [P, d], [P]: no scores at padding
        return self.cross_entropy(x_start_hat, targets)                          # [B]

    @torch.no_grad()
    def predict(                                                                 # [2] Algorithm 2: the reverse process
        self, histories: Tensor, num_steps: int | None = None, generator: torch.Generator | None = None,
        ensemble: int | None = None, precision: Precision = "float32",
    ) -> Tensor | Ensemble:
        """The reverse process: left-padded ids [B, L] -> reconstructed target embeddings x_0 [B, d].

        With `ensemble` = E it is run E times, in a single step unless num_steps says otherwise ([2], Algorithm 3)
        -> Ensemble.
        With `precision` "bfloat16" the Approximator's products are in 16 bits; x_t and what is returned are not.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, but it is {precision!r}.")
        embedded, key_mask = self.embed_history(histories)                       # [B, L, d], once for all steps

        def predict_x_start(x_t: Tensor, t: Tensor) -> Tensor:
            lambda_ = self.draw_lambda(embedded.shape, generator)                # a new one at each step
            with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                return self.predict_x_start(embedded, key_mask, x_t, t, lambda_)

        def sample(num_steps: int | None) -> Tensor:
            shape = len(histories), self.config.hidden_size
            x_t = torch.randn(shape, generator=generator, device=self.device, dtype=embedded.dtype)     # x_T ~ N(0, I)
            return self.diffusion.p_sample_loop(predict_x_start, x_t, num_steps, generator)

        if ensemble is None:
            return sample(num_steps)
        num_steps = 1 if num_steps is None else num_steps                        # one is enough where the steps agree
        members = [sample(num_steps) for _ in range(whole(ensemble, "ensemble"))]   # [2] Algorithm 3: each from its own x_T
        return Ensemble(torch.stack(members, dim=1), torch.stack([self.log_normalizer(x) for x in members], dim=1))

    def log_normalizer(self, x_start: Tensor) -> Tensor:
        """log sum_j exp(x_0 . e_j) over the catalogue: [B, d] -> [B]."""
        return self.score_items(x_start, 1, self.num_items + 1).logsumexp(1)

    @torch.no_grad()
    def score_items(self, prediction: Tensor | Ensemble, first: int, last: int) -> Tensor:
        """Scores of the items first..last-1 -> [B, last - first].

        Rounding, for a prediction [B, d]: x_0 . e_j. For an Ensemble: the log of the mean over its members of
        softmax_j(x_0 . e_j), which ranks as the mean does and does not underflow.
        """
        if not isinstance(prediction, Ensemble):
            return super().score_items(prediction, first, last)
        members = zip(prediction.x_start.unbind(1), prediction.log_normalizer.unbind(1))
        log_shares = (self.score_items(x, first, last) - z.unsqueeze(1) for x, z in members)  # log softmax, [B, .] each
        return reduce(torch.logaddexp, log_shares) - math.log(prediction.x_start.shape[1])  # log of their mean


class DiffuRecSys(DiffuRec):
    """DiffuRecSys [2]: DiffuRec with cross-attention and offset noise, whatever else `config` says.

    A reading of offset noise that `config` names is kept; otherwise it is the paper's, "constant".
    """

    def __init__(self, num_items: int, config: ModelConfig = ModelConfig()):
        reading = "constant" if config.offset_noise == "none" else config.offset_noise
        super().__init__(num_items, replace(config, cross_attention=True, offset_noise=reading))
