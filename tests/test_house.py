"""Imports point down only: the floors of pyproject.toml, and what a floor cannot say; tests lean on helpers alone."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.places import ROOT

SOURCE = ROOT / "src" / "mindghost"


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    command = [
        str(Path(sys.executable).with_name("lint-imports")),
        "--no-cache",
        "--config",
        str(ROOT / "pyproject.toml"),
    ]
    environment = {"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_imports_point_down():
    done = lint_imports(SOURCE.parent)
    assert done.returncode == 0, done.stdout


def test_an_arrow_up_is_found(tmp_path):
    """A copy of the house in which an error knows the trainer."""
    for file in SOURCE.rglob("*.py"):
        copy = tmp_path / "mindghost" / file.relative_to(SOURCE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text())
    with open(tmp_path / "mindghost" / "errors.py", "a") as file:
        file.write("\nfrom .train import trainer\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert "mindghost.errors -> mindghost.train.trainer" in done.stdout


def test_types_agree():
    """mypy, by pyproject.toml's rules. What it found before is kept in .mypy_cache."""
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_names_stand_in_single_backticks():
    """Not in reStructuredText's double ones, nor behind its roles."""
    other = re.compile(r"``|:(?:func|class|mod|meth|data|attr):`")
    assert [str(path) for path in sorted(SOURCE.rglob("*.py")) if other.search(path.read_text())] == []


def imported(path: Path) -> set[str]:
    """Modules that a file imports, anywhere in it, as they are written."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    froms = {"." * node.level + (node.module or "") for node in nodes if isinstance(node, ast.ImportFrom)}
    return froms | {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}


@pytest.mark.parametrize("path", sorted((SOURCE / "models").glob("*.py")), ids=lambda path: path.stem)
def test_models_are_liftable(path):
    """A network's file needs nothing of the project but its own folder."""
    ours = {name for name in imported(path) if name.startswith((".", "mindghost"))}
    assert not {name for name in ours if name.startswith("..") or not name.startswith(".")}
    assert "mindcv" not in imported(path)


@pytest.mark.parametrize("name", ["__init__.py", "errors.py", "cli/command.py", "files/download.py"])
def test_importing_the_package_leaves_mindspore_alone(name):
    """So that its environment defaults come first, and --help is quick."""
    body = ast.parse((SOURCE / name).read_text()).body
    top_level = [alias.name for node in body if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names]
    assert not any(module.startswith("mindspore") for module in top_level)


@pytest.mark.parametrize("name", ["train.py", "validate.py"])
def test_entry_points_are_thin(name):
    assert len((ROOT / name).read_text().splitlines()) <= 40


def modules_of(path: Path) -> set[str]:
    """Every module that imports may mean: `from a import b` is `a.b` too. Programs that the file starts are strings."""
    text = path.read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(text)))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    found |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for node in froms for alias in node.names}
    return found | set(re.findall(r"^(?:from|import) (tests[.\w]*)", text, re.M))


def test_no_test_imports_another():
    """What two test files share is a fixture of a `conftest.py`, or stands in `tests/helpers`."""
    wrong = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        ours = {module for module in modules_of(path) if module.startswith(("tests", "."))}
        if any(part == "conftest" or part.startswith("test_") for module in ours for part in module.split(".")):
            wrong.append(str(path.relative_to(ROOT)))
    assert wrong == []


def test_each_room_has_a_folder_of_tests():
    """And a folder of tests is a package's; but for helpers, examples, whole runs (`system`), faults (`mutation`)."""

    def folders(root: Path) -> set[str]:
        return {str(file.parent.relative_to(root)) for file in root.rglob("*.py")} - {"."}

    tested, packages = folders(ROOT / "tests"), folders(SOURCE)
    assert tested - packages == {"examples", "helpers", "mutation", "system", "system/fault"}
    assert {room.split("/")[0] for room in packages} <= {folder.split("/")[0] for folder in tested}
