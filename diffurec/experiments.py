"""`diffurec run` by its former name: python -m diffurec.experiments GRID --out DIR [...] [--report-only]"""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
