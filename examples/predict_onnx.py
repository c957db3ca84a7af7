"""What an exported ONNX file says of images, without MindSpore: `python predict_onnx.py MODEL.onnx IMAGES...`

The five likeliest classes; of a network that gives images several labels, those that reach their threshold; of one that
gives each pixel a class, the share of each, and in the working folder NAME.mask.png, as large as the image.
Needs numpy, Pillow and onnxruntime; copy it to where the file goes.
"""

import json
import os
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def resampling(side, resized, wanted, cubic):
    """(wanted, side): shares of an image's rows in those cut out of the middle once resized, as OpenCV has them."""
    at = (np.arange(wanted) + (resized - wanted) // 2 + 0.5) * side / resized - 0.5
    whole = np.floor(at)
    s, shares = at - whole, np.zeros((wanted, side), np.float32)
    parts = {0: 1 - s, 1: s}
    if cubic:
        near, far = (lambda x: 1.25 * x**3 - 2.25 * x**2 + 1), (lambda x: -0.75 * (x**3 - 5 * x**2 + 8 * x - 4))
        parts = {-1: far(1 + s), 0: near(s), 1: near(1 - s), 2: far(2 - s)}
    for step, part in parts.items():
        np.add.at(shares, (np.arange(wanted), np.int64(np.clip(whole + step, 0, side - 1))), part)
    return shares


def pixels_of(path, color):
    """float32 (channels, height, width) of an image, turned upright: see `preprocessing` in docs/deploying.md."""
    with Image.open(path) as file:
        # Pillow turns TIFF files itself.
        image = file.copy() if file.format == "TIFF" else ImageOps.exif_transpose(file)
    if image.mode.startswith("I"):  # 16 bits
        image = Image.fromarray(np.uint8((np.asarray(image).astype(int) + 128) // 257))
    image = image.convert("RGBA" if image.mode in ("P", "PA") else "RGB").convert("RGB").convert(color)
    return np.float32(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)


def placed(size, steps):
    """Height and width of an image once it is resized, and those of what is taken out of its middle."""
    scales = [wanted / side for wanted, side in zip(steps["resize"], size, strict=True)]
    if "center_crop" in steps:
        return [int(side * max(scales) + 1e-6) for side in size], steps["center_crop"]
    within = [max(1, int(side * min(scales) + 0.5)) for side in size]
    return within, within


def network_input(path, steps):
    """float32 (1, channels, height, width): resized, cut out of the middle or padded, normalised."""
    pixels = pixels_of(path, steps["color"])
    resized, wanted = placed(pixels.shape[1:], steps)
    down, across = map(resampling, pixels.shape[1:], resized, wanted, [steps["interpolation"] == "bicubic"] * 2)
    pixels = np.clip(np.rint(down @ pixels @ across.T), 0, 255)
    mean, std = (np.reshape(np.float32(steps[key]), (-1, 1, 1)) for key in ("mean", "std"))
    below, beside = [0, 0] if "center_crop" in steps else np.subtract(steps["resize"], wanted)
    return np.pad((pixels - mean) / std, ((0, 0), (0, below), (0, beside)))[np.newaxis]


def mask_of(logits, path, steps):
    """The class of each pixel of an image: uint8 or uint16 (height, width)."""
    size = pixels_of(path, steps["color"]).shape[1:]
    height, width = placed(size, steps)[1]
    down, across = map(resampling, (height, width), size, size, [False] * 2)
    found = (down @ logits[:, :height, :width] @ across.T).argmax(axis=0)
    return found.astype(np.uint8 if len(logits) <= 256 else np.uint16)


def write_mask(name, mask, colors):
    """A PNG file of indices, with the classes' colours as its palette. What is there already is left as it is."""
    if os.path.lexists(name):
        sys.exit(f"{shown(name)}: is there already; move it away")
    picture = Image.fromarray(mask)
    if mask.dtype == np.uint8:
        picture.putpalette([part for color in colors for part in color] + [0] * 3 * (256 - len(colors)))
    picture.save(name)


def shares(logits):
    """Sigmoid: the probability of each label on its own."""
    return 1 / (1 + np.exp(-np.clip(np.float64(logits), -700, 700)))


def shown(text):
    """A name on one line, with escapes for whatever a terminal would obey or not show."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")
    with open(sys.argv[1], "rb") as file:
        session = onnxruntime.InferenceSession(file.read(), providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["ghostnet"])
    if facts["preprocessing"]["interpolation"] not in ("bilinear", "bicubic"):
        sys.exit(
            f"{shown(sys.argv[1])}: images are resized by {facts['preprocessing']['interpolation']}, which is not here"
        )
    task = facts["config"].get("task", "classification")
    if task not in ("classification", "multi_label", "segmentation"):
        sys.exit(f"{shown(sys.argv[1])}: is made for the task {shown(task)}, which is not here")
    names = facts.get("names", facts["classes"])  # words, where classes are ids of ImageNet's
    thresholds = facts.get("thresholds", [0.5] * len(facts["classes"]))
    for path in sys.argv[2:]:
        logits = session.run(None, {"image": network_input(path, facts["preprocessing"])})[0][0]
        if task == "segmentation":
            mask = mask_of(logits, path, facts["preprocessing"])
            write_mask(os.path.splitext(os.path.basename(path))[0] + ".mask.png", mask, facts["colors"])
            shares_of = np.bincount(mask.ravel()) / mask.size
            found = [f"{names[label]} {shares_of[label]:.1%}" for label in np.argsort(-shares_of) if shares_of[label]]
            print(*map(shown, [path, *found]), sep="\t")
            continue
        labels = np.argsort(-logits, kind="stable")
        if task == "multi_label":
            found = [label for label in labels if shares(logits)[label] >= thresholds[label]]
        else:
            found = labels[:5]
        print(*map(shown, [path, *([names[label] for label in found] or ["none"])]), sep="\t")
