"""Write small scenes with masks: three of scikit-learn's handwritten digits (UCI) in any ink, on textures.

`python examples/make_scenes.py ROOT` makes ROOT/{train,val}/{images,masks}/*.png and ROOT/classes.csv: names and
colours of four classes, the ground and the digits. A mask has the index of a class for each pixel; edges of digits
are 255, which is no class. A second run with the same numbers writes the same files.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from mindghost.cli.command import run_program
from mindghost.config.arguments import Parser, number, output_folder
from mindghost.errors import RunError, UserError
from mindghost.files import intact, paths
from mindghost.process.display import say

PROG = "make_scenes.py"

HEIGHT, WIDTH, PLACES = 64, 96, ((0, 0), (0, 32), (0, 64), (32, 0), (32, 32), (32, 64))
DIGIT = 32  # pixels of a side
IGNORED = 255
CLASSES = {"ground": (0, 0, 0), "zero": (230, 25, 75), "one": (60, 180, 75), "four": (0, 130, 200)}
DIGITS = (0, 1, 4)


def scene(rng: np.random.Generator, digits: list[tuple[np.ndarray, int]]) -> tuple[np.ndarray, np.ndarray]:
    """An image, uint8 (64, 96, 3), and its mask, uint8 (64, 96): digits in some of six places on waves and noise."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    waves = np.sin(rows * rng.uniform(0.05, 0.5) + columns * rng.uniform(0.05, 0.5) + rng.uniform(0, 6))
    image = rng.uniform(30, 110, 3) + 20 * waves[..., np.newaxis] + rng.normal(0, 8, (HEIGHT, WIDTH, 3))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for (top, left), (digit, label) in zip(rng.permutation(PLACES), digits, strict=False):
        ink = np.asarray(Image.fromarray(np.uint8(digit * (255 / 16))).resize((DIGIT, DIGIT), Image.Resampling.BICUBIC))
        share = ink[..., np.newaxis] / 255
        part = slice(top, top + DIGIT), slice(left, left + DIGIT)
        image[part] = (1 - share) * image[part] + share * rng.uniform(150, 255, 3)
        mask[part] = np.where(ink > 140, 1 + DIGITS.index(label), np.where(ink > 70, IGNORED, 0))
    return np.uint8(np.clip(image, 0, 255)), mask


def write_scenes(root: Path, train: int, val: int, seed: int = 0) -> None:
    """Write the scenes below `root`; those of validation have other digits than those of training."""
    found = load_digits()
    folders: dict[Path, dict[str, bytes]] = {}
    for split, count in (("train", train), ("val", val)):
        own = [i for i in range(len(found.images)) if found.target[i] in DIGITS and (i % 5 == 0) == (split == "val")]
        for index in range(count):
            rng = np.random.default_rng((seed, index, len(split)))
            chosen = rng.choice(own, rng.integers(2, 6), replace=False)
            pictures = scene(rng, [(found.images[i], int(found.target[i])) for i in chosen])
            for kind, pixels in zip(("images", "masks"), pictures, strict=True):
                folders.setdefault(root / split / kind, {})[f"{index:04}.png"] = png(pixels)
    lines = ["name,r,g,b", *(",".join([name, *map(str, color)]) for name, color in CLASSES.items())]
    folders[root] = {"classes.csv": "\n".join([*lines, ""]).encode()}
    for folder, files in folders.items():
        for name, content in files.items():
            file = folder / name
            if paths.exists(file) and (file.is_symlink() or paths.read(file, "give another folder") != content):
                raise UserError(f"{file}: exists, and is another picture; give another folder")
    for folder, files in folders.items():
        paths.make_folder(folder, "ROOT")
        intact.write_all_atomically({folder / name: content for name, content in files.items()})


def png(pixels: np.ndarray) -> bytes:
    """The PNG file of an image or mask."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def main() -> None:
    """Command line."""
    parser = Parser(PROG, __doc__)
    parser.add_argument("root", type=output_folder, metavar="ROOT", help="folder to write train/ and val/ into")
    parser.add_argument("--train", type=number(int, 1, 100_000), default=400, metavar="N", help="scenes to learn (400)")
    parser.add_argument("--val", type=number(int, 1, 100_000), default=60, metavar="N", help="scenes to judge by (60)")
    args = parser.parse_args()
    root = args.root
    try:
        write_scenes(root, args.train, args.val)
    except RunError as error:
        cause = error.__cause__
        raise paths.refused(f"{root}: cannot be written ({paths.reason(cause)}); name another folder", cause) from error
    say(f"{root}: {args.train:,} scenes to learn from and {args.val:,} to judge by, with masks, and classes.csv")


if __name__ == "__main__":
    run_program(PROG, main)
