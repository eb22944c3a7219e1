"""Full ranking, metrics and paired tests, baselines, recommendations and their variety, and what one model is looked at for."""

from .analysis import (
    LAMBDAS, analyse, ensemble_sizes, group_metrics, head_items, reconstruct, some_users, steps_needed, target_map,
    training_counts, uncertainty,
)
from .baselines import MarkovChain, MostPopular, NearestItems, choose_baseline
from .comparing import (
    Crossed, bootstrap_interval, compare, crossed_test, least_difference, paired_interval, paired_test, power,
)
from .lists import coverage, gini, novelty
from .metrics import UnseenRanks, hit_rate, mean_metrics, ndcg, per_user, reciprocal_rank
from .ranking import Model, Scorer, evaluate, expected_ranks, rank_scores, rank_targets, tied_ranks
from .recommending import recommend, recommend_ids

__all__ = [
    "Crossed", "LAMBDAS", "MarkovChain", "Model", "MostPopular", "NearestItems", "Scorer", "UnseenRanks",
    "analyse", "bootstrap_interval", "choose_baseline", "compare", "coverage", "crossed_test", "ensemble_sizes",
    "evaluate", "expected_ranks", "gini", "group_metrics", "head_items", "hit_rate", "least_difference",
    "mean_metrics", "ndcg", "novelty", "paired_interval", "paired_test", "per_user", "power", "rank_scores",
    "rank_targets", "reciprocal_rank", "recommend", "recommend_ids", "reconstruct", "some_users",
    "steps_needed", "target_map", "tied_ranks", "training_counts", "uncertainty",
]
