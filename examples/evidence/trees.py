"""What public sources come as (a checkout, a git directory, an npm or Debian package), as a folder of files."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from mindghost.errors import UserError
from mindghost.files import archives, paths
from mindghost.process.display import shown

REMEDY = "name the source by --source"
GIT_DIRECTORY = ("HEAD", "objects", "refs")


def as_folder(source: Path, below: Sequence[str], unpacked: Path) -> Path:
    """The folder that has the files of a source.

    Args:
        source: a folder, which is returned as it is; a git directory (bare, or the `.git` of a checkout), of whose HEAD
            the files are taken; a package of npm (`.tgz`), whose folder is called `package`; one of Debian (`.deb`).
        below: paths to take of a git directory; all without.
        unpacked: folder to make for the files of anything but a folder.

    Raises UserError, which names the source, where it is none of these or damaged.
    """
    if is_git_directory(source):
        _of_git(source, below, unpacked)
        return unpacked
    if paths.is_folder(source):
        paths.check_folder(source, REMEDY, "--source")
        return source
    paths.check_file(source, REMEDY, "--source")
    if source.suffix == ".tgz":
        archives.unpack_tar(source, unpacked, "package")
        return unpacked / "package"
    if source.suffix == ".deb":
        unpacked.mkdir()
        _checked(source, ["dpkg-deb", "--extract", str(source), str(unpacked)])
        return unpacked
    raise UserError(f"--source: {source}: expected a folder, a git directory, a .tgz or a .deb; {REMEDY}")


def is_git_directory(folder: Path) -> bool:
    """Whether a folder is what `git clone --bare` makes, or the `.git` of a checkout."""
    return all(paths.exists(folder / name) for name in GIT_DIRECTORY)


def git_file(git_directory: Path, path: str, revision: str = "HEAD") -> bytes:
    """One file of a git directory's revision. Raises UserError where it has none."""
    return _checked(git_directory, ["git", f"--git-dir={git_directory}", "show", f"{revision}:{path}"])


def _of_git(git_directory: Path, below: Sequence[str], unpacked: Path) -> None:
    tar = unpacked.with_suffix(".tar")
    command = ["git", f"--git-dir={git_directory}", "archive", "--format=tar", f"--output={tar}", "HEAD", "--", *below]
    _checked(git_directory, command)
    unpacked.mkdir()
    _checked(git_directory, ["tar", "--extract", f"--file={tar}", f"--directory={unpacked}"])
    tar.unlink()


def _checked(source: Path, command: list[str]) -> bytes:
    """What a program prints. Raises UserError with the last line of its complaint."""
    try:
        done = subprocess.run(command, capture_output=True)
    except OSError as error:
        raise UserError(f"--source: {source}: {command[0]} reads it, and is not installed") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().split("\n")[-1]
        raise UserError(f"--source: {source}: cannot be read by {command[0]} ({shown(said)}); {REMEDY}")
    return done.stdout
