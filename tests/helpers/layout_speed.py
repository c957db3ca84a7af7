"""Images per second in training order, the same photos in each layout: `python -m tests.helpers.layout_speed`.

Of one core, by its processor's time; what a disk costs is not in it. The photos are made up, 500 x 375, some 90 KB.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from mindghost.config import Config
from mindghost.data import dataset, transforms
from mindghost.data.parquet import row_groups
from tests.helpers.shards import huggingface, image_files, webdataset

_CLASSES, _MEASURED = 10, 400
_LAYOUTS = (("folders", 0), ("tar", 0), ("parquet", 32), ("snappy100", 256), ("snappy100", 32), ("snappy1000", 32))


def make(root: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for index in range(count):
        smooth = Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)).resize((500, 375), Image.BICUBIC)
        pixels = np.asarray(smooth).astype(int) + rng.integers(-28, 28, (375, 500, 3))
        file = root / "folders" / "train" / f"c{index % _CLASSES}" / f"{index:05}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.uint8(np.clip(pixels, 0, 255))).save(file, quality=88)
    folder = root / "folders" / "train"
    files = image_files(folder)
    random.Random(0).shuffle(files)
    webdataset(root / "tar" / "train-0.tar", folder, files)
    huggingface(root / "parquet" / "train.parquet", folder, files, 100)
    for group in (100, 1000):
        packed = {"compression": "snappy", "use_dictionary": True}
        huggingface(root / f"snappy{group}" / "train.parquet", folder, files, group, **packed)


def measure(root: Path) -> float:
    config = Config(data_dir=str(root), image_resize=224)
    samples, transform = dataset.open_split(config, "train"), transforms.train_transform(config)
    out = np.empty((3, 224, 224), np.float32)
    order = np.random.default_rng(1).permutation(len(samples))[:_MEASURED]
    for index in samples.reading_order(order):  # as the check of all images does before training
        samples.content(int(index))
    started = time.process_time()
    for index in order:
        transform(transforms.as_rgb(samples.open(int(index)), 3), np.random.default_rng(int(index)), out)
    return len(order) / (time.process_time() - started)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
        for name, megabytes in _LAYOUTS:
            row_groups._KEPT_BYTES = megabytes << 20
            kept = f", {megabytes} MB kept" if megabytes else ""
            print(f"{name}{kept}: {measure(Path(folder) / name):.0f} images/s")
