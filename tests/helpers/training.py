"""Short runs of train.py: how they are started, and what two equal ones have in common."""

from pathlib import Path

import numpy as np

from mindghost.checkpoint import weights as weights_file
from tests.helpers import event_files
from tests.helpers.commands import flags
from tests.helpers.places import RECIPE, ROOT
from tests.helpers.run_records import records

SHORT = {
    "epoch_size": 2,
    "warmup_epochs": 0,
    "decay_epochs": 2,
    "batch_size": 8,
    "image_resize": 32,
    "num_parallel_workers": 1,
}


# Everything that draws numbers is on, and so are average, accumulation and several workers.
KEYS = {
    **SHORT,
    "num_classes": 6,
    "num_parallel_workers": 2,
    "mixup": 0.2,
    "cutmix": 0.5,
    "drop_rate": 0.3,
    "ema": True,
    "gradient_accumulation_steps": 2,
    "batch_size": 6,
    "ckpt_save_interval_steps": 2,
    "log_interval": 1,
    "tensorboard": True,
}


def arguments(images: Path, folder: Path, **keys) -> list[str]:
    """Of Python: train.py with a short network."""
    return [
        str(ROOT / "tests" / "helpers" / "short.py"),
        "train.py",
        "-c",
        str(RECIPE),
        *flags(**{**KEYS, "data_dir": images, "ckpt_save_dir": folder, **keys}),
    ]


def without_times(folder: Path) -> list[dict]:
    return [
        {k: v for k, v in record.items() if k not in ("images_per_second", "seconds")} for record in records(folder)
    ]


def assert_same_end(folder: Path, straight: Path) -> None:
    assert without_times(folder) == without_times(straight)
    event_files.assert_equals_metrics(folder)
    # The state before the last depends on how often one was saved.
    names = {file.name for file in straight.glob("*.ckpt")} - {"run_state_previous.ckpt"}
    assert {"run_state.ckpt", "ghostnet_050_last.ckpt"} < names
    for name in names:
        found, expected = (weights_file.read(run / name) for run in (folder, straight))
        sizes = {"run_log_bytes", "run_metrics_bytes"}  # of text that holds times
        assert set(found) == set(expected)
        for key in set(expected) - sizes:
            np.testing.assert_array_equal(found[key], expected[key], err_msg=f"{name}: {key}")
