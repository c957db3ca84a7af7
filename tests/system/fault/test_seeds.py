"""The same seed gives the same run, with everything that draws random numbers."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers.training import assert_same_end
from tests.system.fault.runs import train, undisturbed

DRAWS = {
    "drop_rate": 0.5,
    "mixup": 0.2,
    "cutmix": 1.0,
    "cutmix_prob": 0.5,
    "auto_augment": "randaug-m9-mstd0.5",
    "re_prob": 0.5,
    "num_parallel_workers": 2,
}


@pytest.mark.slow
@pytest.mark.fault("the same seed twice", "ok")
@pytest.mark.parametrize("seed", range(10))
def test_two_runs_with_one_seed_are_one(seed, images, tmp_path):
    folders = [tmp_path / name / "run" for name in ("first", "second")]
    keys = {**DRAWS, "seed": seed, "epoch_size": 2, "decay_epochs": 2, "ckpt_save_interval_steps": None}

    def run(folder: Path) -> None:
        folder.parent.mkdir()
        undisturbed(train(images, folder, **keys), folder)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, folders))
    assert_same_end(*folders)
