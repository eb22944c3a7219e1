"""Seeds of independent random streams, each named by whole numbers."""

import numpy as np

from .checks import whole


def stream_seed(*parts: int) -> int:
    """A 63-bit seed for one of many independent random streams, named by whole numbers such as (seed, epoch, rank).

    Zeros at the end of a name do not count (numpy's SeedSequence adds them), so names that only they tell apart share
    a stream: (seed, 5) of an evaluation and (seed, 5, 0) of a training do, which use it for unrelated things.
    """
    for part in parts:
        whole(part, "A part of a stream's name, such as the seed,", least=0)
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
