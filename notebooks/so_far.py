"""The running table of the tutorial: what was measured so far, on MovieLens-100K.

It comes from the result files of `ablation-small`; the strongest baseline that counts is counted anew.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from diffurec import choose_baseline, evaluate, load_dataset, read_results

RESULTS = Path(__file__).resolve().parent.parent / "reports" / "ablation-small"


def table(*variants):
    """HR@10 and NDCG@10 in per cent, validation and test: the baselines that count, then the variants named.

    "best counting" is the baseline that `choose_baseline` finds on validation; nothing in it is random. A variant's numbers are
    mean ± standard deviation over its seeds, one run each (12 epochs at most, stopped early on validation). ValueError if
    a variant has no result.
    """
    results, problems = read_results(RESULTS)
    data = load_dataset("ml-100k")
    best, _ = choose_baseline(data)
    metrics = {split: evaluate(best, data, split) for split in ("validation", "test")}
    counted = {"metrics": {split: {"best counting": {m: [v] for m, v in of.items()}} for split, of in metrics.items()}}
    rows = {}
    for name, runs, model in [
        ("most-popular", results[:1], "most-popular"), ("Markov chain", results[:1], "Markov chain"),
        ("best counting", [counted], "best counting"),
        *((v, [r for r in results if r["parameters"]["variant"] == v], "trained model") for v in variants),
    ]:
        if not runs:
            raise ValueError(f"{RESULTS} has no result of {name}. {' '.join(problems)}".strip())
        rows[name] = {"seeds": len(runs) if name in variants else "—"}
        for split in ("validation", "test"):
            for metric in ("HR@10", "NDCG@10"):
                values = 100 * np.array([run["metrics"][split][model][metric][0] for run in runs])
                spread = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
                rows[name][f"{metric}, {split}"] = f"{values.mean():.2f}{spread}"
    return pd.DataFrame(rows).T
