"""An environment with timm and PyTorch, and timm's train.py, which is no part of its package."""

import json
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import trees
from mindghost.errors import RunError, UserError
from mindghost.files import cache, intact, paths
from mindghost.process.display import say, shown

TRAIN_PY = "timm_train.py"
# PyTorch for CPUs: elsewhere, its Linux package brings gigabytes of libraries for graphics cards.
_PYTORCH_INDEX = "https://download.pytorch.org/whl/cpu"
_COMPLETE = "complete"
_VERSIONS = "import json, timm, torch; print(json.dumps([timm.__version__, torch.__version__]))"


def default_python() -> Path:
    """The interpreter of our own environment, whether it is there or not."""
    return cache.cache_dir() / "timm" / "bin" / "python"


def prepare(python: Path, checkout: Path | None, output: Path, needed: Collection[str]) -> str:
    """Have an environment, and train.py as `output / TRAIN_PY`; returns a line that says which versions they are.

    train.py comes from the release that is installed, where the git directory has it, or else from its newest commit.

    Args:
        python: of the environment; ours is made where it is not there.
        checkout: of timm's repository, or its git directory.
        output: folder to put train.py into.
        needed: flags that train.py has to know.

    Raises:
        UserError: there is no such environment or checkout, or its train.py does not fit.
        RunError: the environment cannot be made.
    """
    if python == default_python():
        _make_environment(python.parent.parent)
    timm, torch = versions(python)
    if checkout is None and not paths.is_file(output / TRAIN_PY):
        raise UserError(
            "--timm_checkout: is missing; git clone https://github.com/huggingface/pytorch-image-models, and name it"
        )
    source = "that of an earlier start"
    if checkout is not None:
        content, source = _train_py(checkout, timm)
        # Not run where it lies: beside the checkout's own timm it would run with that one.
        intact.write_atomically(output / TRAIN_PY, content)
    _check_fits(python, output / TRAIN_PY, needed, timm)
    return f"timm {timm} with its train.py ({source}), PyTorch {torch}"


def versions(python: Path) -> tuple[str, str]:
    """Versions of timm and PyTorch in an environment. Raises UserError where it lacks one."""
    try:
        done = subprocess.run([str(python), "-c", _VERSIONS], capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"--timm_python: {python}: cannot be started ({paths.reason(error)})") from error
    if done.returncode:
        last = done.stderr.strip().split("\n")[-1]
        raise UserError(f"--timm_python: {python}: has no timm with PyTorch ({shown(last)}); pip install timm there")
    timm, torch = json.loads(done.stdout.strip().split("\n")[-1])
    return timm, torch


def _train_py(checkout: Path, version: str) -> tuple[bytes, str]:
    """train.py, and where it is from."""
    paths.check_folder(checkout, "give a checkout of timm's repository", "--timm_checkout")
    git_directory = checkout if trees.is_git_directory(checkout) else checkout / ".git"
    if not trees.is_git_directory(git_directory):
        remedy = "give a checkout of timm's repository by --timm_checkout"
        return paths.read(checkout / "train.py", remedy), f"of {checkout}"
    try:
        return trees.git_file(git_directory, "train.py", f"v{version}"), f"of v{version}"
    except UserError:
        own = trees.git_file(git_directory, "timm/version.py").decode(errors="replace")
        return trees.git_file(git_directory, "train.py"), f"of {shown(own.partition('=')[2].strip())}"


def _check_fits(python: Path, train_py: Path, needed: Collection[str], version: str) -> None:
    """Raise UserError unless train.py starts in the environment and knows the flags."""
    done = subprocess.run([str(python), str(train_py), "--help"], capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().split("\n")[-1]
        raise UserError(f"--timm_checkout: its train.py does not run with timm {version} ({shown(last)}); take another")
    known = set(done.stdout.replace(",", " ").replace("[", " ").split())
    if missing := sorted(set(needed) - known):
        raise UserError(f"--timm_checkout: its train.py has no {', '.join(missing)}; take that of timm {version}")


def _make_environment(folder: Path) -> None:
    if paths.is_file(folder / _COMPLETE):
        return
    say(f"{folder}: making an environment with timm and PyTorch")
    sys.stdout.flush()
    paths.make_folder(folder.parent, "MINDGHOST_HOME")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [*pip, "--index-url", _PYTORCH_INDEX, "torch", "torchvision"],
        [*pip, "timm"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr or done.stdout).strip().split("\n")[-1]
            raise RunError(f"{folder}: cannot be made ({shown(last)}); make one by hand, and name it by --timm_python")
    intact.write_atomically(folder / _COMPLETE, b"")
