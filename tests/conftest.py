"""Where the tests find the published data sets."""

import os
from pathlib import Path

# Only CI's machine lays the data out like this, beside the repository. Anyone else sets DIFFUREC_DATA_DIR, or goes
# without the tests that need the published files.
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"

if BESIDE.is_dir():
    os.environ.setdefault("DIFFUREC_DATA_DIR", str(BESIDE))
