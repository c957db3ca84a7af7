"""How much it matters which filter resizes photos: MindSpore's, as MindCV and we take it, or Pillow's, as timm does.

MindSpore's looks at 2 x 2 pixels for each new one (bilinear), Pillow's at all that the new one covers. Prints how much
random crops of training photos are scaled, how far their pixels are apart, and the accuracy of --ckpt_path on the
validation photos with each, at the size and with the crop that it was trained with.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mindghost.cli.command import run_program
from mindghost.config.arguments import Parser, input_file, input_folder, number
from mindghost.data.images import read_image
from mindghost.errors import UserError
from mindghost.process.display import say, some

PROG = "filters.py"
Pixels = np.ndarray  # uint8 (height, width, 3)


class Crops(NamedTuple):
    """What is known of random crops: how many times smaller they became, each side; how far pixels are apart."""

    shrunk: list[float]
    apart: list[float]


def by_pillow(image: Pixels, height: int, width: int) -> Pixels:
    """An image resized as torchvision and timm do it to one of Pillow's."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def evaluated_by_pillow(size: int, share: float) -> Callable[[Pixels], Pixels]:
    """timm's transform of an evaluation: the shorter side becomes size / share, and the middle is cut out."""

    def transform(image: Pixels) -> Pixels:
        short = int(size / share)
        rows, columns = image.shape[:2]
        least = min(rows, columns)
        image = by_pillow(image, short * rows // least, short * columns // least)
        top, left = (round((side - size) / 2) for side in image.shape[:2])
        return image[top : top + size, left : left + size]

    return transform


def photos_in(folder: Path) -> list[Path]:
    """The files folder/CLASS/*. Raises UserError where there are none."""
    files = sorted(folder.glob("*/*"))
    if not files:
        raise UserError(f"--data_dir: {folder}: no CLASS/* in it; photos.py makes them")
    return files


def crops(images: Iterable[Pixels], size: int, scale: tuple[float, float], ratio: tuple[float, float]) -> Crops:
    """What happens to a random crop of each image."""
    from mindspore.dataset import vision

    from mindghost.data.operations import RandomResizedCrop

    rng = np.random.default_rng(1)
    resize = vision.Resize((size, size), vision.Inter.LINEAR)
    draw = RandomResizedCrop((size, size), scale, ratio, "bilinear")
    found = Crops([], [])
    for image in images:
        top, left, height, width = draw.box(*image.shape[:2], rng)
        box = np.ascontiguousarray(image[top : top + height, left : left + width])
        found.shrunk.extend([height / size, width / size])
        found.apart.append(float(np.abs(np.int16(resize(box)) - np.int16(by_pillow(box, size, size))).mean()))
    return found


def accuracies(args: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """Name of each filter, and the top-1 (percent) of the network with it."""
    from mindghost.data.operations import Normalize
    from mindghost.data.transforms import eval_pixels
    from mindghost.inference import artifact
    from mindghost.inference.network import in_batches, open_network

    deployed = artifact.of_file(args.ckpt_path)
    config = deployed.config
    if config.interpolation != "bilinear" or not isinstance(config.image_resize, int):
        raise UserError(f"{args.ckpt_path}: was not trained on squares with interpolation: bilinear; give another one")
    network = in_batches(open_network(deployed), 32)
    normalize = Normalize(config.mean, config.std)
    files = photos_in(args.data_dir / "val")
    if unknown := sorted({file.parent.name for file in files} - set(deployed.classes)):
        raise UserError(f"--data_dir: {args.data_dir}: {some(unknown)}: no class of {args.ckpt_path}; give its photos")
    labels = np.array([deployed.classes.index(file.parent.name) for file in files])
    images = [read_image(str(file)) for file in files]
    for name, transform in (
        ("MindSpore's", eval_pixels(config)),
        ("Pillow's", evaluated_by_pillow(config.image_resize, config.crop_pct)),
    ):
        logits = network(np.stack([normalize(transform(image)) for image in images]))
        yield name, 100 * float((logits.argmax(1) == labels).mean())


def make_parser() -> Parser:
    parser = Parser(PROG, __doc__)
    folder = input_folder("give what photos.py made")
    parser.add_argument("--data_dir", type=folder, required=True, metavar="D", help="folder of {train,val}/CLASS/*")
    weights = input_file("give weights of a run")
    parser.add_argument("--ckpt_path", type=weights, metavar="W", help="weights of a run, in its folder")
    parser.add_argument("--size", type=number(int, 8, 1024), default=128, metavar="N", help="of crops, in pixels (128)")
    scale = {"nargs": 2, "type": number(float, 1e-6, 1), "default": [0.35, 1.0]}
    parser.add_argument("--scale", metavar=("LOW", "HIGH"), help="of crops: share of the area (0.35 1)", **scale)
    parser.add_argument("--photos", type=number(int, 1, 10**6), default=500, metavar="N", help="that are cropped (500)")
    return parser


def main() -> None:
    """Command line."""
    args = make_parser().parse_args()
    files = photos_in(args.data_dir / "train")
    chosen = [files[index] for index in np.linspace(0, len(files) - 1, min(args.photos, len(files))).astype(int)]
    found = crops((read_image(str(file)) for file in chosen), args.size, tuple(args.scale), (0.75, 1.333))
    shrunk = np.array(found.shrunk)
    say(
        f"{len(found.apart)} random crops: {100 * (shrunk > 1).mean():.0f} % of the sides shrink; side / {args.size}: "
        f"{shrunk.mean():.2f} on average, 99 % below {np.quantile(shrunk, 0.99):.2f}"
    )
    say(f"pixels of the two filters are {np.mean(found.apart):.2f} of 255 apart on average")
    sys.stdout.flush()
    for name, top_1 in accuracies(args) if args.ckpt_path else ():
        say(f"evaluated with {name} filter: {top_1:.2f} % top-1")


if __name__ == "__main__":
    run_program(PROG, main)
