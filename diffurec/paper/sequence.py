"""What DiffuRec shares with the models it is compared with: items, the loss over the catalogue, scores by dot product.

B  histories of a batch, of L positions     I  items, numbered from 1; 0 is padding
d  hidden size                              P  targets of a batch
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base.checks import whole
from .config import ModelConfig


def causal_mask(histories: Tensor) -> Tensor:
    """Padded ids [B, L] -> [B, L, L], True where a query may see a key: items up to its own place, and itself."""
    L = histories.shape[1]
    itself = torch.eye(L, dtype=torch.bool, device=histories.device)             # padding too sees a key: no softmax over none
    return (histories != 0).unsqueeze(1).expand(-1, L, -1).tril() | itself


class SequenceModel(nn.Module):
    """Predicts the next item of a history, over a catalogue of `num_items` items, numbered from 1; 0 is padding, never scored.

    Weights are drawn from torch's global random numbers: call torch.manual_seed before for a repeatable model.
    """

    catalogue: Any = None           # `Dataset.catalogue` of the data it was trained on; None: not trained
    trained_with: dict[str, Any] | None = None      # the settings of its training, as a dict

    def __init__(self, num_items: int, config: ModelConfig):
        super().__init__()
        self.num_items, self.config = whole(num_items, "num_items"), config
        d = config.hidden_size                                                   # of items, histories and steps alike
        self.item_embedding = nn.Embedding(num_items + 1, d, padding_idx=0)      # e_0..e_I; e_0, the padding, stays 0
        nn.init.normal_(self.item_embedding.weight, std=config.embedding_std)    # the released code: 1, PyTorch's own
        with torch.no_grad():
            self.item_embedding.weight[0] = 0
        self.history_dropout = nn.Dropout(config.embedding_dropout)              # on the history alone, not on the target
        self.history_norm = nn.LayerNorm(d, eps=1e-12)

    @property
    def device(self) -> torch.device:
        return self.item_embedding.weight.device

    @property
    def max_length(self) -> int:
        return self.config.max_length

    def draw_for_training(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
        """What `forward` takes beside histories and targets of this shape, drawn for a whole batch: here nothing."""
        return ()

    def predict(self, histories: Tensor, *, generator: torch.Generator | None = None) -> Any:
        """Left-padded ids [B, L] -> what `score_items` takes, one row for each history."""
        raise NotImplementedError

    def cross_entropy(self, x_start: Tensor, targets: Tensor) -> Tensor:
        """-log softmax_j(x_0_hat . e_j)[target] over the items j = 1..I: [B, d], [B] -> [B]."""
        with torch.autocast(x_start.device.type, enabled=False):                 # sums over a catalogue need all digits
            items = self.item_embedding.weight[1:]                               # [I, d]
            scores = x_start.to(items.dtype) @ items.T                           # [2] eq. 24: x_0_hat . e_j, [B, I]
            return F.cross_entropy(scores, targets - 1, reduction="none")        # [2] eq. 25; 0 is padding, item 1 first

    @torch.no_grad()
    def score_items(self, prediction: Tensor, first: int, last: int) -> Tensor:
        """Rounding: x_0 . e_j for the items first..last-1: [B, d] -> [B, last - first]."""
        return prediction @ self.item_embedding.weight[first:last].T             # [2] eq. 26: the largest is recommended
