"""A recipe -> the operations it means, in MindCV's order.

A training transform takes (image, rng): every draw comes from that generator, so a sample looks the same
whichever worker makes it, whenever. Both transforms write to `out`, a part of a batch, if that is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import UserError
from . import vision
from .operations import (
    ColorJitter,
    CoveringResize,
    Normalize,
    PaddedCrop,
    RandomErasing,
    RandomFlip,
    RandomResizedCrop,
    SeededPolicy,
    channels_first,
)
from .resizing import CropAndFlip, OnePass, centre

if TYPE_CHECKING:
    from ..config import Config
    from . import jpeg
    from .images import JpegImage

Step = Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]
Final = Callable[[NDArray[Any], "NDArray[Any] | None"], NDArray[Any]]
Transform = Callable[..., NDArray[Any]]

_CIFAR_SIZE = (32, 32)
_CIFAR_PADDING = 4
_CIFAR_MEAN, _CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
_MNIST_MEAN, _MNIST_STD = 0.1307, 0.3081
_LUMINANCE = np.array([0.299, 0.587, 0.114])


def train_transform(config: Config, native: jpeg.Decoder | None = None) -> Transform:
    """The training transform: uint8 (h, w, 3), see `as_rgb` -> float32 (in_channels, height, width).

    Called with (image, rng, out=None). `native` makes it faster, and changes no bit.

    `scale`, `ratio`, `crop_padding`, `color_jitter`, `mean` and `std` belong to image folders; CIFAR and
    MNIST have MindCV's presets. The other keys apply to all, but digits are never flipped.

    Raises:
        UserError: a key's value that the operators can't take.
    """
    steps: list[Step] = []
    size, crop_and_flip = input_size(config), None
    flips = [RandomFlip(axis, p) for axis, p in ((1, config.hflip), (0, config.vflip)) if p > 0]
    if _is_folder(config) and config.crop_padding is None:
        crop = RandomResizedCrop(size, config.scale, config.ratio, config.interpolation)
        crop_and_flip = CropAndFlip(crop, flips, OnePass(config.interpolation, native))
    elif _is_folder(config):
        steps += [_centre(size, config.interpolation), PaddedCrop(size, config.crop_padding or 0)]
    elif config.dataset != "mnist":
        steps.append(PaddedCrop(_CIFAR_SIZE, _CIFAR_PADDING))
    if config.dataset != "mnist" and crop_and_flip is None:
        steps += flips
    if config.auto_augment:
        steps.append(_auto_augment(config))
    elif _is_folder(config) and config.color_jitter is not None:
        steps.append(color_jitter(config.color_jitter))
    if not _is_folder(config):
        cover, cut = _cover_and_crop(config)
        steps.append(_without_rng(cover))
        if len(set(size)) > 1:  # the images themselves are square
            steps.append(_without_rng(cut))
    final = normalisation(config, native)
    table = final.table if isinstance(final, Normalize) and not steps else None
    erase = _erasing(config) if config.re_prob > 0 else None

    def transform(image: NDArray[Any], rng: np.random.Generator, out: NDArray[Any] | None = None) -> NDArray[Any]:
        if crop_and_flip is not None:
            image = crop_and_flip(image, rng) if table is None else crop_and_flip(image, rng, table, out)
        for step in steps:
            image = step(image, rng)
        # In one pass with a table, they are normalised already.
        if table is None or image.dtype == np.uint8:
            image = final(image, out)
        return image if erase is None else erase(image, rng)

    return transform


def eval_transform(config: Config, native: jpeg.Decoder | None = None) -> Transform:
    """The evaluation transform: as `train_transform` but without draws; pixels equal MindCV's exactly.

    Called with (image, out=None). `native` makes it faster, and changes no bit.

    The image is resized, with its own aspect ratio, until it just covers `image_resize / crop_pct` (`image_resize`
    where it is no image of a folder); then the centre is cut out.
    """
    operators, final = _cover_and_crop(config), normalisation(config, native)
    one_pass, table = OnePass(config.interpolation, native), final.table if isinstance(final, Normalize) else None
    cover, size = operators[0], input_size(config)

    def transform(image: NDArray[Any] | JpegImage, out: NDArray[Any] | None = None) -> NDArray[Any]:
        plan = None if table is None else centre(cover, size, image)
        done = None if plan is None else one_pass(image, plan, table, out)
        if done is not None:
            return done
        image = np.asarray(image)
        for operator in operators:
            image = operator(image)
        return final(image, out)

    return transform


def eval_pixels(config: Config) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """The evaluation transform without the normalisation: uint8 (h, w, 3) -> uint8 (height, width, in_channels)."""
    operators, channels = _cover_and_crop(config), config.in_channels
    normalisation(config)  # refuses channels that images do not have

    def transform(image: NDArray[Any]) -> NDArray[Any]:
        for operator in operators:
            image = operator(image)
        return image[..., :channels]

    return transform


def input_size(config: Config, training: bool = False) -> tuple[int, int]:
    """Height and width of the transformed images, of evaluation or of training."""
    size = config.crop_size if training and config.crop_size is not None else config.image_resize
    return size if isinstance(size, tuple) else (size, size)


def seen_box(config: Config, height: int, width: int) -> tuple[float, float, float, float]:
    """What evaluation's crop leaves of an image of this size: top, left, bottom and right, in its pixels."""
    covered, size = _covered_size(config), input_size(config)
    # As `CoveringResize`, but for its rounding down.
    scale = max(covered[0] / height, covered[1] / width)
    rows, columns = (length / scale for length in size)
    top, left = (height - rows) / 2, (width - columns) / 2
    return top, left, top + rows, left + columns


def layout(channels_last: bool = False) -> str:
    """What an array of transformed images is, in words."""
    order = "images, height, width, channels" if channels_last else "images, channels, height, width"
    return f"float32, ({order}), (pixel - mean) / std of pixels from 0 to 255"


def describe_evaluation(config: Config) -> dict[str, object]:
    """From an image file to probabilities, for programs without this package; mean and std on the scale 0 to 255.

    The steps in their order: those of `images.read_image` for prediction, then those of `eval_transform`.
    """
    mean, std = config.mean, config.std
    if not _is_folder(config):
        mean, std = ((_MNIST_MEAN,), (_MNIST_STD,)) if config.dataset == "mnist" else (_CIFAR_MEAN, _CIFAR_STD)
        mean, std = (tuple(255 * value for value in values) for values in (mean, std))
    if config.dataset == "mnist":
        mean, std = mean * config.in_channels, std * config.in_channels
    else:
        mean, std = _per_channel(mean, std, config.in_channels)
    return {
        "frame": "of an animation the first",
        "orientation": "EXIF's is applied, once",
        "bits": "16-bit gray becomes (value + 128) // 257, of 16-bit colours the high byte is taken",
        "alpha": "dropped; a palette with transparency gives its colours",
        "color": "RGB" if config.in_channels == 3 else "L",
        "color_rule": "by way of RGB, as Pillow's convert; L is (19595 R + 38470 G + 7471 B + 32768) >> 16",
        "resize": list(_covered_size(config)),
        "resize_rule": "the smallest size of the same aspect ratio that covers it, rounded down",
        "interpolation": config.interpolation if _is_folder(config) else "bilinear",
        "antialias": False,
        "interpolation_rule": "of pixels (target + 0.5) * size / new size - 0.5, edges repeated, cubic with a = -0.75; "
        "rounded to integers from 0 to 255",
        "center_crop": list(input_size(config)),
        "center_crop_rule": "its top and left are half of what is left over, rounded down",
        "mean": list(mean),
        "std": list(std),
        "layout": layout(),
    }


def as_rgb(image: NDArray[Any] | JpegImage, in_channels: int) -> NDArray[Any] | JpegImage:
    """What the operators work on: (h, w, 1 or 3) -> (h, w, 3), uint8.

    For `in_channels` 1 all three channels hold the luminance (Pillow's "L"), and the last step keeps one of
    them: some operators only know RGB.
    """
    if image.shape[2] == 3 and in_channels == 1:
        image = np.asarray(Image.fromarray(np.asarray(image)).convert("L"))[..., np.newaxis]
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _covered_size(config: Config) -> tuple[int, int]:
    """Height and width that the resized image covers, before the centre is cut out of it."""
    height, width = input_size(config)
    share = config.crop_pct if _is_folder(config) else 1
    return math.floor(height / share), math.floor(width / share)


def _cover_and_crop(config: Config) -> tuple[CoveringResize, vision.Operation]:
    """Evaluation's resize and crop; the images of binary data sets are square and lose nothing to a square crop."""
    kind = config.interpolation if _is_folder(config) else vision.BILINEAR
    return CoveringResize(_covered_size(config), kind), vision.operation("CenterCrop", input_size(config))


def _is_folder(config: Config) -> bool:
    return config.dataset == "imagenet"


def _centre(size: tuple[int, int], interpolation: str) -> Step:
    """The image resized until it just covers `size`, and the centre cut out; images of that size stay as they are."""
    cover, crop = CoveringResize(size, interpolation), vision.operation("CenterCrop", size)
    return lambda image, rng: np.asarray(image) if image.shape[:2] == size else crop(cover(np.asarray(image)))


def _without_rng(operator: Callable[[NDArray[Any]], NDArray[Any]]) -> Step:
    return lambda image, rng: operator(image)


def needs_mindspore(config: Config) -> bool:
    """Whether evaluation takes operators of MindSpore for usual images, where a `jpeg.Decoder` has its pixels."""
    return not _is_folder(config) or config.interpolation != vision.BILINEAR


# --- Last steps: uint8 (h, w, 3) -> float32 (channels, h, w)


def normalisation(config: Config, native: jpeg.Decoder | None = None) -> Final:
    """Scaling, normalisation and channel order. Raises UserError for channels that images do not have."""
    channels = config.in_channels
    if channels not in (1, 3):
        raise UserError(f"in_channels: {channels}; images have 1 (grayscale) or 3 (RGB)")
    if _is_folder(config):
        return Normalize(*_per_channel(config.mean, config.std, channels), native)
    to_unit = vision.operation("Rescale", 1 / 255, 0.0)
    if config.dataset == "mnist":
        normalize = vision.operation("Rescale", 1 / _MNIST_STD, -_MNIST_MEAN / _MNIST_STD)
        return lambda image, out: channels_first(normalize(to_unit(image)), channels, out)
    normalize = Normalize(*_per_channel(_CIFAR_MEAN, _CIFAR_STD, channels))
    return lambda image, out: normalize(to_unit(image), out)


def _per_channel(
    mean: Sequence[float], std: Sequence[float], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel; for grayscale RGB's are weighted as its luminance is."""
    wanted = (1, 3) if channels == 1 else (3,)
    for key, values in (("mean", mean), ("std", std)):
        if len(values) not in wanted:
            raise UserError(
                f"{key}: {len(values)} values; in_channels: {channels} takes {' or '.join(map(str, wanted))}"
            )

    def fit(values: Sequence[float]) -> tuple[float, ...]:
        return (float(_LUMINANCE @ values),) if len(values) > channels else tuple(values)

    return fit(mean), fit(std)


def color_jitter(value: float | tuple[float, ...]) -> ColorJitter:
    """The key `color_jitter`: one strength for brightness, contrast and saturation, or three, or four with hue."""
    return ColorJitter(*(value if isinstance(value, tuple) else (value,) * 3))


def _erasing(config: Config) -> RandomErasing:
    value = config.re_value
    if isinstance(value, tuple) and len(value) != config.in_channels:
        raise UserError(f"re_value: {len(value)} numbers for in_channels: {config.in_channels}; expected one for each")
    return RandomErasing(config.re_prob, config.re_scale, config.re_ratio, value, config.re_max_attempts)


def _auto_augment(config: Config) -> SeededPolicy:
    # mindcv's package imports its models: seconds that only recipes with a policy should pay.
    from mindcv.data import auto_augment as mindcv

    policy = config.auto_augment or ""
    factories = {
        "randaug": mindcv.rand_augment_transform,
        "autoaug": mindcv.auto_augment_transform,
        "autoaugr": mindcv.auto_augment_transform,
        "3a": mindcv.auto_augment_transform,
        "trivialaugwide": mindcv.trivial_augment_wide_transform,
        "augmix": mindcv.augment_and_mix_transform,
    }
    factory = factories[policy.split("-")[0]]
    mean = config.mean if _is_folder(config) else [255 * value for value in _CIFAR_MEAN]
    fill = tuple(min(255, round(value)) for value in mean)
    hparams = {
        "translate_const": int(min(input_size(config)) * 0.45),
        "img_mean": fill if len(fill) == 3 else fill * 3,
        "interpolation": vision.inter(config.interpolation),
    }
    if factory is mindcv.augment_and_mix_transform:
        hparams["translate_pct"] = 0.3
    return SeededPolicy(factory(policy, hparams))
