"""One progress bar over the epochs of many runs, the time left, and the runs' own lines above the bar."""

import json
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from tqdm import tqdm


class Progress:
    """The bar, and the time left; epochs: how many each run trains at most, by its name. Threads may share it.

    An epoch is made when it stands in the log of the run's checkpoint, wherever the run goes on: within `with` a thread
    looks each second. The time left counts what was made since the run began: an epoch that an earlier launch made, or
    that does not come because a run ends before, moves the bar and is no work done. Where stderr is no terminal there is
    no bar.
    """

    def __init__(self, epochs: dict[str, int]) -> None:
        self.epochs = epochs
        self.reached = dict.fromkeys(epochs, 0)
        self.checkpoints: dict[str, Path] = {}  # of the runs that go on
        self.changed: dict[str, int] = {}       # when their states last changed
        self.made = 0
        self.start = time.monotonic()
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.bar = tqdm(total=sum(epochs.values()), unit="epoch", smoothing=0, disable=None if epochs else True)

    def __enter__(self) -> "Progress":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()
        self.bar.close()

    def _watch(self) -> None:
        while not self.over.wait(1):
            self.look()

    def begin(self, name: str, checkpoint: Path) -> None:
        """The run goes on, from the epochs that its checkpoint has."""
        with self.lock:
            self.checkpoints[name] = checkpoint
            self._reach(name, self._logged(name), made=False)

    def look(self) -> None:
        """Takes what the runs that go on have made."""
        with self.lock:
            for name in self.checkpoints:
                self._reach(name, self._logged(name))

    def end(self, name: str) -> None:
        """The run makes no further epochs."""
        self.look()
        with self.lock:
            self.checkpoints.pop(name, None)
            self._reach(name, self.epochs[name], made=False)

    def _logged(self, name: str) -> int:
        with suppress(OSError):     # once for each epoch, because on Windows a file cannot be replaced while it is read
            changed = (self.checkpoints[name] / "state.json").stat().st_mtime_ns
            if changed != self.changed.get(name):
                self.changed[name] = changed
                return count_epochs(self.checkpoints[name])
        return self.reached[name]

    def _reach(self, name: str, epoch: int, made: bool = True) -> None:
        step = min(epoch, self.epochs[name]) - self.reached[name]
        if step > 0:
            self.reached[name] += step
            self.made += step * made
            self.bar.initial = sum(self.reached.values()) - self.made       # tqdm's rate leaves these out
            self.bar.update(step)

    def times(self) -> str:
        """How long it has taken and about how long it will, in words."""
        with self.lock:
            elapsed = time.monotonic() - self.start
            left = sum(self.epochs.values()) - sum(self.reached.values())
            known = self.made or not left
            about = f", about {_span(elapsed / max(1, self.made) * left)} left" if known else ""
        return f"{_span(elapsed)} in all{about}."


def count_epochs(checkpoint: Path) -> int:
    """How many epochs the log in a checkpoint's folder has."""
    try:
        return len(json.loads((checkpoint / "state.json").read_bytes())["log"])
    except Exception:       # there is none yet, or it is damaged: the run itself says so
        return 0


class Lines:
    """A file that shows what is written to it, whole lines at a time, each behind a label."""

    def __init__(self, file: TextIO, label: str = "") -> None:
        self.file, self.label = file, label
        self.pieces: list[str] = []     # of a line that has not ended

    def write(self, text: str) -> None:
        self.pieces.append(text)
        if "\n" not in text:
            return
        *lines, rest = "".join(self.pieces).split("\n")
        self.pieces = [rest]
        show("\n".join(self.label + line for line in lines), self.file)

    def flush(self) -> None:
        """Nothing: papermill flushes after every piece of text, and half a line is shown when the rest is there."""

    def close(self) -> None:
        if any(self.pieces):
            self.write("\n")


def show(line: str, file: TextIO | None = None) -> None:
    """Prints a line above the bar, if there is one."""
    file = file or sys.stdout
    tqdm.write(line, file=file)
    file.flush()


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
