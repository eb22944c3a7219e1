"""The table of bad inputs, which the other tests fill. This one runs last."""

from pathlib import Path

import pytest

TABLE = Path(__file__).resolve().parent.parent / "docs" / "bad-inputs.md"
SELECTING = ("keyword", "markexpr", "deselect", "lf", "stepwise")


def test_the_table_of_bad_inputs_is_what_the_tests_found(request, bad_inputs):
    config = request.config
    fill = {item.nodeid for item in request.session.items if "told" in item.fixturenames}
    complete = (config.args_source is pytest.Config.ArgsSource.TESTPATHS and fill <= bad_inputs.ran
                and not any(config.getoption(name) for name in SELECTING))
    found = bad_inputs.table().splitlines()
    if config.getoption("write_bad_inputs"):
        assert complete, f"only all of its tests together write it; did not run: {sorted(fill - bad_inputs.ran)}"
        TABLE.write_text(bad_inputs.table(), encoding="utf-8")
    committed = TABLE.read_text(encoding="utf-8").splitlines()
    missing = {line for line in found if line.startswith("|")} - set(committed)
    assert not missing, f"`make bad-inputs` adds {missing}"
    if complete:
        assert committed == found, "`make bad-inputs` takes out what no test finds any longer"
