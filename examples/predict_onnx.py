"""What an exported ONNX file says of images, without MindSpore: `python predict_onnx.py MODEL.onnx IMAGES...`

The five likeliest classes; of a network that gives images several labels, those that reach their threshold.
Needs numpy, Pillow and onnxruntime; copy it to where the file goes.
"""

import json
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


def network_input(path, steps):
    """float32 (1, channels, height, width), by the description: see `preprocessing` in docs/deploying.md."""
    with Image.open(path) as file:
        # Pillow turns TIFF files itself.
        image = file.copy() if file.format == "TIFF" else ImageOps.exif_transpose(file)
    if image.mode.startswith("I"):  # 16 bits
        image = Image.fromarray(np.uint8((np.asarray(image).astype(int) + 128) // 257))
    image = image.convert("RGBA" if image.mode in ("P", "PA") else "RGB").convert("RGB").convert(steps["color"])
    pixels = np.float32(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)
    scale = max(cover / side for cover, side in zip(steps["resize"], pixels.shape[1:], strict=True))
    down, across = (
        resampling(side, int(side * scale + 1e-6), wanted, steps["interpolation"] == "bicubic")
        for side, wanted in zip(pixels.shape[1:], steps["center_crop"], strict=True)
    )
    pixels = np.clip(np.rint(down @ pixels @ across.T), 0, 255)
    mean, std = (np.reshape(np.float32(steps[key]), (-1, 1, 1)) for key in ("mean", "std"))
    return ((pixels - mean) / std)[np.newaxis]


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
    if task not in ("classification", "multi_label"):
        sys.exit(f"{shown(sys.argv[1])}: is made for the task {shown(task)}, which is not here")
    names = facts.get("names", facts["classes"])  # words, where classes are ids of ImageNet's
    thresholds = facts.get("thresholds", [0.5] * len(facts["classes"]))
    for path in sys.argv[2:]:
        logits = session.run(None, {"image": network_input(path, facts["preprocessing"])})[0][0]
        labels = np.argsort(-logits, kind="stable")
        if task == "multi_label":
            found = [label for label in labels if shares(logits)[label] >= thresholds[label]]
        else:
            found = labels[:5]
        print(*map(shown, [path, *([names[label] for label in found] or ["none"])]), sep="\t")
