"""The engine of one machine: a pool of threads, each with a run and its kernel, that Ctrl-C and SIGTERM end."""

import signal
from argparse import Namespace
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

from .grids import Run
from .run import Launch, Outcome, finish


def finish_all(runs: list[Run], launch: Launch, options: Namespace) -> list[Outcome]:
    """Finishes the runs, `options.jobs` at once."""
    labels = [f"[{number}/{len(runs)}] {run.name}:" for number, run in enumerate(runs, start=1)]
    with ThreadPoolExecutor(options.jobs or 1) as pool:
        made = [pool.submit(finish, run, label, launch) for run, label in zip(runs, labels)]
        while wait(made, timeout=0.2).not_done:
            pass        # this thread handles signals, and one that reaches another thread does not wake it
        return [one.result() for one in made]


@contextmanager
def on_interrupt(stop: Callable[..., None]) -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM call `stop` and raise nothing."""
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
