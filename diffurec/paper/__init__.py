"""The papers in plain PyTorch: diffusion.py, approximator.py, sequence.py and diffurec.py, in the order to read them; what
DiffuRec is compared with, rivals.py; config.py.

[1] Li, Sun, Li: DiffuRec: A Diffusion Model for Sequential Recommendation, TOIS 2023, arXiv 2304.00686.
[2] Zolghadr, Winther, Jeha: Generative Diffusion Models for Sequential Recommendations, ROEGEN@RecSys 2024, arXiv 2410.19429.
[3] Chen, Xu, Jiang: ADRec, 2025, arXiv 2505.19544: a step and noise for each position, under a causal mask.

Numbers of equations and algorithms are those of [2]; docs/equations.md lists the line of each. Nothing here is tuned for
speed: ../fast replaces some parts by forms that compute the same.
"""

from .approximator import Approximator, Attention, Block, FeedForward, StepEmbedding
from .config import RIVALS, VARIANTS, ModelConfig, Network
from .diffurec import DiffuRec, DiffuRecSys, Ensemble
from .diffusion import NOISE_SCHEDULES, GaussianDiffusion, truncated_linear
from .rivals import GRU4Rec, Rival, SASRec
from .sequence import SequenceModel

NETWORKS: dict[Network, type[SequenceModel]] = {"diffurec": DiffuRec, "sasrec": SASRec, "gru4rec": GRU4Rec}


def build_model(num_items: int, config: ModelConfig = ModelConfig()) -> SequenceModel:
    """The model that config.network names, with new weights."""
    return NETWORKS[config.network](num_items, config)


__all__ = [
    "NETWORKS", "NOISE_SCHEDULES", "RIVALS", "VARIANTS", "Approximator", "Attention", "Block", "DiffuRec", "DiffuRecSys",
    "Ensemble", "FeedForward", "GRU4Rec", "GaussianDiffusion", "ModelConfig", "Rival", "SASRec", "SequenceModel",
    "StepEmbedding", "build_model", "truncated_linear",
]
