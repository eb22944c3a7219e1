"""An interrupt of `diffurec` while its modules are still being loaded, which takes seconds."""

import os
import signal
import sys
from pathlib import Path

INTERRUPTED = "Interrupted. The same command goes on from the last finished epoch."
MODULES = {"diffurec", "diffurec.experiments"}      # run by `python -m`


def end(*_: object) -> None:
    """Ends the process with the sentence and the exit code of an interrupt; nothing has begun yet."""
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(130)


def until_loaded() -> None:
    """From now on Ctrl-C calls `end`, in a process that is to run the command and does not ignore Ctrl-C."""
    by_module = sys.argv[0] == "-m" and MODULES & {*sys.orig_argv}      # -m still loads the package
    if (by_module or Path(sys.argv[0]).stem == "diffurec") and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)


def loaded() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt, as it usually does."""
    if signal.getsignal(signal.SIGINT) is end:
        signal.signal(signal.SIGINT, signal.default_int_handler)
