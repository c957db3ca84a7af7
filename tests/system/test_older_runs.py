"""A run and a weight file that the package made under its first name, flat and with one kind of labels, are taken up.

`golden/run_before_the_move` is two of three epochs of a network of four bottlenecks, on the images of
`helpers.pictures.write_images`; its metrics hold the third epoch too, as that version made it.
"""

import json
import shutil
from pathlib import Path

import mindspore as ms
import pytest

from mindghost.config import Config
from mindghost.evaluate.validate import validate
from mindghost.models import ghostnet
from mindghost.train.trainer import train
from tests.helpers.pictures import write_images
from tests.helpers.run_records import records

OLD = Path(__file__).parents[1] / "golden" / "run_before_the_move"


@pytest.fixture
def images_of_then(tmp_path, monkeypatch) -> Path:
    stages = tuple((ghostnet.STAGES[stage][0],) for stage in (0, 1, 3, 4))
    monkeypatch.setattr(ghostnet, "STAGES", stages)
    return write_images(tmp_path / "images", ("ant", "bee", "cat"), train_images=8, val_images=3)


def test_a_run_is_resumed(images_of_then, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(OLD, run)
    config = Config.from_file(run / "config.yaml")
    train(config.replace(data_dir=str(images_of_then), ckpt_save_dir=str(run), resume=True))
    then, now = map(records, (OLD, run))
    assert now[:2] == then[:2]
    # Operators of another version of MindSpore, pictures of other ones of its transforms: the losses would be others.
    made_by = json.loads((OLD / "run.json").read_text())[0]["versions"]["mindspore"]
    for key in ("epoch", "step", "lr", *(("train_loss", "val_loss") if made_by == ms.__version__ else ())):
        assert now[2][key] == pytest.approx(then[2][key], rel=1e-3)
    assert len(json.loads((run / "run.json").read_text())) == 2


def test_a_weight_file_is_read(images_of_then):
    weights = OLD / "ghostnet_050-2_3.ckpt"
    config = Config.from_file(OLD / "config.yaml").replace(data_dir=str(images_of_then), ckpt_path=str(weights))
    second = records(OLD)[1]
    found = validate(config)
    assert found.metrics.loss == pytest.approx(second["val_loss"], rel=1e-5)
    assert found.metrics.score == pytest.approx(second["top_1"])
