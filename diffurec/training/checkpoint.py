"""Checkpoints that survive a kill at any moment: new files first, then one atomic rename of the state that names them.

A directory holds `state.json` (settings, log, which files count) and the files it names: the safetensors `last-NNNN`
(weights and optimiser after epoch NNNN) and `best-NNNN` (weights of the best validation), and `items-HASH.json` (ids and
titles, written once); and `training.lock`, which the process that trains there holds. Other files in it are left alone.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from ..base.files import prove_writable, write_atomically
from ..data.catalogue import Catalogue
from ..paper import ModelConfig
from .config import TrainConfig

FORMAT = 3          # of what is written; weights are read from formats 1 and 2 too
COPIES = 8          # of the weights, at most, while a save goes on: twice weights and two moments, and two best weights


class CheckpointError(Exception):
    """A checkpoint that cannot be read, does not fit, or cannot be written; the message says what to do."""


class Checkpoint:
    """The checkpoint of one training run in a directory."""

    def __init__(self, directory: str | Path, items: bytes = b"") -> None:
        """items: the file of the data's items, for who saves."""
        self.directory, self.items = Path(directory), items
        self.files: dict[str, str] = {}     # what the state names, as read or saved last
        self.stale: set[str] = set()        # what an earlier state named, and a kill may have left

    @property
    def exists(self) -> bool:
        try:
            return (self.directory / "state.json").exists()
        except OSError:             # a name that is too long: to be told when it is written to
            return False

    def prepare(self, size: int) -> None:
        """Creates the directory and proves that `size` bytes can be written to it, before any work is done for it."""
        try:
            prove_writable(self.directory, size)
        except (OSError, ValueError) as error:                                  # ValueError: a NUL in the name
            raise CheckpointError(
                f"Cannot write checkpoints to {self.directory} ({getattr(error, 'strerror', None) or error}); choose a "
                f"directory that can be written to, with {size / 1e6:,.0f} MB left."
            ) from error

    @contextmanager
    def locked(self, wait: bool, say: Callable[[str], object]) -> Iterator[None]:
        """Holds the directory for this process; CheckpointError if another has it, or waits for that with a word."""
        lock = FileLock(self.directory / "training.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if not wait:
                raise CheckpointError(
                    f"Another process is training in {self.directory}; wait until it has finished, or choose another "
                    "directory."
                ) from None
            say(f"Another process is training in {self.directory}; waiting until it has finished.")
            lock.acquire()
        except OSError as error:
            raise CheckpointError(
                f"Cannot lock {self.directory} ({error.strerror}); choose a directory that can be written to."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def save(
        self, state: dict[str, Any], last: dict[str, torch.Tensor], best: dict[str, torch.Tensor] | None = None
    ) -> None:
        """Stores the state [dict for JSON] with the tensors `last` and, where there is a new one, `best` weights.

        state["before"]: None or best_epoch and its like without the last validation; that best file is kept too.
        """
        epoch = len(state["log"])
        items = self.files.get("items") or f"items-{hashlib.sha256(self.items).hexdigest()[:12]}.json"
        files = {"last": f"last-{epoch:04d}.safetensors", "items": items}
        for name, source in (("best", state), ("before", state["before"] or {})):
            if source.get("best_epoch"):
                files[name] = f"best-{source['best_epoch']:04d}.safetensors"
        try:
            if "items" not in self.files:                                       # by the first save; it stays as it is
                write_atomically(self.directory / items, self.items)
            write_atomically(self.directory / files["last"], save(last))
            if best is not None:
                write_atomically(self.directory / files["best"], save(best))
            stale = (self.stale | set(self.files.values())) - set(files.values())
            content = json.dumps({"format": FORMAT, **state, "files": files, "stale": sorted(stale)}, indent=1)
            write_atomically(self.directory / "state.json", content.encode())
            for name in stale:
                (self.directory / name).unlink(missing_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"Cannot write the checkpoint of epoch {epoch} to {self.directory} ({error.strerror}); what was saved "
                "before is intact. Make room or rights there, then train again with resume=True."
            ) from error
        self.files, self.stale = files, set()

    def read_state(self) -> dict[str, Any]:
        """The content of state.json, checked; CheckpointError if it is absent, damaged or of another format."""
        from ..base.records import fault
        from .state import State

        path = self.directory / "state.json"
        try:
            state = json.loads(path.read_text(encoding="utf-8"), parse_constant=_minus_infinity)
        except (FileNotFoundError, NotADirectoryError):
            raise CheckpointError(f"There is no checkpoint in {self.directory}: it has no state.json.") from None
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({error.strerror}).") from error
        except (ValueError, RecursionError, MemoryError):
            raise self.damaged("state.json", "no JSON that can be read") from None
        found = state.get("format") if isinstance(state, dict) else None
        if type(found) is int and found not in (1, 2, FORMAT):
            raise CheckpointError(
                f"{path} has format {found!r}, and this version reads {FORMAT}; train again into another directory."
            )
        try:
            State.model_validate(state)
        except ValueError as error:
            raise self.damaged("state.json", fault(error)) from error
        if found == 1 and not state["best_epoch"]:
            state["files"].pop("best", None)                                    # named there before it is written
        if bool(state["best_epoch"]) != ("best" in state["files"]) or len(state["log"]) < state["best_epoch"]:
            raise self.damaged("state.json", "best_epoch, log and files contradict each other")
        self.configurations(state)
        self.files, self.stale = state["files"], set(state.get("stale", ()))
        return state

    def configurations(self, state: Mapping[str, Any]) -> tuple[ModelConfig, TrainConfig]:
        """(ModelConfig, TrainConfig) that the state holds."""
        try:
            return ModelConfig.from_dict(state["model"]), TrainConfig.from_dict(state["train"])
        except (ValueError, TypeError) as error:
            raise self.damaged("state.json", error) from error

    def read_items(self, state: Mapping[str, Any]) -> Catalogue:
        """What the item numbers of the state stand for."""
        numbering = state.get("numbering")                                      # format 1 does not know it
        if name := self.files.get("items"):
            try:
                items = Catalogue.from_json((self.directory / name).read_bytes())
            except (ValueError, OSError, RecursionError, MemoryError) as error:
                raise self.damaged(name, error) from error
            if (items.num_items, items.numbering) != (state["num_items"], numbering):
                raise self.damaged(name, "its items are not those of state.json")
            return items
        # An older one kept no ids. Whether there were any, the numbering tells: it is of the data's rows and ids.
        return Catalogue(state["num_items"], numbering, known=numbering == Catalogue.numbering_of(state["data"], None))

    def read_tensors(
        self, which: str, expected: Mapping[str, tuple[int, ...]], device: str | torch.device = "cpu"
    ) -> dict[str, torch.Tensor]:
        """The tensors of the file that the state names as `which` ("last", "best", "before").

        expected: {name: shape} of what must be in it; CheckpointError for anything else, and for what is not finite.
        """
        name = self.files[which]
        try:
            tensors = load_file(self.directory / name, device=str(device))
        except (SafetensorError, OSError, ValueError, MemoryError) as error:
            raise self.damaged(name, error) from error
        found = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        if wrong := [key for key in sorted(expected.keys() | found.keys()) if expected.get(key) != found.get(key)]:
            raise CheckpointError(
                f"The checkpoint in {self.directory} does not fit this model: {wrong[0]} is "
                f"{found.get(wrong[0], 'absent')} there and {expected.get(wrong[0], 'absent')} here. Use the settings and "
                "the data set it was trained with."
            )
        for key, tensor in tensors.items():
            if tensor.dtype != torch.float32 or not tensor.isfinite().all():
                raise self.damaged(name, f"{key} is not made of finite float32 numbers")
        return tensors

    def damaged(self, name: str, reason: object) -> CheckpointError:
        return CheckpointError(
            f"{self.directory / name} is missing or damaged ({reason}). Nothing was changed; train again into another "
            "directory."
        )


def _minus_infinity(constant: str) -> float:
    if constant != "-Infinity":                                                 # the best metric before there is one
        raise ValueError(constant)
    return float(constant)


def shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """{name: shape} of a model's weights, what `Checkpoint.read_tensors` expects of a best file."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def trained_with(settings: Mapping[str, Any], best_epoch: int) -> dict[str, Any]:
    """What a model remembers of its training."""
    return {**settings, "best_epoch": best_epoch}


def check_settings(state: Mapping[str, Any], directory: Path, **expected: Any) -> None:
    """CheckpointError naming the first setting in which the state differs from what is asked for now."""
    for section, wanted in expected.items():
        stored: Any = state.get(section)
        if not isinstance(wanted, dict):
            stored, wanted = {section: stored}, {section: wanted}
        for name in wanted:
            if stored.get(name) != wanted[name]:
                raise CheckpointError(
                    f"The checkpoint in {directory} was made with {name} = {stored.get(name)!r}, not {wanted[name]!r}; "
                    "resume with the same, or train into another directory or delete this one."
                )
