"""Runs as a model card reads them, written without training."""

import json
from pathlib import Path

import numpy as np

from mindghost.checkpoint import weights as weights_file
from mindghost.config import Config

CLASSES = ["ant", "a|b", "*cat*", "dog", "elk"]
SESSION = {
    "command": "python train.py -c my.yaml --data_dir /data/animals",
    "started": "2026-11-22T07:17:00+01:00",
    "device": "CPU",
    "ranks": 2,
    "cpu": "Some Processor",
    "cores": 3,
    "platform": "Linux-6.1",
    "versions": {"python": "3.11.2", "ghostnet": "0.1.0", "mindspore": "2.10.0"},
    "commit": "0123456789abcdef-dirty",
    "epoch": 0,
    "step": 0,
    "images": {"train": 1234, "val": 567},
}
NO_VALUES = ("val_loss", "top_1", "top_5")
TOP_1 = [50.123, 61.457, 61.457, 58.9]


def write_run(folder: Path, validated: bool = True, **keys) -> Path:
    """The files of a run that a card reads: four epochs, of which the second and the third are best."""
    folder.mkdir(parents=True)
    options = {
        "model": "ghostnet_050",
        "num_classes": 5,
        "data_dir": "/data/animals",
        "epoch_size": 4,
        "image_resize": 96,
    }
    (folder / "config.yaml").write_text(Config(**{**options, **keys}).to_yaml())
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    (folder / "run.json").write_text(json.dumps([SESSION]))
    lines = []
    for epoch, top_1 in enumerate(TOP_1, 1):
        found = {"val_loss": 2.5 / epoch, "top_1": top_1, "top_5": 100.0} if validated else dict.fromkeys(NO_VALUES)
        record = {"epoch": epoch, "step": 10 * epoch, "lr": 0.1, "base_lr": 0.1, "train_loss": 3.0 / epoch, **found}
        lines.append(json.dumps({**record, "images_per_second": 100.5 * epoch, "seconds": 10.25}))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    arrays = {"conv.weight": np.ones((7, 3), np.float32), "bn.moving_mean": np.zeros(11, np.float32)}
    for end in ("best", "last") if validated else ("last",):
        weights_file.write(folder / f"ghostnet_050_{end}.ckpt", {**arrays, end: np.ones(1, np.float32)})
    return folder
