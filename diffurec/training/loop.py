"""Training: Adam on the cross-entropy, validation by NDCG@10, early stopping, and runs that resume bit for bit.

All randomness of epoch e comes from streams seeded by (seed, e): a run that was killed goes on from its last finished
epoch exactly as if nothing had happened, without any random state in the checkpoint.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from .. import __version__
from ..base import distributed
from ..base.checks import whole
from ..base.seeds import stream_seed
from ..data.dataset import Dataset
from ..data.splits import Examples, leave_one_out, length_batches, training_windows
from ..evaluation import evaluate
from ..evaluation.numbering import as_numbered_by
from ..fast import fast_matmul, install, kept_memory, warn_of_emulated_bfloat16
from ..paper import SequenceModel
from .checkpoint import COPIES, Checkpoint, CheckpointError, check_settings, shapes, trained_with
from .config import TrainConfig

METRIC = "NDCG@10"    # of the validation split: chooses the weights that are kept and when to stop
MOMENTS = ("step", "exp_avg", "exp_avg_sq")    # of Adam, for each parameter
CHECK_EVERY = 50      # batches between two looks at the losses, so that CUDA is not made to wait at each


@dataclass
class History:
    """What training did. log: one dict per epoch (epoch, loss, seconds, learning_rate, validation or None)."""

    log: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0                  # 1-based; 0 before the first validation
    best_metric: float = float("-inf")   # validation NDCG@10 at best_epoch
    bad_validations: int = 0             # since the best one
    finished: str | None = None          # why training ended


@fast_matmul()
def train(
    model: SequenceModel, data: Dataset, config: TrainConfig = TrainConfig(), checkpoint: str | Path | None = None,
    resume: bool = False, log: Callable[[str], object] | None = print,
) -> History:
    """Trains in place and returns the History; the model ends with the weights of the best validation NDCG@10.

    A model that was trained before knows its items by their ids: data that number them otherwise are matched, or refused.
    checkpoint: a directory to save to after every epoch, which no other process can use meanwhile. resume=True goes on
    from there if it holds a run of the same settings, data, number of processes and version, else starts; without resume
    a directory that holds a run is refused. `epochs` and `patience` may grow; with fewer than were done nothing more is
    trained. `log` is called with a line per epoch (None for silence). Under torchrun the processes share every batch
    (DistributedDataParallel).

    CheckpointError: the checkpoint cannot be written, does not fit, is damaged or in use. FloatingPointError: the loss is
    not finite; the checkpoint keeps the last good epoch. ValueError: a setting or the data do not fit.
    """
    device = distributed.start(distributed.choose_device(config.device))
    install(model.to(device))
    data = as_numbered_by(model, data)
    if config.eval_num_steps is not None and model.config.network == "diffurec":
        whole(config.eval_num_steps, "eval_num_steps", most=model.config.num_diffusion_steps)
    examples = leave_one_out(data, "train", model.max_length)
    if not len(examples):
        raise ValueError(f"{data.name} has no training example: every user has just three interactions.")
    warn_of_emulated_bfloat16(config.precision, device)
    run = _Run(model, data, config, device, checkpoint)
    say = log if log and distributed.rank() == 0 else lambda line: None
    with run.opened(resume, say), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model.catalogue = data.catalogue
        _train(run, data, examples, say)                                         # the caller's random numbers stay as they are
    model.trained_with = trained_with(run.identity["train"], run.history.best_epoch)
    say(f"{run.history.finished} Kept: the weights of epoch {run.history.best_epoch}.")
    return run.history


def _train(run: "_Run", data: Dataset, examples: Examples, say: Callable[[str], object]) -> None:
    config = run.config
    while run.history.finished is None:
        epoch = len(run.history.log) + 1
        start = time.perf_counter()
        learning_rate = run.optimizer.param_groups[0]["lr"]
        with kept_memory():                                                      # given back after each epoch
            loss = _train_epoch(run, data, examples, epoch)
        entry: dict[str, Any] = {
            "epoch": epoch, "loss": loss, "seconds": time.perf_counter() - start, "learning_rate": learning_rate,
            "validation": None,
        }
        if epoch % config.eval_every == 0 or epoch == config.epochs:
            sampling = {"num_steps": config.eval_num_steps} if run.model.config.network == "diffurec" else {}
            entry["validation"] = evaluate(run.model, data, "validation", config.seed, **sampling)
        run.finish_epoch(entry)
        say(_line(entry, run.history, config))
    run.restore_best()


def _train_epoch(run: "_Run", data: Dataset, examples: Examples, epoch: int) -> float:
    """One pass over all training examples, one by one or, in a causal model, in windows; returns the mean loss of one."""
    model, config, device = run.model, run.config, run.device
    rank, world = distributed.rank(), distributed.world_size()
    # Order, steps and noise are drawn for the whole batch alike in every process; lambda and dropout in each for itself.
    order = torch.Generator().manual_seed(stream_seed(config.seed, epoch, 0))
    noise_stream = torch.Generator(device).manual_seed(stream_seed(config.seed, epoch, 1))
    torch.manual_seed(stream_seed(config.seed, epoch, 2, rank))
    model.train()
    losses, total = [], torch.zeros((), dtype=torch.float64, device=device)
    lengths, sizes, gather = examples.lengths, None, examples.to(device).gather
    if model.config.attention == "causal":
        windows = training_windows(data, model.max_length, order)
        lengths, gather = windows.lengths, windows.to(device).gather_windows
        sizes = lengths                                                          # a window has as many examples as items
    batches = length_batches(lengths, config.batch_size, order, sizes=sizes)
    for number, index in enumerate(batches, start=1):
        histories, targets = gather(index.to(device), int(lengths[index].max()))
        count = len(index) if sizes is None else int(sizes[index].sum())        # of examples
        drawn = model.draw_for_training(targets.shape, noise_stream)
        mine = slice(rank, None, world)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            losses_here = run.parallel(histories[mine], targets[mine], *(x[mine] for x in drawn))
        loss = losses_here.sum() / count
        run.optimizer.zero_grad(set_to_none=True)
        (loss * world).backward()                                                # DDP divides the gradients by world
        if config.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        run.optimizer.step()
        losses.append(loss.detach())
        total += losses[-1].double() * count
        if number % CHECK_EVERY == 0 or number == len(batches):
            _check_finite(losses, epoch, first_batch=number - len(losses) + 1)
            losses = []
    return float(distributed.sum_over_processes(total)) / len(examples)


def _check_finite(losses: list[torch.Tensor], epoch: int, first_batch: int) -> None:
    # All processes must stop together, so they look at the sum of their losses.
    finite = torch.isfinite(distributed.sum_over_processes(torch.stack(losses)))
    if not finite.all():
        batch = first_batch + int((~finite).nonzero()[0])
        raise FloatingPointError(
            f"The loss is not finite in epoch {epoch}, batch {batch}; training stopped, and a checkpoint keeps the last "
            "good epoch. Lower the learning rate or set grad_clip, then train again."
        )


class _Run:
    """A training under way: model, optimiser, scheduler, history, and where they are saved."""

    def __init__(
        self, model: SequenceModel, data: Dataset, config: TrainConfig, device: torch.device, directory: str | Path | None
    ) -> None:
        self.model, self.config, self.device, self.history = model, config, device, History()
        self.optimizer = torch.optim.Adam(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, config.lr_step, config.lr_gamma)
        self.best_weights: dict[str, torch.Tensor] | None = None
        # best_epoch and its like without a last validation that a longer run has not
        self.before: dict[str, Any] | None = None
        # What must agree for a resumed run to be the same run, to the last bit.
        self.identity: dict[str, Any] = {
            "version": __version__, "processes": distributed.world_size(), "num_items": model.num_items,
            "data": data.checksum, "numbering": data.numbering, "model": asdict(model.config),
            "train": training_settings(config),
        }
        self.checkpoint = None if directory is None else Checkpoint(directory, data.catalogue.to_json())
        self.parallel: torch.nn.Module
        if distributed.world_size() > 1:
            self.parallel = DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
        else:
            self.parallel = model

    @contextmanager
    def opened(self, resume: bool, say: Callable[[str], object]) -> Iterator[None]:
        """Holds the checkpoint's directory, with what was trained before restored; without one, nothing."""
        if self.checkpoint is None:
            yield
            return
        with ExitStack() as held:
            failure = None
            if distributed.rank() == 0:
                try:
                    self._take(self.checkpoint, held, resume, say)
                except CheckpointError as error:
                    failure = error
            if failure := distributed.from_first(failure):                      # all processes stop, or none
                raise failure
            if self.checkpoint.exists:
                self._restore(self.checkpoint)
            yield

    def _take(self, checkpoint: Checkpoint, held: ExitStack, resume: bool, say: Callable[[str], object]) -> None:
        size = COPIES * sum(tensor.nbytes for tensor in self.model.state_dict().values()) + len(checkpoint.items)
        checkpoint.prepare(size)
        held.enter_context(checkpoint.locked(wait=resume, say=say))
        if checkpoint.exists and not resume:
            raise CheckpointError(
                f"{checkpoint.directory} already holds a run; pass resume=True to go on with it, or choose another "
                "directory."
            )

    def _restore(self, checkpoint: Checkpoint) -> None:
        weights = shapes(self.model)
        state = checkpoint.read_state()
        check_settings(state, checkpoint.directory, **self.identity)
        checkpoint.read_items(state)                                            # or a file that is lost would be found too late
        self.history = History(**{name: state[name] for name in History.__dataclass_fields__})
        moments = {
            f"optimizer.{i}.{key}": () if key == "step" else tuple(parameter.shape)
            for i, parameter in enumerate(self.model.parameters()) if parameter.requires_grad for key in MOMENTS
        }
        last = checkpoint.read_tensors("last", {f"model.{name}": shape for name, shape in weights.items()} | moments)
        best = "best"
        if state["before"] is not None and len(self.history.log) < self.config.epochs:
            # The longer run has no validation there.
            self.history.log[-1]["validation"], best = None, "before"
            for name, value in state["before"].items():
                setattr(self.history, name, value)
        self.before = state["before"] if best == "best" else None
        if self.history.best_epoch:
            self.best_weights = checkpoint.read_tensors(best, weights, self.device)
        self.history.finished = self._reason_to_stop()
        self.model.load_state_dict({name: last[f"model.{name}"] for name in weights})
        adam = self.optimizer.state_dict()
        adam["state"] = {
            i: {key: last[f"optimizer.{i}.{key}"] for key in MOMENTS}
            for i, parameter in enumerate(self.model.parameters()) if parameter.requires_grad
        }
        self.optimizer.load_state_dict(adam)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")                                     # of steps of the rate without the optimiser's
            for _ in self.history.log:
                self.scheduler.step()

    def _reason_to_stop(self) -> str | None:
        """Why training ends here; None if it goes on."""
        history, config = self.history, self.config
        if history.bad_validations >= config.patience:
            return f"Stopped early: {METRIC} has not risen for {history.bad_validations} validations (patience)."
        return f"All {len(history.log)} epochs are done." if len(history.log) >= config.epochs else None

    def finish_epoch(self, entry: dict[str, Any]) -> None:
        """Steps the schedule, judges the validation, and saves."""
        self.scheduler.step()
        history, improved = self.history, False
        history.log.append(entry)
        if entry["validation"] is not None:
            if entry["epoch"] % self.config.eval_every:
                self.before = {name: getattr(history, name) for name in ("best_epoch", "best_metric", "bad_validations")}
            improved = entry["validation"][METRIC] > history.best_metric
            history.bad_validations = 0 if improved else history.bad_validations + 1
            if improved:
                history.best_metric, history.best_epoch = entry["validation"][METRIC], entry["epoch"]
                self.best_weights = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
        history.finished = self._reason_to_stop()
        if self.checkpoint is not None and distributed.rank() == 0:
            self._save(self.checkpoint, improved)

    def _save(self, checkpoint: Checkpoint, improved: bool) -> None:
        last = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            last |= {f"optimizer.{i}.{key}": t for key, t in moments.items()}
        state = {**self.identity, **asdict(self.history), "before": self.before}
        checkpoint.save(state, last, self.best_weights if improved else None)

    def restore_best(self) -> None:
        if self.best_weights is not None:
            self.model.load_state_dict(self.best_weights)


def _line(entry: dict[str, Any], history: History, config: TrainConfig) -> str:
    """One epoch for the reader's eye, with the time left if no early stop comes."""
    seconds = sum(e["seconds"] for e in history.log) / len(history.log)
    left = (config.epochs - entry["epoch"]) * seconds
    line = f"epoch {entry['epoch']}/{config.epochs}  loss {entry['loss']:.4f}  {entry['seconds']:.1f} s"
    if entry["validation"] is not None:
        line += f"  validation {METRIC} {entry['validation'][METRIC]:.4f}  HR@10 {entry['validation']['HR@10']:.4f}"
        line += "  (best)" if history.best_epoch == entry["epoch"] else ""
    return line + (f"  at most {left / 60:.1f} min left" if history.finished is None else "")


def training_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that must agree for a resumed run to be the same run: all but how long and where it runs."""
    return {name: value for name, value in asdict(config).items() if name not in ("epochs", "patience", "device")}
