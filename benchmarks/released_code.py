"""From DiffuRec as its paper has it to what the released code does, one change after another, at full size.

    python benchmarks/released_code.py STEP SEED [--out reports/path] [--device auto]

amazon-beauty, the settings of Li et al. 2023 in the papers' form but for the initial scale and the epochs. The letters are
those of notebook 13, the changes those of notebooks/quirks.py. On an H200 a run takes three minutes beside 15 others.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from diffurec import DiffuRec, ModelConfig, TrainConfig, __version__, load_dataset, mean_metrics, train
from diffurec.base.files import write_atomically

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "notebooks"))
import quirks

STEPS = {                   # each has the changes of those before it
    "as the paper": "dropouts after each sublayer, keys masked, index 0 no item",
    "dropouts": "(i) dropouts in all its 22 places",
    "mask": "(a) the rows of the padding masked, histories padded to L",
    "index 0": "(b) the padding trained and ranked as an item",
}


class Padded(DiffuRec):
    """Histories padded to max_length, whatever the longest of a batch is: with (a) a model sees its padding."""

    def embed_history(self, histories):
        return super().embed_history(F.pad(histories, (self.max_length - histories.shape[1], 0)))


class PaddedZero(Padded, quirks.ZeroIsAnItem):
    """The same with (b)."""


def new_model(step: str, num_items: int, seed: int) -> DiffuRec:
    """A model with the changes up to this step, and the initial weights of the seed."""
    so_far = list(STEPS).index(step)
    torch.manual_seed(seed)
    model = DiffuRec(num_items, ModelConfig(dropout_everywhere=so_far >= 1))
    if so_far >= 2:
        model = quirks.switch_on("a", model)
        model.__class__ = Padded
    if so_far >= 3:
        model = quirks.switch_on("b", model)
        model.__class__ = PaddedZero
    return model


def evaluations(model: DiffuRec, data, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """(what is changed, places of the test targets [U, 2]), each with the changes of those before it."""
    yield "one reverse step", quirks.test_ranks(model, data, seed)
    yield "32 reverse steps", quirks.test_ranks(model, data, seed, num_steps=None)
    plain = model.diffusion.posterior_coefficients
    beta = lambda t, t_prev=None: (*plain(t, t_prev)[:2], float(model.diffusion.betas[t]))      # noqa: E731
    model.diffusion.posterior_coefficients = beta
    yield "(p) which draw with variance beta_s", quirks.test_ranks(model, data, seed, num_steps=None)


def run(step: str, seed: int, device: str) -> dict:
    """One training, and its test metrics by every evaluation."""
    data = load_dataset("amazon-beauty")
    config = TrainConfig(epochs=16, eval_every=2, eval_num_steps=1, seed=seed, device=device)
    model, weights = new_model(step, data.num_items, seed), {}

    def after_epoch(line):
        print(line, flush=True)
        weights[len(weights) + 1] = {name: w.detach().cpu().clone() for name, w in model.state_dict().items()}

    history = train(model, data, config, log=after_epoch)
    test = {name: mean_metrics(ranks) for name, ranks in evaluations(model, data, seed)}
    kept = quirks.kept_by_any(history.log)
    model.load_state_dict(weights[kept])
    test["(f) kept by any"] = mean_metrics(quirks.test_ranks(model, data, seed, num_steps=None))
    machine = torch.cuda.get_device_name() if model.device.type == "cuda" else f"CPU, threads: {torch.get_num_threads()}"
    return {"step": step, "what": STEPS[step], "seed": seed, "diffurec": __version__, "torch": torch.__version__,
            "machine": machine, "checksum": data.checksum, "best_epoch": history.best_epoch, "kept_by_any": kept,
            "log": history.log, "test": test}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("seed", type=int)
    parser.add_argument("--out", type=Path, default=Path("reports/path"))
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found = run(options.step, options.seed, options.device)
    write_atomically(options.out / f"{options.step.replace(' ', '-')}_seed-{options.seed}.json",
                     json.dumps(found, indent=1).encode())
