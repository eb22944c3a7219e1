"""One process or several under torchrun: who am I, and sums over all. With one process everything here is the identity."""

import atexit
import os
from typing import TypeVar

import torch

# Before any group exists: this module's functions take the group there is at its first import as a default argument. The
# optimisers import it too, and a group it holds is never destroyed; its threads then can abort the process at its end.
import torch.distributed.nn.functional
from torch import distributed as dist

T = TypeVar("T")


def choose_device(name: str | torch.device, here: bool = True) -> torch.device:
    """torch.device for "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1"; ValueError if it is not to be had.

    here: whether this machine must have it, and not another one that will use it.
    """
    if str(name) == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda") or device.type == "cpu" and device.index:
        raise ValueError(f"There is no device {str(name)!r}; use 'auto', 'cpu', 'cuda' or 'cuda:1'.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if here and device.type == "cuda" and (device.index or 0) >= count:
        have = f"{count} CUDA device{'s' * (count > 1)}" if count else "no CUDA device that torch can use"
        raise ValueError(f"There is no device {str(name)!r}: this machine has {have}; take 'cpu' or 'auto'.")
    return device


def start(device: torch.device) -> torch.device:
    """Joins the process group that torchrun announces, if any, and returns this process's own device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)         # joins its threads
    return device


def _active() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if _active() else 0


def world_size() -> int:
    return dist.get_world_size() if _active() else 1


def sum_over_processes(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of every process's tensor, on all of them."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def from_first(value: T) -> T:
    """What the first process has for `value`, on all of them."""
    box = [value]
    if world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]
