"""What the released codes do and the papers do not say: each quirk alone, as one change to diffurec's classes.

The letters are those of 13_paper_against_code.ipynb. DiffuRec is the code of Li et al. 2023 (WHUIR/DiffuRec),
DiffuRecSys that of Zolghadr et al. 2024 (shararezr/DiffuRecSys). Letters that are not here need no class: (c),
(d), (h) and (l) are in the module too, (m) is offset_noise="elementwise", (o) is embedding_std=1.0, and (e)
and (g) are functions in the notebook.
"""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F

from diffurec import Dataset, DiffuRec, leave_one_out, per_user, tied_ranks
from diffurec.data import length_batches
from diffurec.evaluation import crossed_test, least_difference
from diffurec.fast import install
from diffurec.paper import Approximator, Attention, Block


class QueryMaskedAttention(Attention):
    """(a) DiffuRec: the mask fills the rows of the queries that are padding; no key is masked."""

    def shares(self, query, key, key_mask):
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])        # [B, H, Q, L]
        if key_mask is not None:
            rows = key_mask[:, None, -query.shape[2]:, None]                     # [B, 1, Q, 1]
            scores = scores.masked_fill(~rows, -1e9)  # all keys alike: softmax is uniform
        return scores.softmax(-1)


class ZeroIsAnItem(DiffuRec):
    """(b) DiffuRec: index 0, the padding, has a row like every item; the softmax of the loss runs over it too."""

    def forward(self, histories, targets, t, noise, generator=None):
        embedded, key_mask = self.embed_history(histories)
        x_t = self.diffusion.q_sample(self.item_embedding(targets), t, noise)
        x_start = self.predict_x_start(embedded, key_mask, x_t, t, self.draw_lambda(embedded.shape, generator))
        logits = x_start @ self.item_embedding.weight.T                          # [B, 1 + num_items]
        return F.cross_entropy(logits, targets, reduction="none")


class TwiceDroppedBlock(Block):
    """(i) DiffuRec: after the dropout of its sublayers the block drops its output, the residual stream, once more."""

    def forward(self, x, key_mask=None):
        return self.dropout(super().forward(x, key_mask))


class LastBlockOnly(Approximator):
    """(j) DiffuRecSys: every block receives the original history, and only the last block's output is used."""

    def forward(self, z, key_mask=None):
        for block in self.blocks:
            hidden = block(z, key_mask)                                          # not block(hidden, ...)
        return self.norm(self.dropout(hidden[:, -1]))


class LinearCrossAttention(Attention):
    """(k) DiffuRecSys: softmax over a query's features and over the keys' heads; -1e9 in padded rows of the output."""

    def forward(self, queries, memory, key_mask=None):
        query, key, value = self.project(queries, memory)                        # [B, H, L, d/H]
        context = key.softmax(1).transpose(2, 3) @ value  # [B, H, d/H, d/H], a sum over L, padding too
        hidden = query.softmax(-1) @ context                                     # [B, H, L, d/H]
        if key_mask is not None:
            hidden = hidden.masked_fill(~key_mask[:, None, :, None], -1e9)
        return self.out(hidden.transpose(1, 2).flatten(2))


def switch_on(letter, model):
    """A copy of the model, the same weights, with quirk a, b, i, j or k."""
    model = copy.deepcopy(model)
    blocks = model.approximator.blocks
    modules, kind = {
        "a": ([block.attention for block in blocks], QueryMaskedAttention),
        "b": ([model], ZeroIsAnItem),
        "i": (blocks, TwiceDroppedBlock),
        "j": ([model.approximator], LastBlockOnly),
        "k": ([model.cross_attention], LinearCrossAttention),
    }[letter]
    for module in modules:
        module.__class__ = kind  # another forward over the same weights
    if letter == "b":
        model.item_embedding.padding_idx = None  # so that it gets a gradient as an input
        torch.nn.init.normal_(model.item_embedding.weight.data[0], std=model.config.embedding_std)
    return model


METRICS = ["HR@5", "HR@10", "HR@20", "NDCG@5", "NDCG@10", "NDCG@20"]


def kept_by_any(log):
    """(f) DiffuRec: the last epoch at which any of six validation metrics rose above its best so far."""
    best, kept = dict.fromkeys(METRICS, 0.0), None
    for entry in (e for e in log if e["validation"]):
        rose = [m for m in METRICS if entry["validation"][m] > best[m]]
        best |= {m: entry["validation"][m] for m in rose}
        kept = entry["epoch"] if rose else kept
    return kept


def cut_into_pieces(data, least, most, count, seed=0):
    """`count` sequences of `least` to `most` items, cut one after the other from the users' sequences."""
    generator, pieces = np.random.default_rng(seed), []
    for sequence in data.sequences:
        start = 0
        while len(sequence) - start >= least:
            length = generator.integers(least, most + 1)
            pieces.append(sequence[start:start + length])
            start += length
    pieces = [p for p in pieces if len(p) >= least]
    drawn = [pieces[i] for i in np.sort(generator.choice(len(pieces), count, replace=False))]
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in drawn])])
    return Dataset(
        f"pieces of {data.name}", data.num_items, np.concatenate(drawn), offsets, numbered_as=data.numbering)


def fit(model, data, seed, epochs, batch_size=128, learning_rate=5e-3, trim=False):
    """Trains in place with the fast forms for a fixed number of epochs; histories are padded to max_length, as in the
    released codes. trim: histories of like lengths share a batch and are padded to its longest."""
    examples = leave_one_out(data, "train", model.max_length)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    generator = torch.Generator().manual_seed(seed)                              # order, steps and noise
    torch.manual_seed(seed)                                                      # lambda and dropout
    install(model).train()
    for _ in range(epochs):
        batches = (length_batches(examples.lengths, batch_size, generator) if trim else
                   torch.randperm(len(examples), generator=generator).split(batch_size))
        for index in batches:
            histories, targets = examples.gather(index, int(examples.lengths[index].max()) if trim else model.max_length)
            t = torch.randint(model.diffusion.num_steps, (len(index),), generator=generator)
            noise = model.diffusion.draw_noise((len(index), model.config.hidden_size), generator)
            optimizer.zero_grad(set_to_none=True)
            model(histories, targets, t, noise).mean().backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def test_ranks(model, data, seed=0, num_steps=1):
    """First and last places of the test targets [U, 2], histories padded, nothing dropped; (b) ranks index 0 too."""
    model.eval()
    examples = leave_one_out(data, "test", model.max_length).to(model.device)
    histories, targets = examples.gather(torch.arange(len(examples), device=model.device), model.max_length)
    x_0 = model.predict(histories, num_steps, torch.Generator(model.device).manual_seed(seed))
    ranks = tied_ranks(model, x_0, targets)
    if isinstance(model, ZeroIsAnItem):
        ranks += (x_0 @ model.item_embedding.weight[0] > (x_0 * model.item_embedding(targets)).sum(1)).unsqueeze(1)
    return ranks.cpu().numpy()


def fitted_ranks(make, data, seeds=(0, 1, 2)):
    """Test ranks [U, 2] of the model that `make()` returns after three epochs, for each seed."""
    ranks = []
    for seed in seeds:
        torch.manual_seed(seed)
        ranks.append(test_ranks(fit(make(), data, seed, epochs=3), data, seed))
    return ranks


def difference(ranks, others, metric="NDCG@10"):
    """What `crossed_test` finds from two lists of ranks, seed by seed, in percentage points; and that as a sentence."""
    found = crossed_test([100 * (per_user(a)[metric] - per_user(b)[metric]) for a, b in zip(ranks, others)])
    least = least_difference(found.error, found.degrees)
    return found, (f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}] percentage points of {metric}; "
                   f"an effect of {least:.2f} is found four times in five")


def pad_last_batch(x_0, size):
    """(n) DiffuRecSys: rows of zeros fill the last batch of targets: [U, d] -> [a multiple of size, d]."""
    return F.pad(x_0, (0, 0, 0, -len(x_0) % size))
