"""One progress bar over the epochs of many runs, the time left, and the runs' own lines above the bar."""

import re
import sys
import threading
import time

from tqdm import tqdm

EPOCH = re.compile(r"epoch (\d+)/\d+")


class Progress:
    """The bar, and the time left; epochs: how many each run trains at most, by its name. Threads may share it.

    The time left counts what was made since the start: an epoch that an earlier launch made, or that does not come
    because a run ends before, moves the bar and is no work done. Where stderr is no terminal there is no bar.
    """

    def __init__(self, epochs):
        self.epochs = epochs
        self.reached = dict.fromkeys(epochs, 0)
        self.made = 0
        self.start = time.monotonic()
        self.lock = threading.Lock()
        self.bar = tqdm(total=sum(epochs.values()), unit="epoch", smoothing=0, disable=None if epochs else True)

    def read(self, name, line):
        """Takes a run's line; "epoch 3/16 ..." says that epoch 3 was made now, and those before it now or earlier."""
        if name in self.epochs and (match := EPOCH.match(line)):
            self._reach(name, int(match[1]), made=1)

    def end(self, name):
        """The run makes no further epochs."""
        self._reach(name, self.epochs[name], made=0)

    def _reach(self, name, epoch, made):
        with self.lock:
            step = min(epoch, self.epochs[name]) - self.reached[name]
            if step > 0:
                self.reached[name] += step
                self.made += made
                self.bar.initial = sum(self.reached.values()) - self.made       # tqdm's rate leaves these out
                self.bar.update(step)

    def times(self):
        """How long it has taken and about how long it will, in words."""
        with self.lock:
            elapsed = time.monotonic() - self.start
            left = sum(self.epochs.values()) - sum(self.reached.values())
            known = self.made or not left
            about = f", about {_span(elapsed / max(1, self.made) * left)} left" if known else ""
        return f"{_span(elapsed)} in all{about}."


class Lines:
    """A file that shows what is written to it, whole lines at a time, and hands each line to `read` as well."""

    def __init__(self, file, label="", read=lambda line: None):
        self.file, self.label, self.read = file, label, read
        self.pieces = []        # of a line that has not ended

    def write(self, text):
        self.pieces.append(text)
        if "\n" not in text:
            return
        *lines, rest = "".join(self.pieces).split("\n")
        self.pieces = [rest]
        for line in lines:
            self.read(line)
        show("\n".join(self.label + line for line in lines), self.file)

    def flush(self):
        """Nothing: papermill flushes after every piece of text, and half a line is shown when the rest is there."""

    def close(self):
        if any(self.pieces):
            self.write("\n")


def show(line, file=None):
    """Prints a line above the bar, if there is one."""
    file = file or sys.stdout
    tqdm.write(line, file=file)
    file.flush()


def _span(seconds):
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
