"""Programs that convert files: installed once, each version in a folder of its own under the user's cache folder.

They are kept apart from the environment that trains: what they need besides does not have to fit it.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..files import paths, scratch
from ..files.cache import cache_dir, locked
from .programs import finished, last_line

log = logging.getLogger("mindghost")

_SECONDS = 1_800  # that a converter may take


@dataclass(frozen=True)
class Tool:
    """A program in a package of PyPI.

    Attributes:
        package, version: of PyPI.
        program: its path in the folder that it is installed into.
        python: the oldest Python that its package takes, for one with what it needs besides, in an environment of its
            own; None for a program that needs nothing.
    """

    package: str
    version: str
    program: str
    python: tuple[int, int] | None = None

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"{self.package}-{self.version}"

    @property
    def installed(self) -> bool:
        """Whether it is here already."""
        return (self._place() / self.program).exists()

    def _place(self) -> Path:
        return cache_dir() / "tools" / self.folder

    def path(self) -> Path:
        """The program; the first call installs it. Raises UserError where that fails."""
        folder = self._place()
        if not (folder / self.program).exists():
            paths.make_folder(folder.parent, "MINDGHOST_HOME")
            with locked(folder):
                if not (folder / self.program).exists():
                    log.info(f"{self} is installed into {folder}, once")
                    self._install(folder)
        return folder / self.program

    def __str__(self) -> str:
        return f"{self.package}=={self.version}"

    def _install(self, folder: Path) -> None:
        pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
        # What a program that was stopped has left here, or somebody has deleted from.
        shutil.rmtree(folder, ignore_errors=True)
        if self.python is None:
            with scratch.folder("tool", near=folder.parent) as temporary:
                made = temporary / "tool"
                self._tried([sys.executable, *pip, "--no-deps", "--target", str(made), str(self)])
                os.replace(made, folder)
            return
        # An environment cannot be moved.
        self._tried([_python(self.python, str(self)), "-m", "venv", str(folder)])
        try:
            self._tried([str(folder / "bin" / "python"), *pip, str(self)])
        except UserError:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _tried(self, command: Sequence[str]) -> None:
        done = finished(str(self), command)
        if done.returncode != 0:
            raise UserError(f"{self} cannot be installed: {last_line(done)}; see to pip and the network")

    def run(self, arguments: Sequence[str], folder: Path, makes: Sequence[str]) -> None:
        """Run it in a folder, where it makes some files.

        Raises UserError, with the last line that it has said, where it fails.
        """
        done = finished(str(self), [self.path(), *arguments], folder, _SECONDS)
        if done.returncode != 0 or not all((folder / name).is_file() for name in makes):
            raise UserError(f"{self} failed: {last_line(done)}")


def _python(oldest: tuple[int, int], wanted: str) -> str:
    """A Python that is at least so new: this one, or one on the PATH, or of pyenv."""
    if sys.version_info[:2] >= oldest:
        return sys.executable
    names = [f"python{oldest[0]}.{minor}" for minor in range(oldest[1], oldest[1] + 3)]
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(name) for name in names]
    for candidate in [*filter(None, found), *(str(file) for name in names for file in versions.glob(f"*/bin/{name}"))]:
        # A shim of pyenv is there for versions that are not chosen, too.
        if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    version = ".".join(map(str, oldest))
    raise UserError(f"{wanted} needs Python {version} or newer, and there is none; install one beside this Python")


PNNX = Tool("pnnx", "20261020", "pnnx/pnnx")
# From 2.0 on it needs no TensorFlow.
ONNX2TF = Tool("onnx2tf", "2.6.9", "bin/onnx2tf", python=(3, 12))
