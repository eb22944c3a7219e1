"""The rooms of the package: each imports only from those before it, and importing all but the lab is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import diffurec

PACKAGE = Path(diffurec.__file__).parent
ROOMS = ("base", "paper", "fast", "data", "evaluation", "training", "lab")
HEAVY = ("IPython", "jsonschema", "matplotlib", "nbformat", "pandas", "papermill", "pooch", "pydantic", "requests", "scipy",
         "sklearn")


def imported(path):
    """The rooms that a module's relative imports name, by the levels they climb."""
    here = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert node.__dict__.get("level") or not any(name.startswith("diffurec") for name in names), path
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*here[:len(here) - node.level + 1], *(node.module or "").split(".")]
            names = [base[0]] if base[0] else [alias.name for alias in node.names]
            yield from (name for name in names if name in ROOMS)


def test_every_folder_of_the_package_is_a_room():
    assert {path.parent.name for path in PACKAGE.glob("*/*.py")} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_those_before_it(room):
    allowed = ROOMS[:ROOMS.index(room) + 1]
    wrong = {(path.name, name) for path in (PACKAGE / room).rglob("*.py") for name in imported(path) if name not in allowed}
    assert not wrong


def test_the_papers_room_is_plain_torch():
    """No operation made for a compiler, no oneDNN switch, no chunks of items. The words are those of the fast forms."""
    words = ("mkldnn", "torch.ops", "item_chunks", "autograd.Function", "scaled_dot_product_attention", "last_only")

    def used(room):
        text = "".join(path.read_text(encoding="utf-8") for path in (PACKAGE / room).glob("*.py"))
        return {word for word in words if word in text}

    assert used("fast") == {*words} and not used("paper")


def test_importing_the_package_loads_nothing_that_is_slow_to_load():
    """Torch loads none of these. Loaded, they took half as long as torch; where they are used they are imported."""
    program = f"import sys, diffurec; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_core_alone_has_every_name_at_the_door():
    """Without the packages of the extra `lab`, as they are not there."""
    hide = "import sys; sys.modules.update(dict.fromkeys(('nbformat', 'papermill', 'nbclient', 'IPython', 'psutil')))\n"
    program = hide + "from diffurec import *\nfrom diffurec.lab import label_runs\nprint(read_results.__module__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "diffurec.lab.results\n", done.stderr


def test_every_name_at_the_door_is_there():
    assert all(getattr(diffurec, name) is not None for name in diffurec.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        diffurec.nothing
    assert diffurec.DiffuRec.recommend is diffurec.recommend and issubclass(diffurec.DiffuRec, torch.nn.Module)
