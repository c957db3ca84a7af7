"""Colours of classes: all different, and told apart by people who do not see all colours, too."""

import numpy as np
import pytest

from mindghost.tasks.segmentation import classes, colors

# Of Cityscapes, made by hand.
CITYSCAPES = """128 64 128 244 35 232 70 70 70 102 102 156 190 153 153 153 153 153 250 170 30 220 220 0 107 142 35 152
251 152 70 130 180 220 20 60 255 0 0 0 0 142 0 0 70 0 60 100 0 80 100 0 0 230 119 11 32"""


def smallest(found) -> float:
    """The smallest difference between two of some colours, to whoever sees it least."""
    seen = colors.seen(np.array(found, np.float64))
    return min(colors.differences(seen[:index], seen[index]).min() for index in range(1, len(seen)))


def test_values_of_the_literature():
    red, green, white = colors.seen(np.array([[255, 0, 0], [0, 255, 0], [255, 255, 255]], np.float64))
    np.testing.assert_allclose(red[0], [53.2, 80.1, 67.2], atol=0.2)
    np.testing.assert_allclose(green[0], [87.7, -86.2, 83.2], atol=0.2)
    np.testing.assert_allclose(white, [[100, 0, 0]] * 4, atol=0.01)
    # Who lacks a kind of cones sees less of a difference between red and green.
    differences = np.linalg.norm(red - green, axis=-1)
    assert (differences[1:3] < differences[0] / 1.5).all()


@pytest.mark.parametrize(("count", "least"), [(2, 80), (8, 16), (21, 16), (40, 12), (150, 5)])
def test_a_palette_where_there_are_no_colours(count, least):
    found = classes.palette(count)
    assert len(set(found)) == count
    assert found == classes.palette(200)[:count]
    assert smallest(found) > least


def test_others_are_harder_to_tell_apart():
    assert smallest(np.array(CITYSCAPES.split(), int).reshape(19, 3)) < smallest(classes.palette(19)) / 4


def test_the_most_classes_that_there_may_be():
    assert len(set(classes.palette(4_096))) == 4_096
