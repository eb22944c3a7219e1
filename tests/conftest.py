"""Where the tests find the published data sets, and the table of bad inputs, docs/bad-inputs.md, which they fill.

A test of bad input has a fixture more and names what it gives, and so the table gets a row:

    with refused("a negative number of steps", ValueError, match="between 1 and 32"):     # as pytest.raises
    told("no package index", done.stderr)                                                  # where nothing is raised

At the end test_bad_inputs.py compares the rows with the file; `make bad-inputs` writes it.
"""

import os
import re
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Only CI's machine lays the data out like this, beside the repository. Anyone else sets DIFFUREC_DATA_DIR, or goes
# without the tests that need the published files.
BESIDE = ROOT.parent / "shared" / "data"

if BESIDE.is_dir():
    os.environ.setdefault("DIFFUREC_DATA_DIR", str(BESIDE))


class BadInputs:
    """What was given and what was said: rows[part of the tests] = {what: sentence}, from the tests named in `ran`."""

    def __init__(self, folder):
        self.folder, self.rows, self.ran = folder, {}, set()

    def add(self, part, what, sentence):
        sentence = re.sub(re.escape(str(self.folder)) + r"/[^/\s'\"]+", "DIR", str(sentence).strip())
        sentence = sentence.replace(f"{ROOT}/", "")
        assert sentence and "\n" not in sentence, f"not one line: {sentence!r}"
        assert self.rows.setdefault(part, {}).setdefault(what, sentence) == sentence, f"two rows have the name {what!r}"

    def table(self):
        """The file as it should be."""
        lines = ["# Bad inputs and what is said", "", "Written by the tests: `make bad-inputs`. DIR is a directory."]
        for part, rows in sorted(self.rows.items()):
            lines += ["", f"## {part}", "", "| given | said |", "|---|---|"]
            lines += [f"| {escaped(what)} | {escaped(sentence)} |" for what, sentence in sorted(rows.items())]
        return "\n".join(lines) + "\n"


def escaped(text):
    """For a cell of a table in Markdown."""
    return re.sub(r"([\\|*_`<>\[\]])", r"\\\1", text)


@pytest.fixture(scope="session")
def bad_inputs(tmp_path_factory):
    return BadInputs(tmp_path_factory.getbasetemp())


@pytest.fixture
def told(request, bad_inputs):
    """told(what, sentence): a row of the table, of what was given and what was said."""
    yield lambda what, sentence: bad_inputs.add(request.path.stem.removeprefix("test_"), what, sentence)
    bad_inputs.ran.add(request.node.nodeid)


@pytest.fixture
def refused(request, told):
    """`with refused(what, exception, match=...)` is pytest.raises, and a row of the table; what = None: the test's name."""
    @contextmanager
    def raises(what, exception, match):
        with pytest.raises(exception, match=match) as error:
            yield error
        told(what or " ".join(request.node.name.removeprefix("test_").replace("_", " ").split()), error.value)

    return raises


def pytest_addoption(parser):
    parser.addoption("--write-bad-inputs", action="store_true", help="write docs/bad-inputs.md, by its tests alone")


def pytest_collection_modifyitems(config, items):
    if config.getoption("write_bad_inputs"):
        items[:] = [item for item in items if {"told", "bad_inputs"} & set(item.fixturenames)]
    items.sort(key=lambda item: item.path.name == "test_bad_inputs.py")     # when all others have run
