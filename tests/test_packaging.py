"""What is installed is what is declared; the wheel in an environment of its own, outside the project, without root."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import mindghost
from tests.helpers.launchers import cache_with_libraries
from tests.helpers.pictures import write_images
from tests.helpers.places import ROOT

NOBODY = 65534  # the user, and the group, that own nothing


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is new in Python 3.11")
def test_every_package_has_an_upper_bound_and_dev_all_extras_but_demo_and_torch():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    (ours,) = (line for line in extras["dev"] if line.startswith("mindghost["))
    assert set(re.findall(r"\w+", ours)) - {"mindghost"} == set(extras) - {"demo", "torch", "dev"}
    for line in [*project["dependencies"], *(line for lines in extras.values() for line in lines if line != ours)]:
        assert re.search(r"==|<", line), f"{line}: no upper bound"


def test_requirements_are_the_extra_dev():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["-e .[dev]"]


def test_the_version_is_stated_once():
    version = re.escape(mindghost.__version__)
    found = [path.name for path in (ROOT / "src").rglob("*.py") if re.search(rf'"{version}"', path.read_text())]
    assert found == ["__init__.py"]
    assert not re.search(rf'"{version}"', (ROOT / "pyproject.toml").read_text())


class Installed:
    """The wheel in a bare virtual environment, which finds our packages behind its own.

    Attributes:
        folder: the working folder, which the user owns.
        data: image folders, which they may only read.
    """

    def __init__(self, place: Path, wheel: Path) -> None:
        self.folder, self.data, self._home = place / "work", place / "data", place / "home"
        self._user = NOBODY if os.geteuid() == 0 else None
        write_images(self.data, classes=("ant", "bee"), train_images=4, val_images=2)
        (self._home / ".cache").mkdir(parents=True)
        self.folder.mkdir()
        # To compile the operators takes ten seconds.
        cache_with_libraries(self._home / ".cache" / "mindghost")
        environment = place / "venv"
        subprocess.run([self._python(), "-m", "venv", "--without-pip", environment], check=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--python", environment]
        # The project may be installed already, where PYTHONPATH leads.
        install = ["install", "--ignore-installed", "--no-deps", "--no-index"]
        subprocess.run([*pip, *install, wheel], check=True)
        (packages,) = environment.glob("lib/python*/site-packages")
        (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
        self._bin = environment / "bin"
        if self._user is not None:
            for path in (self.folder, self._home, *self._home.rglob("*")):
                os.chown(path, NOBODY, NOBODY)

    def _python(self) -> str:
        """An interpreter of this version that the user may run; this one lies below /root in some places."""
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        for python in (getattr(sys, "_base_executable", sys.executable), shutil.which(name, path="/usr/bin")):
            try:
                # By a shell: Python itself does not say which of its steps was refused.
                line = ["sh", "-c", '"$0" -c ""', str(python)]
                subprocess.run(line, check=True, capture_output=True, **self._as_user())
                return python
            except (subprocess.CalledProcessError, OSError):
                continue
        # No other user may: then the test is root's.
        self._user = None
        return sys.executable

    def _as_user(self) -> dict:
        return {} if self._user is None else {"user": NOBODY, "group": NOBODY, "extra_groups": []}

    def run(self, *words: object) -> subprocess.CompletedProcess:
        """`mindghost WORDS`, by that user, in an environment with little more than HOME and PATH."""
        return subprocess.run(
            [self._bin / "mindghost", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=300,
            env={"PATH": f"{self._bin}:/usr/bin:/bin", "HOME": str(self._home)},
            cwd=self.folder,
            check=False,
            **self._as_user(),
        )


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    place = Path(tempfile.mkdtemp(prefix="wheel-", dir="/tmp"))
    place.chmod(0o755)
    sources = place / "sources"
    sources.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    shutil.copytree(ROOT / "configs", sources / "configs")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", sources / "src", symlinks=True, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", place, sources], check=True, timeout=300
    )
    (wheel,) = place.glob("mindghost-*.whl")
    yield Installed(place, wheel)
    shutil.rmtree(place)


def test_the_wheel_knows_its_version_commands_and_recipes(installed):
    done = installed.run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"mindghost {mindghost.__version__}\n", "")
    done = installed.run("recipes")
    assert (done.returncode, done.stderr) == (0, "")
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names[1:] == [path.stem for path in sorted(ROOT.glob("configs/*/*.yaml"))]
    done = installed.run("train", "-c", "ghostnet_050_cpu", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "mindghost train -c ghostnet_050_cpu --data_dir D" in done.stdout


def test_the_wheel_trains_validates_exports_and_predicts(installed):
    """The short line, with a network that compiles at once."""
    line = ["train", "-c", "finetune", "--data_dir", installed.data, "--model", "ghost_vgg16", "--epoch_size", 1]
    done = installed.run(*line, "--mode", 1, "--native_ops", "on", "--num_parallel_workers", 1)
    assert done.returncode == 0, done.stderr
    session = json.loads((installed.folder / "ckpt" / "run.json").read_text())[0]
    assert session["command"].startswith("mindghost train -c finetune --data_dir ")
    assert session["commit"] is None
    weights = "ckpt/ghost_vgg16_last.ckpt"
    done = installed.run("validate", "--ckpt_path", weights, "--mode", 1)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["num_samples"] == 4
    pytest.importorskip("onnxruntime")
    done = installed.run("export", "--ckpt_path", weights, "--format", "onnx", "--out", "deploy")
    assert done.returncode == 0, done.stderr
    done = installed.run("predict", installed.data / "val", "--ckpt_path", "deploy/ghost_vgg16_last.onnx", "--json")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4


def test_a_recipe_that_is_not_there_is_one_line(installed):
    done = installed.run("train", "-c", "ghostnet_50_cpu")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("mindghost train: error: -c: ghostnet_50_cpu: no such file; give a recipe: ")
    assert done.stderr.endswith("the nearest is ghostnet_050_cpu\n")
