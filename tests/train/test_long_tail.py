"""Long-tailed digits: what class weights and a balanced sampler do for rare classes, against a run without them."""

import csv

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from mindghost.config import Config
from mindghost.evaluate.validate import validate
from mindghost.models import ghostnet
from mindghost.train.trainer import train
from tests.helpers import short

# Training images of each digit; the last three are rare.
SIZES = (140, 90, 60, 40, 25, 16, 10, 7, 5, 4)
RARE = range(7, 10)
KEYS = {
    "model": "ghostnet_050",
    "image_resize": 32,
    "batch_size": 16,
    "epoch_size": 12,
    "warmup_epochs": 0,
    "decay_epochs": 12,
    "opt": "momentum",
    "lr": 0.05,
    "weight_decay": 1e-4,
    "hflip": 0.0,
    "color_jitter": None,
    "scale": (0.8, 1.0),
    "num_parallel_workers": 1,
    "num_classes": 10,
}
VARIANTS = {"plain": {}, "class_weights": {"class_weights": "balanced"}, "sampler": {"sampler": "balanced"}}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """As many training images of each digit as SIZES says, and 30 of each to validate on."""
    root = tmp_path_factory.mktemp("digits")
    found = load_digits()
    for label in range(10):
        images = found.images[found.target == label]
        for split, part in (("val", images[:30]), ("train", images[30:][: SIZES[label]])):
            folder = root / split / str(label)
            folder.mkdir(parents=True)
            for index, image in enumerate(part):
                picture = Image.fromarray(np.uint8(image * (255 / 16))).resize((32, 32), Image.Resampling.BICUBIC)
                picture.save(folder / f"{index:03}.png")
    return root


def recalls(digits, folder, seed: int, **keys) -> np.ndarray:
    """Of each digit, the share of its validation images that is recognised after a training."""
    config = Config(**KEYS, **keys, seed=seed, data_dir=str(digits), ckpt_save_dir=str(folder))
    train(config)
    rows = folder / "rows.csv"
    validate(config.replace(ckpt_path=str(folder / "ghostnet_050_last.ckpt"), predictions=str(rows)))
    with open(rows, newline="") as file:
        pairs = np.array([(int(row["true_label"]), int(row["top_1_label"])) for row in csv.DictReader(file)])
    return np.array([(pairs[pairs[:, 0] == label, 1] == label).mean() for label in range(10)])


@pytest.mark.slow
def test_rare_classes_are_recognised_more_often(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(ghostnet, "STAGES", short.stages())
    found = {
        name: np.mean([recalls(digits, tmp_path / f"{name}_{seed}", seed, **keys) for seed in (1, 2)], axis=0)
        for name, keys in VARIANTS.items()
    }
    for name, shares in found.items():
        rare, frequent = shares[list(RARE)].mean(), shares[:7].mean()
        print(f"{name}: recall of rare digits {rare:.1%}, of the others {frequent:.1%}, of all {shares.mean():.1%}")
    plain = found.pop("plain")
    for shares in found.values():
        assert shares[list(RARE)].mean() > plain[list(RARE)].mean() + 0.05
        assert shares.mean() > plain.mean()
