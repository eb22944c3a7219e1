"""Checkpoints that survive a kill at any moment: new files first, then one atomic rename of the state that names them.

A directory holds `state.json` (settings, log, which files count) and the safetensors files it names:
`last-NNNN` (weights and optimiser after epoch NNNN) and `best-NNNN` (weights of the best validation).
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from .config import ModelConfig
from .model import DiffuRec

FORMAT = 1


class CheckpointError(Exception):
    """A checkpoint that cannot be read, does not fit, or cannot be written; the message says what to do."""


def write_atomically(path, content):
    """Writes bytes so that `path` holds the old content or the new, never a part; OSError leaves the old one."""
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


class Checkpoint:
    """The checkpoint of one training run in a directory."""

    def __init__(self, directory):
        self.directory = Path(directory)

    @property
    def exists(self):
        return (self.directory / "state.json").exists()

    def prepare(self):
        """Creates the directory and proves that it can be written to, before any work is done for it."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            write_atomically(self.directory / "writable", b"")
            (self.directory / "writable").unlink()
        except OSError as error:
            raise CheckpointError(
                f"Cannot write checkpoints to {self.directory} ({error.strerror}); choose a directory that can be "
                "written to, with space left."
            ) from error

    def save(self, state, last, best=None):
        """Stores the state [dict for JSON] with the tensors `last` and, where there is a new one, `best` weights."""
        epoch = len(state["log"])
        files = {"last": f"last-{epoch:04d}.safetensors", "best": f"best-{state['best_epoch']:04d}.safetensors"}
        try:
            write_atomically(self.directory / files["last"], save(last))
            if best is not None:
                write_atomically(self.directory / files["best"], save(best))
            content = json.dumps({"format": FORMAT, **state, "files": files}, indent=1)
            write_atomically(self.directory / "state.json", content.encode())
        except OSError as error:
            raise CheckpointError(
                f"Cannot write the checkpoint of epoch {epoch} to {self.directory} ({error.strerror}); what was saved "
                "before is intact. Make room or rights there, then train again with resume=True."
            ) from error
        for old in self.directory.glob("*.safetensors"):
            if old.name not in files.values():
                old.unlink()

    def read_state(self):
        """The content of state.json; CheckpointError if it is absent, damaged or of another format."""
        path = self.directory / "state.json"
        try:
            state = json.loads(path.read_text())
            found = state["format"]
        except FileNotFoundError:
            raise CheckpointError(f"There is no checkpoint in {self.directory}: it has no state.json.") from None
        except (ValueError, KeyError, TypeError):
            raise CheckpointError(
                f"{path} is damaged and cannot be read; remove {self.directory} and train again."
            ) from None
        if found != FORMAT:
            raise CheckpointError(
                f"{path} has format {found!r}, and this version reads {FORMAT}; train again into another directory."
            )
        return state

    def read_tensors(self, state, which, device="cpu"):
        """The tensors of the file that the state names as `which` ("last" or "best")."""
        path = self.directory / state["files"][which]
        try:
            return load_file(path, device=str(device))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path} is missing, truncated or damaged ({error}); remove {self.directory} and train again."
            ) from None


def load_weights(model, tensors, directory):
    """Puts tensors into the model; CheckpointError if names or shapes are another model's."""
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    if expected != found:
        name = min(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
        raise CheckpointError(
            f"The checkpoint in {directory} does not fit this model: {name} is {found.get(name, 'absent')} there and "
            f"{expected.get(name, 'absent')} here. Use the settings and the data set it was trained with."
        )
    model.load_state_dict(tensors)


def load_model(directory, device="cpu"):
    """The trained DiffuRec of a checkpoint directory, with its best weights, in evaluation mode."""
    checkpoint = Checkpoint(directory)
    state = checkpoint.read_state()
    with torch.random.fork_rng(devices=[]):                                      # its initial weights are not kept
        model = DiffuRec(state["num_items"], ModelConfig.from_dict(state["model"]))
    load_weights(model, checkpoint.read_tensors(state, "best"), directory)
    return model.to(device).eval()


def check_settings(state, directory, **expected):
    """CheckpointError naming the first setting in which the state differs from what is asked for now."""
    for section, wanted in expected.items():
        stored = state[section]
        if not isinstance(wanted, dict):
            stored, wanted = {section: stored}, {section: wanted}
        for name in wanted:
            if stored.get(name) != wanted[name]:
                raise CheckpointError(
                    f"The checkpoint in {directory} was made with {name} = {stored.get(name)!r}, not {wanted[name]!r}; "
                    "resume with the same settings or train into another directory."
                )


def training_settings(config):
    """The settings that must agree for a resumed run to be the same run: all but how long and where it runs."""
    return {name: value for name, value in asdict(config).items() if name not in ("epochs", "device")}
