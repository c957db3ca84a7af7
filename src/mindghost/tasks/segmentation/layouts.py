"""Folders -> pairs of image and mask, by their names.

| layout | images of a split | masks |
| --- | --- | --- |
| by split | `SPLIT/images/**` | `SPLIT/masks/**` |
| by kind | `images/SPLIT/**` | `masks/SPLIT/**` |
| SegNet's CamVid | `SPLIT/**` | `SPLITannot/**` |
| VOC | `JPEGImages/STEM.jpg` for each line of `ImageSets/Segmentation/SPLIT.txt` | `SegmentationClass/STEM.png` |
| Cityscapes | `leftImg8bit/SPLIT/**/*_leftImg8bit.png` | `gtFine/SPLIT/**/*_gtFine_labelTrainIds.png` |
| without splits | `images/**` | `masks/**` |

Image and mask have one stem, and lie in folders of one name below. Folders may have other usual names (`IMAGES`,
`MASKS`, `SPLITS`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ...data import walk
from ...data.lists import lines as list_lines
from ...errors import UserError
from ...files import paths
from ...process.display import some

IMAGES = ("images", "imgs", "img", "image")
MASKS = ("masks", "labels", "annotations", "mask", "label")
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid"),
    "test": ("test", "testing"),
}
_VOC, _VOC_MASKS, _VOC_LISTS = "JPEGImages", "SegmentationClass", Path("ImageSets") / "Segmentation"
_CITYSCAPES, _CITYSCAPES_MASKS = "leftImg8bit", "gtFine"
_PICTURE, _TRAIN_IDS, _IDS = "_leftImg8bit", "_gtFine_labelTrainIds", "_gtFine_labelIds"

log = logging.getLogger("mindghost")


class Pairs(NamedTuple):
    """Images with their masks, in the order of the images.

    Attributes:
        root: the folder that all paths begin in.
        images, masks: paths below it, as many.
        missing: images that have no mask.
        lone: masks that have no image.
        wanted: what the mask of a missing one would be called, for messages.
        source: the list that names them; empty where they are those of folders.
        lines: of the list, one for each image.
        weights: of the images in the loss; none where the list has none.
    """

    root: Path
    images: Sequence[str]
    masks: Sequence[str]
    missing: Sequence[str] = ()
    lone: Sequence[str] = ()
    wanted: str = ""
    source: str = ""
    lines: Sequence[int] = ()
    weights: Sequence[float] = ()


def split(data_dir: Path, name: str) -> Pairs | None:
    """The pairs of a split; None where no layout has one of that name. Raises UserError for a damaged one."""
    for one in SPLITS.get(name, (name,)):
        for images, masks in _folders(data_dir, one):
            if paths.is_folder(images) and paths.is_folder(masks):
                return _by_stem(data_dir, images, masks)
        for root in (data_dir, data_dir / "VOC2012", data_dir / "VOCdevkit" / "VOC2012"):
            if paths.is_file(file := root / _VOC_LISTS / f"{one}.txt"):
                return _of_voc(root, file)
        if one and paths.is_folder(images := data_dir / _CITYSCAPES / one):
            return _of_cityscapes(data_dir, images, data_dir / _CITYSCAPES_MASKS / one)
    return None


def whole(data_dir: Path) -> Pairs | None:
    """The pairs of a set without splits; None where there is none."""
    found = [(data_dir / images, data_dir / masks) for images in IMAGES for masks in MASKS]
    pairs = next((both for both in found if all(map(paths.is_folder, both))), None)
    return _by_stem(data_dir, *pairs) if pairs else None


def _folders(data_dir: Path, name: str) -> Iterator[tuple[Path, Path]]:
    """Where images and masks of a split may lie."""
    if not name:
        return
    kinds = [(images, masks) for images in IMAGES for masks in MASKS]
    yield from ((data_dir / name / images, data_dir / name / masks) for images, masks in kinds)
    yield from ((data_dir / images / name, data_dir / masks / name) for images, masks in kinds)
    yield data_dir / name, data_dir / f"{name}annot"


def _by_stem(root: Path, images: Path, masks: Path) -> Pairs:
    """The images below one folder with the masks below another one."""
    left_out = walk.LeftOut()
    of_stem = _stems(masks, walk.image_files(masks, left_out), "masks")
    pictures = _stems(images, walk.image_files(images, left_out), "images")
    left_out.say(images.parent)
    return _paired(root, pictures, of_stem, f"{os.path.relpath(masks, root)}/STEM.png")


def _stems(folder: Path, files: Sequence[str], kind: str) -> dict[str, str]:
    """Path below a folder without its ending -> path. Raises UserError where two have one."""
    found: dict[str, str] = {}
    for file in files:
        stem = os.path.splitext(os.path.relpath(file, folder))[0]
        if (first := found.setdefault(stem, file)) != file:
            raise UserError(f"{file}: {kind} have one name: {os.path.basename(first)}, too; remove one of the two")
    return found


def _paired(root: Path, images: dict[str, str], masks: dict[str, str], wanted: str) -> Pairs:
    both = [stem for stem in images if stem in masks]

    def below(files: Sequence[str]) -> list[str]:
        return [os.path.relpath(file, root) for file in files]

    return Pairs(
        root,
        below([images[stem] for stem in both]),
        below([masks[stem] for stem in both]),
        below([file for stem, file in images.items() if stem not in masks]),
        below([file for stem, file in masks.items() if stem not in images]),
        wanted,
    )


def _of_voc(root: Path, file: Path) -> Pairs:
    """The pairs that a list of stems names."""
    there = [_stems(folder, walk.image_files(folder, walk.LeftOut()), "files") for folder in _voc_folders(root)]
    images, masks = [], []
    seen: set[str] = set()
    for number, line in enumerate(list_lines.lines(file, "data_dir"), 1):
        stem = line.strip()
        if not stem:
            continue
        if stem in seen:
            list_lines.fail(file, number, f"{list_lines.cut(stem)} is named twice; remove one of the lines")
        seen.add(stem)
        for found, folder in zip(there, (_VOC, _VOC_MASKS), strict=True):
            if stem not in found:
                list_lines.fail(
                    file, number, f"{root / folder}: no file called {list_lines.cut(stem)}.*; correct the line"
                )
        images.append(os.path.relpath(there[0][stem], root))
        masks.append(os.path.relpath(there[1][stem], root))
    if not images:
        raise UserError(f"{file}: no image in it; write the name of an image without its ending in each line")
    return Pairs(root, images, masks)


def _voc_folders(root: Path) -> list[Path]:
    folders = [root / _VOC, root / _VOC_MASKS]
    for folder in folders:
        paths.check_folder(folder, f"{root / _VOC_LISTS} asks for the images of {_VOC} and the masks of {_VOC_MASKS}")
    return folders


def _of_cityscapes(root: Path, images: Path, masks: Path) -> Pairs:
    paths.check_folder(masks, f"expected the masks of {images} there, called CITY/*{_TRAIN_IDS}.png")
    files = walk.image_files(masks, walk.LeftOut())
    found = {file: os.path.splitext(os.path.relpath(file, masks))[0] for file in files}
    of_stem = {stem.removesuffix(_TRAIN_IDS): file for file, stem in found.items() if stem.endswith(_TRAIN_IDS)}
    if not of_stem:
        why = "only labelIds" if any(stem.endswith(_IDS) for stem in found.values()) else "no masks"
        raise UserError(
            f"{masks}: {why}; expected CITY/*{_TRAIN_IDS}.png, which cityscapesScripts' csCreateTrainIdLabelImgs makes"
        )
    pictures = {
        os.path.splitext(os.path.relpath(file, images))[0].removesuffix(_PICTURE): file
        for file in walk.image_files(images, walk.LeftOut())
    }
    return _paired(root, pictures, of_stem, f"{os.path.relpath(masks, root)}/CITY/NAME{_TRAIN_IDS}.png")


def complete(pairs: Pairs, skip: bool) -> Pairs:
    """The pairs, once it is said what has no partner: an image without a mask is an error, unless it may be skipped."""
    if pairs.missing and not skip:
        more = f" ({len(pairs.missing) - 1:,} more have none)" if len(pairs.missing) > 1 else ""
        raise UserError(
            f"{pairs.root / pairs.missing[0]}: no mask of its name, {pairs.root / pairs.wanted}{more}; add it, remove "
            "the image, or set on_bad_image: skip"
        )
    for kind, files in (("images without a mask", pairs.missing), ("masks without an image", pairs.lone)):
        if files:
            log.warning(f"{pairs.root}: {len(files):,} {kind} left out: {some(files, 3)}")
    if not pairs.images:
        raise UserError(f"{pairs.root}: no image has a mask of its name; expected {pairs.wanted} for each")
    return pairs
