"""What one trained model is looked at for beyond its metrics: groups of users, spread of samples, steps, a map of targets."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..base import distributed
from ..base.checks import whole
from ..base.seeds import stream_seed
from ..data.dataset import Dataset
from ..data.splits import Split, leave_one_out
from ..paper import DiffuRec
from .metrics import mean_metrics
from .numbering import as_numbered_by
from .ranking import evaluate, predicting, predictions, tied_ranks

LAMBDAS = (0.0, 0.001, 0.01, 0.1, 1.0)
ENSEMBLES = (1, 2, 4, 8, 16)
STEPS = (1, 2, 4, 8, 16, 32)
BATCH = 64      # so few users are of very different lengths: in larger batches most would be padding


def some_users(data: Dataset, count: int, seed: int = 0) -> Dataset:
    """The data of `count` users drawn without replacement (all, if there are fewer), in their order; the items stay."""
    whole(count, "count")
    whole(seed, "seed", least=0)
    drawn = np.random.default_rng(seed).choice(data.num_users, min(count, data.num_users), replace=False)
    sequences = [data.sequences[u] for u in np.sort(drawn)]
    offsets = np.concatenate([[0], np.cumsum([len(s) for s in sequences])])
    return Dataset(data.name, data.num_items, np.concatenate(sequences), offsets, data.titles, data.genres, data.source,
                   item_ids=data.item_ids, numbered_as=data.numbering)


def training_counts(data: Dataset) -> np.ndarray:
    """How often each item occurs in the training part (all but each user's last two items): [I + 1], 0 for the padding."""
    return np.bincount(np.concatenate([s[:-2] for s in data.sequences]), minlength=data.num_items + 1)


def head_items(data: Dataset) -> np.ndarray:
    """The ids of the 20 % of items most frequent in training; among equals those of the lower number.

    The released code of DiffuRec counts all interactions, the held-out ones too, and takes every item at or above the
    80th percentile of these counts. Then a target makes its own item more popular, which no model could have known, and
    the head is larger than 20 % where items tie there. Here the head is what training knows well, and of a fixed size.
    """
    order = np.argsort(-training_counts(data)[1:], kind="stable") + 1
    return order[:max(1, round(0.2 * data.num_items))]


def group_metrics(ranks: np.ndarray, data: Dataset, split: Split = "test") -> dict[str, dict[str, float]]:
    """{group: {"users": n, "HR@5": ...}} by the target's popularity and by the length of the user's sequence.

    "head": the target is among the items of `head_items`, "tail": the others (Zolghadr et al. 2024, RQ3). Five groups
    of about equally many users by length; users of one length stay together. ranks: [U, 2], or [U] if nothing is tied.
    ValueError if these are not the ranks of the data's users.
    """
    ranks = np.asanyarray(ranks)       # UnseenRanks stay what they are
    if len(ranks) != data.num_users:
        raise ValueError(f"There are {len(ranks)} ranks for the {data.num_users} users of the data set {data.name}.")
    targets = leave_one_out(data, split, 1).gather(torch.arange(data.num_users), 1)[1].numpy()     # [U]
    head = np.isin(targets, head_items(data))
    lengths = np.diff(data.offsets)
    edges = np.unique(np.quantile(lengths, (0.2, 0.4, 0.6, 0.8), method="inverted_cdf"))
    group = np.searchsorted(edges, lengths)                                     # up to and with the edge: the lower group
    masks = {"head": head, "tail": ~head}
    for number in np.unique(group):
        inside = lengths[group == number]
        masks[f"length {inside.min()}-{inside.max()}"] = group == number
    return {name: {"users": int(mask.sum()), **mean_metrics(ranks[mask])} for name, mask in masks.items() if mask.any()}


def reconstruct(
    model: DiffuRec, data: Dataset, seed: int = 0, num_steps: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """One sample of the reverse process for each user's test target: (x_0 [U, d], targets [U]), on the model's device.

    Targets have the model's numbers, as in `rank_targets`.
    """
    data = as_numbered_by(model, data)
    examples = leave_one_out(data, "test", model.max_length)
    x_0 = torch.zeros(len(examples), model.config.hidden_size, device=model.device)
    targets = torch.zeros(len(examples), dtype=torch.long, device=model.device)
    with predicting(model):
        for index, prediction, found in predictions(model, examples, seed, BATCH, num_steps=num_steps):
            x_0[index], targets[index] = prediction, found
    return distributed.sum_over_processes(x_0), distributed.sum_over_processes(targets)


def _top(model: DiffuRec, x_0: torch.Tensor, k: int) -> torch.Tensor:
    whole(k, "k")
    k = min(k, model.num_items)
    return model.score_items(x_0, 1, model.num_items + 1).topk(k, dim=1).indices


def _shared(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The share of the items of one list that the other has too, per user: [U, k], [U, k] -> [U]."""
    return (first.unsqueeze(2) == second.unsqueeze(1)).any(2).double().mean(1)


def steps_needed(model: DiffuRec, data: Dataset, seed: int = 0, k: int = 20) -> list[dict[str, float]]:
    """For each number of reverse steps: agreement of the top k with that of all steps, and the test metrics."""
    steps = [s for s in STEPS if s < model.config.num_diffusion_steps] + [model.config.num_diffusion_steps]
    found = {s: reconstruct(model, data, seed, s) for s in steps}
    full = _top(model, found[steps[-1]][0], k)
    return [
        {"num_steps": s, "agreement": float(_shared(_top(model, x_0, k), full).mean()),
         **mean_metrics(tied_ranks(model, x_0, targets).cpu().numpy())}
        for s, (x_0, targets) in found.items()
    ]


def uncertainty(
    model: DiffuRec, data: Dataset, seed: int = 0, repeats: int = 4, k: int = 20, num_steps: int | None = None
) -> list[dict[str, float]]:
    """What repeated samples for one user share, for each delta of lambda at inference (the weights are the same).

    spread: mean over users and pairs of samples of 1 - cos(x_0, x_0'); overlap: of the share of their top k in common;
    diversity: distinct items among a user's lists over k, 1 (always the same) to `repeats`. Metrics: means over samples.
    """
    whole(repeats, "repeats", least=2)                                  # one sample has no pair
    rows = []
    for delta in LAMBDAS:
        other = copy.copy(model)                                                # the same weights
        other.config = replace(model.config, lambda_uncertainty=delta)
        samples = [reconstruct(other, data, stream_seed(seed, r), num_steps) for r in range(repeats)]
        lists = [_top(model, x_0, k) for x_0, _ in samples]
        pairs = [(a, b) for a in range(repeats) for b in range(a)]
        spread = [1 - torch.cosine_similarity(samples[a][0].double(), samples[b][0].double()).mean() for a, b in pairs]
        joined = torch.cat(lists, dim=1).sort(dim=1).values
        distinct = 1 + (joined.diff(dim=1) != 0).sum(1)
        metrics = [mean_metrics(tied_ranks(model, x_0, targets).cpu().numpy()) for x_0, targets in samples]
        rows.append({
            "lambda_uncertainty": delta, "spread": float(torch.stack(spread).mean()),
            "overlap": float(torch.stack([_shared(lists[a], lists[b]).mean() for a, b in pairs]).mean()),
            "diversity": float(distinct.double().mean() / lists[0].shape[1]),
            **{name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]},
        })
    return rows


def ensemble_sizes(model: DiffuRec, data: Dataset, seed: int = 0) -> list[dict[str, float]]:
    """Test metrics of Algorithm 3 (one step each) for ensembles of 1 to 16 predictions."""
    return [{"ensemble": e, **evaluate(model, data, "test", seed, batch_size=BATCH, ensemble=e)} for e in ENSEMBLES]


def target_map(
    model: DiffuRec, data: Dataset, counts: np.ndarray, seed: int = 0, clusters: int = 5
) -> dict[str, list]:
    """The reconstructed test targets of the users in the plane, one row each (no padded ones), as lists of length U.

    tsne, pca: [U, 2] coordinates, all 0 where the targets do not differ; cluster: k-means in all d dimensions;
    popularity: the true target's count in training, from counts [I + 1]; item: the true target. Both by the model's numbers.
    """
    from sklearn.cluster import KMeans          # here, because it takes a second
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    samples, drawn = reconstruct(model, data, seed)
    x_0, targets = samples.double().cpu().numpy(), drawn.cpu().numpy()
    maps = {name: np.zeros((len(x_0), 2)) for name in ("tsne", "pca")}
    if np.ptp(x_0, axis=0).any():               # else one user or a collapsed model: scikit-learn would divide by 0
        perplexity = min(30, (len(x_0) - 1) / 3)
        maps = {
            "tsne": TSNE(2, perplexity=perplexity, init="pca", random_state=seed % 2**32).fit_transform(x_0),
            "pca": PCA(2, random_state=seed % 2**32).fit_transform(x_0),
        }
    return {
        **{name: np.round(points, 3).tolist() for name, points in maps.items()},
        "cluster": KMeans(min(clusters, len(x_0)), n_init=10, random_state=seed % 2**32).fit_predict(x_0).tolist(),
        "popularity": counts[targets].tolist(), "item": targets.tolist(),
    }


def analyse(model: DiffuRec, data: Dataset, count: int, seed: int = 0, num_steps: int | None = None) -> dict[str, Any]:
    """Steps, uncertainty, ensembles and map for `count` users drawn at random: a dict for JSON, {} for count 0."""
    if not count:
        return {}
    data = as_numbered_by(model, data)
    users = some_users(data, count, seed)
    return {
        "users": users.num_users, "steps": steps_needed(model, users, seed),
        "uncertainty": uncertainty(model, users, seed, num_steps=num_steps),
        "ensembles": ensemble_sizes(model, users, seed), "map": target_map(model, users, training_counts(data), seed),
    }
