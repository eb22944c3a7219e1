"""A witness from outside: SASRec as RecTools has it, measured by our metrics. `make witness`; reports/witness.

RecTools trains in an environment of its own, .venv-rectools, on our training part, with three seeds. Its scores come back
to `rank_scores`. The number of epochs is the one with the best NDCG@10 on the validation split.
"""

import argparse
import json
import platform
import subprocess
from pathlib import Path

import numpy as np
import torch

import diffurec
from diffurec import MarkovChain, compare, load_dataset, mean_metrics, rank_scores, rank_targets
from diffurec.data import write_rectools

ROOT = Path(__file__).resolve().parent.parent

parser = argparse.ArgumentParser()
parser.add_argument("--data", default="ml-100k")
parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
parser.add_argument("--epochs", nargs="+", default=["10", "20", "30", "40", "50"])
given = parser.parse_args()

data = load_dataset(given.data)
folder = ROOT / "runs" / "witness" / given.data
write_rectools(data, folder)
markov, runs = rank_targets(MarkovChain(data), data), []
for seed in given.seeds:
    options = ["--num-items", str(data.num_items), "--seed", str(seed), "--epochs", *given.epochs]
    subprocess.run([ROOT / ".venv-rectools/bin/python", ROOT / "benchmarks/rectools_sasrec.py", folder,
                    folder / f"scores_{seed}.npz", *options], check=True)
    with np.load(folder / f"scores_{seed}.npz") as scores:
        stages = []
        for epochs in scores["epochs"].tolist():
            ranks = {split: rank_scores(scores[f"{split}_{epochs}"], data, split) for split in ("validation", "test")}
            theirs = np.stack([scores[f"hits_{epochs}"], scores[f"ndcg_{epochs}"]], axis=1).tolist()
            stages.append({"epochs": epochs, **{split: mean_metrics(places) for split, places in ranks.items()},
                           "HitRate@10 and NDCG@10 by RecTools": dict(zip(ranks, theirs))})
        best = max(stages, key=lambda stage: stage["validation"]["NDCG@10"])
        test = scores[f"test_{best['epochs']}"]
        runs.append({
            "seed": seed, "stages": stages, "chosen": best["epochs"], "validation": best["validation"], "test": best["test"],
            "test among unseen items": mean_metrics(rank_scores(test, data, filter_seen=True)),
            "test, difference to the Markov chain": compare(rank_scores(test, data), markov),
        })
        made = {"settings": json.loads(str(scores["settings"])), "versions": json.loads(str(scores["versions"]))}
    print(f"seed {seed}: {best['epochs']} epochs", *(
        f"{split} {name} {best[split][name]:.2%}" for split in ("validation", "test") for name in ("HR@10", "NDCG@10")))

result = {
    "model": "SASRec of RecTools", "data": data.name, "checksum": data.checksum, **made, "diffurec": diffurec.__version__,
    "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}", "command": " ".join([
        "benchmarks/witness.py", "--data", data.name, "--seeds", *map(str, given.seeds), "--epochs", *given.epochs]),
    "mean and standard deviation over seeds": {split: {name: [float(f([run[split][name] for run in runs]))
        for f in (np.mean, lambda x: np.std(x, ddof=1) if len(x) > 1 else 0)] for name in ("HR@10", "NDCG@10")}
        for split in ("validation", "test")},
    "runs": runs,
}
path = ROOT / "reports" / "witness" / f"{data.name}_rectools-sasrec.json"
path.parent.mkdir(exist_ok=True)
path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
print(f"Written: {path.relative_to(ROOT)}")
