"""SASRec and GRU4Rec on the same items, blocks and loss: what is left of DiffuRec when the next item is predicted outright.

Both read from left to right, so that one pass trains every prefix. The loss is the cross-entropy over the whole catalogue,
with which SASRec is stronger than as it was published (Klenitskiy, Vasilev: Turning Dross Into Gold Loss, RecSys 2023).
Whatever else a configuration says, its network and attention are the class's.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from .approximator import Approximator
from .config import ModelConfig
from .sequence import SequenceModel, causal_mask


def right_padded(histories: Tensor) -> Tensor:
    """Left-padded ids [B, L] with the padding put behind the items."""
    L = histories.shape[1]
    places = torch.arange(L, device=histories.device) - (histories != 0).sum(1, keepdim=True)   # -n..-1: the items
    return histories.gather(1, places % L)                                       # [B, L]


class Rival(SequenceModel):
    """A model that reads a history from left to right; subclasses give `encode`."""

    def encode(self, histories: Tensor) -> Tensor:
        """Ids padded on the right [B, L] -> [B, L, d], at each position what comes next."""
        raise NotImplementedError

    def forward(self, histories: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of every prefix: histories, targets [B, L], padded on the right -> [P], row by row."""
        return self.cross_entropy(self.encode(histories)[targets != 0], targets[targets != 0])

    @torch.no_grad()
    def predict(self, histories: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Left-padded ids [B, L] -> [B, d]. Nothing is random; the generator is not used."""
        latest = (histories != 0).sum(1) - 1                                     # [B], its place when padded on the right
        return self.encode(right_padded(histories))[torch.arange(len(histories), device=latest.device), latest]


class SASRec(Rival):
    """Kang, McAuley: Self-Attentive Sequential Recommendation, ICDM 2018: causal attention over items and their places.

    It has DiffuRec's blocks, so that the places and the diffusion are all that differs from its causal form.
    """

    def __init__(self, num_items: int, config: ModelConfig = ModelConfig()):
        super().__init__(num_items, replace(config, network="sasrec", attention="causal"))
        self.place_embedding = nn.Embedding(config.max_length, config.hidden_size)
        nn.init.normal_(self.place_embedding.weight, std=config.embedding_std)
        self.blocks = Approximator(config)

    def encode(self, histories: Tensor) -> Tensor:
        x = self.item_embedding(histories) + self.place_embedding.weight[:histories.shape[1]]  # [B, L, d]
        return self.blocks(self.history_norm(self.history_dropout(x)), causal_mask(histories), every=True)


class GRU4Rec(Rival):
    """Hidasi et al.: Session-based Recommendations with Recurrent Neural Networks, ICLR 2016; `num_blocks` layers."""

    def __init__(self, num_items: int, config: ModelConfig = ModelConfig()):
        super().__init__(num_items, replace(config, network="gru4rec", attention="causal"))
        d, layers = config.hidden_size, config.num_blocks
        self.gru = nn.GRU(d, d, layers, batch_first=True, dropout=config.dropout if layers > 1 else 0)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(d, eps=1e-12)                                   # as DiffuRec's outputs: one scale

    def encode(self, histories: Tensor) -> Tensor:
        hidden, _ = self.gru(self.history_norm(self.history_dropout(self.item_embedding(histories))))
        return self.norm(self.dropout(hidden))                                   # [B, L, d]
