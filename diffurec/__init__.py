"""DiffuRec (Li et al. 2023) for sequential recommendation: data, diffusion, model, training and evaluation."""

__version__ = "0.3.0"     # first, because the modules below write it into what they save

from . import early

early.until_loaded()        # before torch

from .base.seeds import stream_seed
from .data import (
    DataError, Dataset, in_time_order, leave_one_out, length_batches, load_dataset, load_interactions,
)
from .evaluation import (
    MarkovChain, MostPopular, NearestItems, UnseenRanks, bootstrap_interval, choose_baseline, compare, coverage,
    crossed_test, evaluate, expected_ranks, gini, hit_rate, least_difference, mean_metrics, ndcg, novelty,
    paired_interval, paired_test, per_user, power, rank_scores, rank_targets, recommend, recommend_ids,
    tied_ranks,
)
from .paper import (
    NOISE_SCHEDULES, VARIANTS, DiffuRec, DiffuRecSys, GaussianDiffusion, GRU4Rec, ModelConfig, SASRec, SequenceModel,
    build_model,
)
from .training import PRESETS, CheckpointError, History, TrainConfig, configure_run, export, load_model, train

# For whoever has the model in hand; the paper's room knows no lists and no checks.
SequenceModel.recommend = recommend             # type: ignore[attr-defined]
SequenceModel.recommend_ids = recommend_ids     # type: ignore[attr-defined]


def __getattr__(name: str) -> object:
    if name == "read_results":      # the lab's, loaded when it is asked for: it takes long
        from .lab import read_results
        return read_results
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "CheckpointError", "DataError", "Dataset", "DiffuRec", "DiffuRecSys", "GRU4Rec", "GaussianDiffusion",
    "History", "MarkovChain", "ModelConfig", "MostPopular", "NOISE_SCHEDULES", "NearestItems", "PRESETS",
    "SASRec", "SequenceModel", "TrainConfig", "UnseenRanks", "VARIANTS", "bootstrap_interval", "build_model",
    "choose_baseline", "compare", "configure_run", "coverage", "crossed_test", "evaluate", "expected_ranks",
    "export", "gini", "hit_rate", "in_time_order", "least_difference", "leave_one_out", "length_batches",
    "load_dataset", "load_interactions", "load_model", "mean_metrics", "ndcg", "novelty", "paired_interval",
    "paired_test", "per_user", "power", "rank_scores", "rank_targets", "read_results", "recommend",
    "recommend_ids", "stream_seed", "tied_ranks", "train",
]
