"""The baselines that count, on each data set: all trials, the one that validation chooses, and its test metrics.

    python benchmarks/counting.py [DATASET ...] [--out reports/counting]

Nothing in it is random. Some minutes for each data set, on one core.
"""

import argparse
import json
from pathlib import Path

from diffurec import (
    MarkovChain, MostPopular, __version__, bootstrap_interval, choose_baseline, load_dataset, per_user, rank_targets,
)
from diffurec.base.files import write_atomically

DATASETS = ("ml-100k", "ml-1m", "amazon-beauty", "amazon-toys")


def with_intervals(model, data, split):
    """{metric: (mean, low, high)} over users, in fractions."""
    return {metric: [v.mean(), *bootstrap_interval(v)] for metric, v in per_user(rank_targets(model, data, split)).items()}


def count(dataset):
    data = load_dataset(dataset)
    best, trials = choose_baseline(data)
    chosen = max(trials, key=lambda trial: trial["NDCG@10"])                     # the first among equals, as choose_baseline
    models = {"most-popular": MostPopular(data), "Markov chain": MarkovChain(data), "best counting": best}
    metrics = {split: {name: with_intervals(model, data, split) for name, model in models.items()}
               for split in ("validation", "test")}
    return {"dataset": dataset, "checksum": data.checksum, "diffurec": __version__, "chosen": chosen, "metrics": metrics,
            "trials": trials}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="*", default=DATASETS, metavar="DATASET")
    parser.add_argument("--out", type=Path, default=Path("reports/counting"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for dataset in options.datasets:
        found = count(dataset)
        write_atomically(options.out / f"{dataset}.json", json.dumps(found, indent=1).encode())
        test = found["metrics"]["test"]["best counting"]
        print(f"{dataset}: {found['chosen']['model']}, test HR@10 {100 * test['HR@10'][0]:.2f}, "
              f"NDCG@10 {100 * test['NDCG@10'][0]:.2f}", flush=True)
