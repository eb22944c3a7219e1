"""An epoch of the quickstart, idle and beside one busy process, with waiting threads that spin and that sleep.

    python benchmarks/busy.py [--epochs 3] [--users N]

OpenMP reads OMP_WAIT_POLICY when torch is loaded, so each of the six trains in a process of its own: "unset" is what
OpenMP does by default, "passive" what make sets. With GNU's OpenMP "passive, after 10,000 turns" spins for a moment before
it sleeps. The losses have to be the same bits in all six. --users takes the first users alone, to try the script.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import torch

from diffurec import DiffuRec, configure_run, load_dataset, train

POLICIES = {
    "unset": {}, "passive": {"OMP_WAIT_POLICY": "passive"},
    "passive, after 10,000 turns": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "10000"},
}


def measure(epochs, users):
    """Prints the median of the epochs' seconds, and the epochs' losses bit by bit, as JSON."""
    data = load_dataset("ml-100k")
    data = replace(data, items=data.items[:data.offsets[users or -1]], offsets=data.offsets[:users and users + 1])
    model_config, train_config = configure_run({"variant": "baseline", "settings": "laptop", "epochs": epochs})
    torch.manual_seed(train_config.seed)
    log = train(DiffuRec(data.num_items, model_config), data, train_config, log=None).log
    print(json.dumps([statistics.median(entry["seconds"] for entry in log), [entry["loss"].hex() for entry in log]]))


@contextlib.contextmanager
def busy_process():
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure_apart(policy, arguments):
    """[seconds, losses] of `measure` in a process with this policy of waiting."""
    outer = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run([sys.executable, __file__, *arguments, "--measure"], env=outer | policy, check=True,
                          stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--users", type=int)
    parser.add_argument("--measure", action="store_true", help="in this process, and nothing else")
    options = parser.parse_args()
    if options.measure:
        measure(options.epochs, options.users)
        sys.exit()
    rows, losses = {}, set()
    for beside, load in (("idle", contextlib.nullcontext), ("beside a busy process", busy_process)):
        for name, policy in POLICIES.items():
            with load():
                seconds, bits = measure_apart(policy, sys.argv[1:])
            rows.setdefault(f"OMP_WAIT_POLICY {name}", {})[beside] = seconds
            losses.add(tuple(bits))
    print(f"Seconds an epoch, median of {options.epochs}; {torch.get_num_threads()} threads, "
          f"{torch.backends.cpu.get_cpu_capability()}")
    print(pd.DataFrame(rows).T.round(1).to_string())
    print("The losses are the same bits in all six." if len(losses) == 1 else "The losses DIFFER.")
    sys.exit(len(losses) != 1)
