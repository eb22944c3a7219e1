"""Files that are whole or not there, and the proof that a directory can be written to."""

import os
import uuid
from contextlib import suppress
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
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


def prove_writable(directory: Path, size: int = 1) -> None:
    """Creates the directory and writes `size` bytes to it, gone afterwards; OSError if that cannot be done.

    ValueError for a name that no directory can have.
    """
    name = f"writable-{uuid.uuid4().hex}"     # two launches may prove the same directory at once
    probe = directory / f"{name}.partial"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with open(probe, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            file.write(b"something, because an empty file can be made on a full disk")
        os.replace(probe, directory / name)
        (directory / name).unlink()
    finally:
        with suppress(OSError, ValueError):
            probe.unlink(missing_ok=True)
