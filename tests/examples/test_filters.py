"""examples/evidence/filters.py: two filters that resize photos."""

import filters
import numpy as np
import pytest
from PIL import Image

from tests.helpers.commands import command
from tests.helpers.pictures import write_images


def test_filters_agree_where_nothing_is_to_be_filtered():
    plain = [np.full((40, 60, 3), value, np.uint8) for value in (0, 200)]
    found = filters.crops(plain, 16, (0.5, 1.0), (0.75, 1.333))
    assert found.apart == [0, 0]
    assert len(found.shrunk) == 4
    # The whole of a square, at twice the size; a crop of that size stays as it is.
    assert filters.crops([np.zeros((32, 32, 3), np.uint8)], 16, (1.0, 1.0), (1.0, 1.0)).shrunk == [2, 2]
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert filters.crops([noise], 32, (1.0, 1.0), (1.0, 1.0)).apart == [0]
    assert filters.crops([noise], 8, (1.0, 1.0), (1.0, 1.0)).apart[0] > 20  # of one in four, MindSpore's sees two


def test_pillows_evaluation_is_that_of_timm():
    """The shorter side becomes size / share, rounded down; an odd rest is halved to an even number."""
    image = np.random.default_rng(0).integers(0, 256, (50, 75, 3), np.uint8)
    found = filters.evaluated_by_pillow(28, 0.875)(image)
    whole = Image.fromarray(image).resize((48, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(found, np.asarray(whole)[2:30, 10:38])
    odd = np.random.default_rng(0).integers(0, 256, (32, 35, 3), np.uint8)
    assert np.array_equal(filters.evaluated_by_pillow(32, 1.0)(odd), odd[:, 2:34])  # 1.5 becomes 2


@pytest.mark.fault("examples", "clean error")
def test_a_folder_without_photos_is_refused(tmp_path, monkeypatch, capsys):
    write_images(tmp_path / "photos", ("ant",))
    words = ("--data_dir", tmp_path)
    status, said = command(filters.main, filters.PROG, *words, monkeypatch=monkeypatch, capsys=capsys)
    assert status == 2
    assert said == f"filters.py: error: --data_dir: {tmp_path / 'train'}: no CLASS/* in it; photos.py makes them\n"
