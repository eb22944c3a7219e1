"""A DiffuRec that hears its noisy target: what 17_a_diffusion_that_listens.ipynb changes, each as a class of a few lines.

B  histories of a batch, of L positions     x_s  the noisy target, [B, d], in tensors x_t; s is t + 1
d  hidden size                              e    an item's embedding, [d]; e_n that of the last item of a history
"""

import torch
import torch.nn.functional as F
from torch import nn

from diffurec.fast.forms import DiffuRec


class TokenDiffuRec(DiffuRec):
    """The noisy target as one more token behind the history, with the output read there: e_1 + p_1, ..., x_s + d_s + p_{n+1}.

    Attention looks both ways, so that without the places p nothing would tell which item was the last.
    scaled: x_0 is as long as noise, sqrt(d), and not as long as an embedding happens to be.
    dropped: the share of the training examples that lose their history, so that guidance has an f(x, nothing).
    """

    def __init__(self, num_items, config, scaled=False, dropped=0.0):
        super().__init__(num_items, config)
        self.scaled, self.dropped = scaled, dropped
        self.places = nn.Parameter(config.embedding_std * torch.randn(config.max_length + 1, config.hidden_size))

    def x_0(self, items):
        embeddings = self.item_embedding(items)                                  # [..., d]
        return F.normalize(embeddings, dim=-1) * embeddings.shape[-1] ** 0.5 if self.scaled else embeddings

    def predict_x_start(self, embedded, key_mask, x_t, t, lambda_=None):
        tokens = torch.cat([embedded, self._noisy_target(x_t, t)], dim=1)        # [B, L + 1, d]
        heard = key_mask if key_mask is None else F.pad(key_mask, (0, 1), value=True)    # the target always
        return self.approximator(tokens + self.places[-tokens.shape[1]:], heard)  # [B, d]

    def forward(self, histories, targets, t, noise, generator=None):
        if self.training and self.dropped:
            histories = histories.masked_fill(torch.rand(len(histories), 1) < self.dropped, 0)
        x_t = self.diffusion.q_sample(self.x_0(targets), t, noise)               # [B, d]
        return self.cross_entropy(self.predict_x_start(*self.embed_history(histories), x_t, t), targets)

    @torch.no_grad()
    def predict(self, histories, num_steps=None, generator=None, guidance=0.0, mean=False):
        """As DiffuRec's: [B, d]. guidance: w of (1 + w) f(x, h) - w f(x, nothing). mean: each step takes for its x_0_hat
        the mean of x_0 under the softmax over the items, which has the length of what was trained on."""
        seen, nothing = self.embed_history(histories), self.embed_history(torch.zeros_like(histories))
        everything = self.x_0(torch.arange(1, self.num_items + 1))               # [I, d]

        def predict_x_start(x_t, t):
            self.latest = self.predict_x_start(*seen, x_t, t)                    # [B, d]
            if guidance:
                self.latest = (1 + guidance) * self.latest - guidance * self.predict_x_start(*nothing, x_t, t)
            return self.score_items(self.latest, 1, self.num_items + 1).softmax(1) @ everything if mean else self.latest

        x_T = torch.randn(len(histories), self.config.hidden_size, generator=generator)
        self.diffusion.p_sample_loop(predict_x_start, x_T, num_steps, generator)
        return self.latest                                                       # before any mean: what is ranked by


class KnownDiffuRec(DiffuRec):
    """Causal. In prediction the earlier positions hear what they heard in training, their next items, now without noise."""

    @torch.no_grad()
    def predict(self, histories, num_steps=None, generator=None):
        embedded, key_mask = self.embed_history(histories)
        known = self.item_embedding(histories[:, 1:])                            # [B, L - 1, d]

        def predict_x_start(x_t, t):
            targets = torch.cat([known, x_t.unsqueeze(1)], dim=1)                # [B, L, d]
            steps = F.pad(t.unsqueeze(1), (known.shape[1], 0))                   # [B, L], 0 but for the last
            return self.predict_x_start(embedded, key_mask, targets, steps, self.draw_lambda(embedded.shape, generator))[:, -1]

        x_T = torch.randn(len(histories), self.config.hidden_size, generator=generator)
        return self.diffusion.p_sample_loop(predict_x_start, x_T, num_steps, generator)


class OneNoiseDiffuRec(DiffuRec):
    """Causal. All positions of a window share a step and its noise; in prediction they share x_s, as DiffuRec has it."""

    def draw_for_training(self, shape, generator):
        t, noise = super().draw_for_training((shape[0], 1), generator)
        return t.expand(shape), noise.expand(*shape, -1)


class SquaredDiffuRec(DiffuRec):
    """The squared error to the target's embedding, which is itself trained, in the place of the cross-entropy."""

    def cross_entropy(self, x_start, targets):
        return (x_start - self.item_embedding(targets)).square().sum(-1)         # [B]
