"""An interrupt of `python -m diffurec.experiments` while its modules are still being loaded, which takes seconds."""

import os
import signal
import sys

INTERRUPTED = "Interrupted. The same command goes on from the last finished epoch."


def end(*_):
    """Ends the process with the sentence and the exit code of an interrupt; nothing has begun yet."""
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(130)


def until_loaded():
    """From now on Ctrl-C calls `end`, in a process that is to run the launcher and does not ignore Ctrl-C."""
    launching = sys.argv[0] == "-m" and "diffurec.experiments" in sys.orig_argv   # -m still loads the package
    if launching and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)


def loaded():
    """From now on Ctrl-C raises KeyboardInterrupt, as it usually does."""
    if signal.getsignal(signal.SIGINT) is end:
        signal.signal(signal.SIGINT, signal.default_int_handler)
