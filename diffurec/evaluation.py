"""Full-ranking evaluation: the rank of each user's held-out item among the whole catalogue, then HR, NDCG and MRR."""

import numpy as np
import torch

from . import distributed
from .checks import whole
from .fast import fast_matmul, item_chunks, kept_memory, own_scores
from .metrics import mean_metrics
from .splits import leave_one_out, length_batches


def evaluate(model, data, split="test", seed=0, **options):
    """Means over users {"HR@5": ..., "NDCG@10": ..., "MRR": ...}, fractions in 0..1; see `rank_targets` for the rest."""
    return mean_metrics(rank_targets(model, data, split, seed, **options))


@torch.no_grad()
@fast_matmul()
@kept_memory()
def rank_targets(model, data, split="test", seed=0, batch_size=512, **sampling):
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
    lengths = examples.lengths
    on_device = examples.to(model.device)
    ranks = torch.zeros(len(examples), 2, dtype=torch.int64, device=model.device)
    training = getattr(model, "training", False)                                 # a baseline has no such mode
    if training:
        model.eval()
    try:
        for number, index in enumerate(length_batches(lengths, batch_size)):
            if number % distributed.world_size() != distributed.rank():
                continue
            generator = torch.Generator(model.device).manual_seed(stream_seed(seed, number))
            histories, targets = on_device.gather(index.to(model.device), int(lengths[index].max()))
            prediction = model.predict(histories, generator=generator, **sampling)
            ranks[index.to(model.device)] = tied_ranks(model, prediction, targets)
    finally:
        if training:
            model.train()
    return distributed.sum_over_processes(ranks).cpu().numpy()


def require_same_items(model, data):
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


def tied_ranks(model, prediction, targets):
    """First place: 1 + items scored above the target; last: that + the others scored equal. [B, 2] int64.

    prediction: [B, ...], targets: [B].
    The target's own score is read from the same product as its rivals', so rounding cannot tell them apart.
    FloatingPointError if any score is not finite.
    """
    spans = item_chunks(model.num_items)
    # One chunk is kept for both passes; several are scored twice, so that only one is in memory at a time.
    kept = [model.score_items(prediction, *spans[0])] if len(spans) == 1 else None

    def chunks():
        return zip(spans, kept or (model.score_items(prediction, *span) for span in spans))

    own, finite = 0, True
    for (first, _), scores in chunks():
        finite = torch.stack(scores.aminmax()).isfinite().all() & finite         # the extremes are NaN if any is
        own = own_scores(scores, targets, first, own)                            # [B, 1]
    if not finite:
        raise FloatingPointError("The model gives scores that are not finite; it cannot be ranked.")
    above = torch.zeros(len(targets), dtype=torch.int64, device=targets.device)
    equal = torch.zeros_like(above)
    for _, scores in chunks():
        above += (scores > own).sum(1, dtype=torch.int32)                       # ten times as fast as int64 on a CPU
        equal += (scores == own).sum(1, dtype=torch.int32)
    return torch.stack([1 + above, above + equal], dim=1)


def expected_ranks(model, prediction, targets):
    """The mean place of each target in a random order of the items with equal scores, [B] float64; see `tied_ranks`.

    For people to read. Metrics want the places themselves: of the places 1 to 20 half are hits at 10, 10.5 is none.
    """
    return tied_ranks(model, prediction, targets).double().mean(1)


def stream_seed(*parts):
    """A 63-bit seed for one of many independent random streams, named by whole numbers such as (seed, epoch, rank).

    Zeros at the end of a name do not count (numpy's SeedSequence adds them), so names that only they tell apart share
    a stream: (seed, 5) of an evaluation and (seed, 5, 0) of a training do, which use it for unrelated things.
    """
    for part in parts:
        whole(part, "A part of a stream's name, such as the seed,", least=0)
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
