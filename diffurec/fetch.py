"""Fetches named data sets beforehand and prints what they hold: python -m diffurec.fetch ml-100k ..."""

import argparse
import logging
import sys

from .data import KNOWN, DataError, load_dataset


def main(arguments=None):
    """The exit code: 0 when every set named could be loaded, 1 and the sentence that says why when one could not."""
    parser = argparse.ArgumentParser(prog="python -m diffurec.fetch", description="Fetch data sets and describe them.")
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"one of {', '.join(KNOWN)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        for name in parser.parse_args(arguments).names:
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
    sys.exit(main())
