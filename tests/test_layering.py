"""Imports point down only: the house's floors, proven on the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "ghostnet"

# A room imports rooms of lower floors, and nothing of its own floor but itself.
FLOORS = (
    {"errors", "display", "utf8"},
    {"resources"},
    {"paths", "drawing"},
    {"safetensors_file", "streams", "scratch", "archives", "json_text", "intact_files", "folder_lock"},
    {"arguments", "outputs", "pytorch_file", "class_names"},
    {"config", "download", "launch", "hosts", "neighbours", "curves"},
    {"weights_file", "exported_file", "cpp_library"},
    {"cli"},
    {"distributed"},
    {"runtime", "event_files", "provenance"},
    {"models"},
    {"rmsprop_tf"},
    {"data", "amp", "loss", "optim", "schedule"},
    {"convert", "native", "graph_cache", "run_files"},
    {"step", "evaluate", "checkpoint", "run_folder", "replicas"},
    {"build", "onnx_file", "report"},
    {"deployment"},
    {"inference", "epochs", "run_checks"},
    {"teacher"},
    {"trainer", "validator", "export", "quantize", "predictor", "model_card"},
    {"benchmark"},
    {
        "train",
        "validate",
        "make_digits",
        "plot_metrics",
        "complexity",
        "show_ghosts",
        "convert_weights",
        "predict",
        "predict_onnx",
        "to_mindrecord",
    },
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def room_of(path: Path) -> str:
    """The room of a source file: its name, or that of its folder."""
    if SOURCE in path.parents:
        return path.relative_to(SOURCE).parts[0].removesuffix(".py")
    return path.stem


def imported_rooms(path: Path) -> set[str]:
    """Rooms of the package that a file imports, anywhere in it."""
    found = set()
    package = ["ghostnet", *path.relative_to(SOURCE).parts[:-1]] if SOURCE in path.parents else []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            names = [[*module, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        else:
            continue
        found |= {parts[1] for parts in names if parts[0] == "ghostnet" and len(parts) > 1 and parts[1] in FLOOR_OF}
    return found


FILES = [p for p in SOURCE.rglob("*.py") if p != SOURCE / "__init__.py"]
FILES += [*ROOT.glob("*.py"), *(ROOT / "scripts").glob("*.py")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    room = room_of(path)
    assert room in FLOOR_OF, f"{path}: give the room {room} a floor"
    upward = {other for other in imported_rooms(path) if other != room and FLOOR_OF[other] >= FLOOR_OF[room]}
    assert upward == set()


def test_the_check_sees_every_form_of_import(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "x.py"
    file.write_text(
        "from .. import trainer\nfrom ..models.layers import y\nimport ghostnet.step\nfrom ghostnet import loss\n"
        "from . import images\nfrom ..config import Config\nimport numpy\n"
    )
    assert imported_rooms(file) == {"trainer", "models", "step", "loss", "data", "config"}


def test_models_are_liftable():
    """A network's file needs nothing of the project but its own folder."""
    for path in (SOURCE / "models").glob("*.py"):
        assert imported_rooms(path) <= {"models"}
        text = path.read_text()
        assert "from ..config" not in text
        assert "import mindcv" not in text


def test_importing_the_package_leaves_mindspore_alone():
    """So that its environment defaults come first, and --help is quick."""
    top_level = [
        alias.name
        for name in ("__init__.py", "errors.py", "cli.py", "download.py")
        for node in ast.parse((SOURCE / name).read_text()).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    ]
    assert not any(name.startswith("mindspore") for name in top_level)


@pytest.mark.parametrize("name", ["train.py", "validate.py"])
def test_entry_points_are_thin(name):
    assert len((ROOT / name).read_text().splitlines()) <= 40
