"""Write scikit-learn's 1,797 handwritten digits (8x8 pixels, UCI) as PNG image folders with a fixed split.

`python examples/make_digits.py ROOT` makes ROOT/{train,val}/{0..9}/*.png: every fifth image of a class is for
validation. A folder that is already complete is left as it is.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from mindghost.cli.command import run_program
from mindghost.config.arguments import Parser, output_folder
from mindghost.errors import RunError, UserError
from mindghost.files import intact, paths
from mindghost.process.display import say

PROG = "make_digits.py"

# Enlarged so that a viewer shows something, and a network with stride 32 has something to see.
PIXELS = 32
VAL_EVERY = 5


def write_digits(root: Path) -> int:
    """Write the images below `root`; returns how many there are."""
    digits = load_digits()
    seen = dict.fromkeys(range(10), 0)
    folders: dict[Path, dict[str, bytes]] = {}
    for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        split = "val" if seen[label] % VAL_EVERY == 0 else "train"
        seen[label] += 1
        gray = Image.fromarray(np.uint8(image * (255 / 16)))
        content = io.BytesIO()
        gray.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC).save(content, "PNG")
        folders.setdefault(root / split / str(label), {})[f"{index:04}.png"] = content.getvalue()
    for folder, files in folders.items():
        for name, content in files.items():
            _check(folder / name, content)
    for folder, files in folders.items():
        paths.make_folder(folder, "ROOT")
        intact.write_all_atomically({folder / name: content for name, content in files.items()})
    return len(digits.images)


def _check(file: Path, content: bytes) -> None:
    """Raise UserError for another file under the name of one to write; a command that was stopped left equal ones."""
    if paths.exists(file) and (file.is_symlink() or paths.read(file, "give another folder") != content):
        raise UserError(f"{file}: exists, and is another picture; give another folder")


def main() -> None:
    """Command line."""
    parser = Parser(PROG, __doc__)
    parser.add_argument("root", type=output_folder, metavar="ROOT", help="folder to write train/ and val/ into")
    root = parser.parse_args().root
    complete = root / ".complete"
    if complete.exists():
        say(f"{root}: the digits are already there")
        return
    try:
        count = write_digits(root)
        intact.write_atomically(complete, b"")
    except RunError as error:
        cause = error.__cause__
        raise paths.refused(f"{root}: cannot be written ({paths.reason(cause)}); name another folder", cause) from error
    say(f"{root}: wrote {count:,} digits")


if __name__ == "__main__":
    run_program(PROG, main)
