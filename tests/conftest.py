"""Where the tests find the published data sets, and the table of bad inputs, docs/bad-inputs.md, which they fill.

A test of bad input has a fixture more and names what it gives, and so the table gets a row:

    with refused("a negative number of steps", ValueError, match="between 1 and 32"):     # as pytest.raises
    told("no package index", done.stderr)                                                  # where nothing is raised

What is given is said in plain English, "epochs = …" for all values of epochs in one row. With None for it the test's name
and its parameters' id say it.
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

# What differs between machines, processes or versions of Python is left out of a row.
NOT_OURS = [(r"\((?:[^()]* object at 0x|maximum recursion depth|Stack overflow).*\)", "(…)"), (r"\[Errno \d+\] ", ""),
            (r"\((AttributeError|BadZipFile|IndexError|OverflowError|TypeError): .*?\)", r"(\1: …)")]


class BadInputs:
    """What was given and what was said: rows[part of the tests] = {what: sentence}, from the tests named in `ran`."""

    def __init__(self, folder):
        self.folder, self.rows, self.ran = folder, {}, set()

    def add(self, part, what, sentence):
        sentence = re.sub(re.escape(str(self.folder)) + r"/[\w-]+", "DIR", str(sentence).strip())
        sentence = sentence.replace(f"{ROOT}/", "").replace(str(ROOT), "DIR")
        assert sentence and "\n" not in sentence, f"not one line: {sentence!r}"
        for pattern, ours in NOT_OURS:
            sentence = re.sub(pattern, ours, sentence)
        if "…" in what:         # one row for all values that are refused in the same words
            sentence = re.sub(r"but it is .*", "but it is ….", sentence)
        what, sentence = (re.sub(r"(.{1,5}?)\1{19,}", r"\1\1\1…", text) for text in (what, sentence))    # xxxxx, x/x/x/
        assert self.rows.setdefault(part, {}).setdefault(what, sentence) == sentence, f"two rows have the name {what!r}"

    def table(self):
        """The file as it should be."""
        lines = ["# Bad inputs and what is said", "",
                 "Written by the tests: `make bad-inputs`. DIR is a directory; … stands for what is left out here."]
        for part, rows in sorted(self.rows.items()):
            lines += ["", f"## {part}", "", "| given | said |", "|---|---|"]
            lines += [f"| {escaped(what)} | {escaped(sentence)} |" for what, sentence in sorted(rows.items())]
        return "\n".join(lines) + "\n"


def escaped(text):
    """For a cell of a table in Markdown."""
    return re.sub(r"([\\|*_`<>\[\]])", r"\\\1", text)


def named(test):
    """What a test gives, by its name: "damaged files: ID" for test_damaged_files[ID]."""
    name = test.originalname.removeprefix("test_").replace("_", " ")
    return f"{name}: {test.callspec.id}" if hasattr(test, "callspec") else name


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
    def raises(what, exception, match=None):
        with pytest.raises(exception, match=match) as error:
            yield error
        told(what or named(request.node), error.value)

    return raises


def pytest_addoption(parser):
    parser.addoption("--write-bad-inputs", action="store_true", help="write docs/bad-inputs.md, by its tests alone")
    parser.addoption("--write-layouts", action="store_true", help="write data/LAYOUTS.md, from tests/test_layouts.py")


def pytest_collection_modifyitems(config, items):
    if config.getoption("write_bad_inputs"):
        items[:] = [item for item in items if {"told", "bad_inputs"} & set(item.fixturenames)]
    items.sort(key=lambda item: item.path.name == "test_bad_inputs.py")     # when all others have run
