"""Full-ranking evaluation: the rank of each user's held-out item among the whole catalogue, then HR, NDCG and MRR."""

import math
from collections.abc import Iterable, Iterator
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
from .metrics import UnseenRanks, mean_metrics
from .numbering import as_numbered_by

ROWS = 512      # of a score matrix that are ranked at a time


class Scorer(Protocol):
    """What is asked of whatever is ranked, once there is a prediction."""

    num_items: int

    def score_items(self, prediction: Any, first: int, last: int) -> torch.Tensor:
        """Scores of the items first..last-1 -> [B, last - first]."""


class Model(Scorer, Protocol):
    """What is asked of whatever is evaluated: DiffuRec, DiffuRecSys, the baselines, or a model of yours."""

    @property
    def max_length(self) -> int: ...
    @property
    def device(self) -> torch.device: ...

    def predict(self, histories: torch.Tensor, *, generator: torch.Generator | None = None) -> Any:
        """Left-padded ids [B, L] -> whatever score_items takes, one row for each history."""


def evaluate(model: Model, data: Dataset, split: Split = "test", seed: int = 0, **options: Any) -> dict[str, float]:
    """Means over users {"HR@5": ..., "NDCG@10": ..., "MRR": ...}, fractions in 0..1; see `rank_targets` for the rest."""
    return mean_metrics(rank_targets(model, data, split, seed, **options))


@kept_memory()
def rank_targets(
    model: Model, data: Dataset, split: Split = "test", seed: int = 0, batch_size: int = 512, filter_seen: bool = False,
    **sampling: Any,
) -> np.ndarray:
    """The first and the last place that each user's target can take among the items of equal score, [U, 2] int64.

    Place 1 is the best; where nothing is tied both are the same. `metrics` takes the mean over these places.

    `model` is a DiffuRec or a baseline: anything with num_items, max_length, device, predict and score_items.
    `sampling` goes to model.predict (for DiffuRec: num_steps, ensemble, precision).
    Every batch has random numbers of its own, so the result does not depend on how many processes share the work.

    filter_seen=True is another protocol, not that of the papers: the items of the user's sequence before the target are
    no rivals, also those that the model's max_length cuts off. The target is ranked even if it was seen before. The
    result is `UnseenRanks`, whose metrics have names of their own.

    Data other than the model was trained on, whose items have numbers of their own, are matched by the item ids: the same
    rows in another order, or other rows of items that it knows. ValueError where the ids do not say which item is which.
    """
    whole(batch_size, "batch_size")
    whole(seed, "seed", least=0)
    data = as_numbered_by(model, data)
    examples = _examples(data, split, model.max_length)
    uncut = _examples(data, split, _longest(data)).to(model.device) if filter_seen else None
    ranks = torch.zeros(len(examples), 2, dtype=torch.int64, device=model.device)
    with predicting(model):
        for index, prediction, targets in predictions(model, examples, seed, batch_size, **sampling):
            seen = None if uncut is None else uncut.gather(index, int(uncut.lengths[index].max()))[0]
            ranks[index] = tied_ranks(model, prediction, targets, seen)
    found = distributed.sum_over_processes(ranks).cpu().numpy()
    return found.view(UnseenRanks) if filter_seen else found


class _Given:
    """Scores that are there already, [B, I], as the prediction of a model."""

    def __init__(self, num_items: int):
        self.num_items = num_items

    def score_items(self, scores: torch.Tensor, first: int, last: int) -> torch.Tensor:
        return scores[:, first - 1:last - 1]


def rank_scores(
    scores: np.ndarray | torch.Tensor | Iterable, data: Dataset, split: Split = "test", filter_seen: bool = False
) -> np.ndarray:
    """The places of the targets by scores from anywhere, such as another library's model, as of `rank_targets`: [U, 2].

    scores: [U, num_items], higher is better: row u is of user u, the order of `leave_one_out(data, split, ...)`, and
    column j, from 0, is item j + 1. An array (a memory-mapped one too) or a tensor, or an iterable of such with some rows
    each, users in order, of which one is in memory at a time. filter_seen: as in `rank_targets`.
    ValueError for other numbers of rows or columns, and for scores that are no finite numbers.
    """
    examples, given = _examples(data, split, _longest(data) if filter_seen else 1), _Given(data.num_items)
    if not isinstance(scores, Iterable) or getattr(scores, "ndim", 2) == 0:
        raise ValueError(f"scores must be a matrix, or an iterable of its rows in chunks, but they are {scores!r}.")
    chunks: Iterable = scores
    if isinstance(scores, (np.ndarray, torch.Tensor)):
        chunks = (scores[i:i + ROWS] for i in range(0, len(scores), ROWS))
    ranks, done = [], 0
    for chunk in chunks:
        rows = _finite_rows(chunk, data, done)
        index = torch.arange(done, done + len(rows))
        done += len(rows)
        if done > len(examples):
            break
        if len(rows):
            seen, targets = (x.to(rows.device) for x in examples.gather(index, int(examples.lengths[index].max())))
            ranks.append(tied_ranks(given, rows, targets, seen if filter_seen else None).cpu().numpy())
    if done != len(examples):
        raise ValueError(f"scores must have {len(examples)} rows, one for each user of the split {split} of the data set "
                         f"{data.name} in order, but they have {'at least ' * (done > len(examples))}{done}.")
    found = np.concatenate(ranks)
    return found.view(UnseenRanks) if filter_seen else found


def _finite_rows(chunk: Any, data: Dataset, done: int) -> torch.Tensor:
    """A chunk of scores as a tensor [B, I]; ValueError if it is none. done: how many users came before."""
    rows = chunk if isinstance(chunk, torch.Tensor) else np.asarray(chunk)
    if rows.ndim != 2 or rows.shape[1] != data.num_items:
        raise ValueError(f"scores must have {data.num_items} columns, one for each item of the data set {data.name} from "
                         f"item 1 on, but from user {done} on their shape is {[*rows.shape]}.")
    if isinstance(rows, np.ndarray) and rows.dtype.kind not in "fiu":
        raise ValueError(f"scores must be numbers, but from user {done} on they are of type {rows.dtype}.")
    rows = torch.as_tensor(rows)
    rows = rows if rows.is_floating_point() else rows.double()
    wrong = ~rows.isfinite().all(1)
    if wrong.any():
        raise ValueError(f"The scores of user {done + int(wrong.int().argmax())} are not all finite, so there is no ranking; "
                         "give finite scores, and take filter_seen=True to leave out items seen before.")
    return rows


def _examples(data: Dataset, split: Split, max_length: int) -> Examples:
    examples = leave_one_out(data, split, max_length)
    if not len(examples):                                                       # all users have three interactions
        raise ValueError(f"The split {split} of the data set {data.name} has no example to evaluate.")
    return examples


def _longest(data: Dataset) -> int:
    """A length that cuts no history."""
    return int(np.diff(data.offsets).max())


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


def among(seen: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Which of the items first..last-1 are in each row of `seen` [B, S], ids padded with 0: [B, last - first] bool."""
    index = torch.where((seen >= first) & (seen < last), seen - first + 1, 0)    # 0: of none
    marks = torch.zeros(len(seen), last - first + 1, dtype=torch.bool, device=seen.device)
    return marks.scatter_(1, index, True)[:, 1:]


@torch.no_grad()
def tied_ranks(
    model: Scorer, prediction: Any, targets: torch.Tensor, seen: torch.Tensor | None = None
) -> torch.Tensor:
    """First place: 1 + items scored above the target; last: that + the others scored equal. [B, 2] int64.

    prediction: [B, ...], targets: [B]. seen: [B, S] ids, padded with 0, of items that are no rivals; the target stays.
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
    if seen is not None:
        seen = torch.where(seen == targets.unsqueeze(1), 0, seen)
    for span, scores in chunks():
        higher, same = scores > own, scores == own
        if seen is not None:
            rivals = ~among(seen, *span)
            higher, same = higher & rivals, same & rivals
        above += higher.sum(1, dtype=torch.int32)                               # ten times as fast as int64 on a CPU
        equal += same.sum(1, dtype=torch.int32)
    return torch.stack([1 + above, above + equal], dim=1)


def expected_ranks(model: Scorer, prediction: Any, targets: torch.Tensor) -> torch.Tensor:
    """The mean place of each target in a random order of the items with equal scores, [B] float64; see `tied_ranks`.

    For people to read. Metrics want the places themselves: of the places 1 to 20 half are hits at 10, 10.5 is none.
    """
    return tied_ranks(model, prediction, targets).double().mean(1)
