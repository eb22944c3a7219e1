"""Full-ranking evaluation: the rank of each user's held-out item among the whole catalogue, then HR, NDCG and MRR."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch

from ..base import distributed
from ..base.checks import whole
from ..base.seeds import stream_seed
from ..data.dataset import Dataset
from ..data.splits import Examples, Split, leave_one_out, length_batches
from ..fast import fast_matmul, install, item_chunks, kept_memory, own_scores
from .metrics import mean_metrics


class Model(Protocol):
    """What is asked of whatever is evaluated: DiffuRec, DiffuRecSys, the baselines, or a model of yours."""

    num_items: int

    @property
    def max_length(self) -> int: ...
    @property
    def device(self) -> torch.device: ...

    def predict(self, histories: torch.Tensor, *, generator: torch.Generator | None = None) -> Any:
        """Left-padded ids [B, L] -> whatever score_items takes, one row for each history."""

    def score_items(self, prediction: Any, first: int, last: int) -> torch.Tensor:
        """Scores of the items first..last-1 -> [B, last - first]."""


def evaluate(model: Model, data: Dataset, split: Split = "test", seed: int = 0, **options: Any) -> dict[str, float]:
    """Means over users {"HR@5": ..., "NDCG@10": ..., "MRR": ...}, fractions in 0..1; see `rank_targets` for the rest."""
    return mean_metrics(rank_targets(model, data, split, seed, **options))


@kept_memory()
def rank_targets(
    model: Model, data: Dataset, split: Split = "test", seed: int = 0, batch_size: int = 512, **sampling: Any
) -> np.ndarray:
    """The first and the last place that each user's target can take among the items of equal score, [U, 2] int64.

    Place 1 is the best; where nothing is tied both are the same. `metrics` takes the mean over these places.

    `model` is a DiffuRec or a baseline: anything with num_items, max_length, device, predict and score_items.
    `sampling` goes to model.predict (for DiffuRec: num_steps, ensemble, precision). Items seen before are not removed.
    Every batch has random numbers of its own, so the result does not depend on how many processes share the work.
    """
    whole(batch_size, "batch_size")
    whole(seed, "seed", least=0)
    require_same_items(model, data)
    examples = leave_one_out(data, split, model.max_length)
    if not len(examples):                                                       # all users have three interactions
        raise ValueError(f"The split {split} of the data set {data.name} has no example to evaluate.")
    ranks = torch.zeros(len(examples), 2, dtype=torch.int64, device=model.device)
    with predicting(model):
        for index, prediction, targets in predictions(model, examples, seed, batch_size, **sampling):
            ranks[index] = tied_ranks(model, prediction, targets)
    return distributed.sum_over_processes(ranks).cpu().numpy()


def predictions(
    model: Model, examples: Examples, seed: int, batch_size: int, **sampling: Any
) -> Iterator[tuple[torch.Tensor, Any, torch.Tensor]]:
    """(indices [B], what the model predicts for these examples, their targets [B]), by batches of similar length.

    All on the model's device, and within `predicting`. Several processes share the batches.
    """
    on_device = examples.to(model.device)
    for number, index in enumerate(length_batches(examples.lengths, batch_size)):
        if number % distributed.world_size() != distributed.rank():
            continue
        generator = torch.Generator(model.device).manual_seed(stream_seed(seed, number))
        histories, targets = on_device.gather(index.to(model.device), int(examples.lengths[index].max()))
        yield index.to(model.device), model.predict(histories, generator=generator, **sampling), targets


@contextmanager
def predicting(model: Model) -> Iterator[None]:
    """Within, the model is in evaluation mode and computes by the fast forms, without gradients; a baseline has no mode."""
    install(model)
    training = isinstance(model, torch.nn.Module) and model.training
    if isinstance(model, torch.nn.Module):
        model.eval()
    try:
        with torch.no_grad(), fast_matmul():
            yield
    finally:
        if isinstance(model, torch.nn.Module):
            model.train(training)


def require_same_items(model: Model, data: Dataset) -> None:
    """ValueError unless model and data have as many items and, where the model knows it, number them alike."""
    if model.num_items != data.num_items:
        raise ValueError(
            f"The model knows {model.num_items} items and the data set {data.name} has {data.num_items}; "
            "evaluate a model on the data it was made for."
        )
    known = getattr(model, "numbering", None)
    if known not in (None, data.numbering):
        raise ValueError(
            f"The model was trained on data whose items are numbered otherwise than in the data set {data.name} "
            f"(numbering {known[:12]}..., not {data.numbering[:12]}...): its ranks would be of other items. Evaluate it on the "
            "data it was trained on; data made from these say so by Dataset(..., numbered_as=data.numbering)."
        )


@torch.no_grad()
def tied_ranks(model: Model, prediction: Any, targets: torch.Tensor) -> torch.Tensor:
    """First place: 1 + items scored above the target; last: that + the others scored equal. [B, 2] int64.

    prediction: [B, ...], targets: [B].
    The target's own score is read from the same product as its rivals', so rounding cannot tell them apart.
    FloatingPointError if any score is not finite.
    """
    spans = item_chunks(model.num_items)
    # One chunk is kept for both passes; several are scored twice, so that only one is in memory at a time.
    kept = [model.score_items(prediction, *span) for span in spans] if len(spans) == 1 else None

    def chunks() -> Iterator[tuple[tuple[int, int], torch.Tensor]]:
        return zip(spans, kept or (model.score_items(prediction, *span) for span in spans))

    own: torch.Tensor | float = math.nan
    finite = []
    for (first, _), scores in chunks():
        finite.append(torch.stack(scores.aminmax()).isfinite().all())            # the extremes are NaN if any is
        own = own_scores(scores, targets, first, own)                            # [B, 1]
    if not torch.stack(finite).all():
        raise FloatingPointError("The model gives scores that are not finite; it cannot be ranked.")
    above = torch.zeros(len(targets), dtype=torch.int64, device=targets.device)
    equal = torch.zeros_like(above)
    for _, scores in chunks():
        above += (scores > own).sum(1, dtype=torch.int32)                       # ten times as fast as int64 on a CPU
        equal += (scores == own).sum(1, dtype=torch.int32)
    return torch.stack([1 + above, above + equal], dim=1)


def expected_ranks(model: Model, prediction: Any, targets: torch.Tensor) -> torch.Tensor:
    """The mean place of each target in a random order of the items with equal scores, [B] float64; see `tied_ranks`.

    For people to read. Metrics want the places themselves: of the places 1 to 20 half are hits at 10, 10.5 is none.
    """
    return tied_ranks(model, prediction, targets).double().mean(1)
