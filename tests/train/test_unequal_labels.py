"""A run whose classes and samples count differently, and are drawn equally often: resumed, it ends as one go."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from mindghost.checkpoint import weights as weights_file
from mindghost.config import Config
from mindghost.errors import UserError
from mindghost.models import ghostnet
from mindghost.tasks.classification.task import Classification
from mindghost.train.trainer import train
from tests.helpers import short
from tests.helpers.pictures import save_image
from tests.helpers.training import without_times

SIZES = {"ant": 9, "bee": 3, "cat": 2}
KEYS = {
    "model": "ghostnet_050",
    "mode": 1,
    "native_ops": "off",
    "image_resize": 32,
    "batch_size": 4,
    "epoch_size": 2,
    "warmup_epochs": 0,
    "decay_epochs": 2,
    "num_parallel_workers": 1,
    "val_while_train": True,
    "mixup": 0.2,
    "label_smoothing": 0.1,
    "class_weights": "balanced",
    "sampler": "balanced",
}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Images of three classes; the n-th of the training images weighs n + 1."""
    monkeypatch.setattr(ghostnet, "STAGES", short.stages())
    for split in ("train", "val"):
        for name, size in SIZES.items():
            for index in range(size):
                save_image(tmp_path / "data" / split / name / f"{index}.png", 20 * index)
    open_split = Classification.open_split

    def weighted(self, config, split, known=None, *rest):
        samples = open_split(self, config, split, known, *rest)
        return replace(samples, weights=np.arange(1, len(samples) + 1, dtype=np.float32))

    monkeypatch.setattr(Classification, "open_split", weighted)
    return tmp_path / "data"


@pytest.mark.fault("labels", "ok")
def test_a_run_that_goes_on(data, tmp_path):
    config = Config(**KEYS, data_dir=str(data), ckpt_save_dir=str(tmp_path / "straight"))
    train(config)
    kept = Config.from_file(tmp_path / "straight" / "config.yaml")
    labels = np.repeat(np.arange(3), list(SIZES.values()))
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert kept.class_weights == pytest.approx(expected.tolist(), rel=1e-12)

    state = tmp_path / "straight" / "run_state_previous.ckpt"
    resumed = config.replace(ckpt_save_dir=str(tmp_path / "resumed"), resume=str(state))
    train(resumed)
    assert without_times(tmp_path / "resumed") == without_times(tmp_path / "straight")
    found, wanted = (weights_file.read(tmp_path / run / "run_state.ckpt") for run in ("resumed", "straight"))
    for key in set(wanted) - {"run_log_bytes", "run_metrics_bytes"}:
        np.testing.assert_array_equal(found[key], wanted[key], err_msg=key)
    # What is left out of the command line is what it was, too; other numbers are refused.
    with pytest.raises(UserError, match=r"changed since .* class_weights: \(0\.5.* -> \(1\.0, 2\.0, 3\.0\)"):
        train(resumed.replace(ckpt_save_dir=str(tmp_path / "other"), class_weights=(1.0, 2.0, 3.0)))
