"""Fetches named data sets beforehand and prints what they hold: `diffurec fetch ml-100k`, or python -m diffurec.fetch."""

import logging
import sys
from collections.abc import Iterable

from .data import DataError, load_dataset


def main(names: Iterable[str]) -> int:
    """The exit code: 0 when every set named could be loaded, 1 and the sentence that says why when one could not."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        for name in names:
            print(load_dataset(name).summary())
    except (DataError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except MemoryError:
        print("There is not enough memory to load this.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; nothing half-written was left.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    from .command import main as command

    sys.exit(command(["fetch", *sys.argv[1:]]))
