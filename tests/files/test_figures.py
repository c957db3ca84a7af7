"""Pictures with names of any kind in them: nothing raises, nothing warns, and a name is drawn as it is."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from mindghost.files import figures
from mindghost.runs import curves

matplotlib = pytest.importorskip("matplotlib")
RECORD = {"epoch": 1, "train_loss": 1.0, "val_loss": 1.0, "top_1": 50.0, "top_5": 90.0, "lr": 0.1}


def drawn(name: str) -> np.ndarray:
    """The pixels of a figure with a name in it, and in its legend."""
    from matplotlib.figure import Figure

    def draw() -> Figure:
        figure = Figure((4, 2), 50)
        axes = figure.subplots()
        axes.plot([0, 1], label=figures.label(name))
        axes.legend(loc="upper left")
        axes.set_title(figures.label(name))
        return figure

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return np.asarray(Image.open(io.BytesIO(figures.png(draw))))


@pytest.mark.fault("class names", "ok")
@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("a\nb", r"a\nb"),
        ("\udcff\x1b", r"\xff\x1b"),
        ("$\\frac$", None),  # as a formula it raises
        ("_hidden", " _hidden"),  # no entry of a legend begins so
        ("😀\u0f3f猫", None),  # signs that fonts lack
    ],
)
def test_a_name_is_drawn_as_it_is(name, like):
    pixels = drawn(name)
    assert not np.array_equal(pixels, drawn("x"))
    if like:
        assert np.array_equal(pixels, drawn(like))


def test_a_dollar_is_no_formula():
    assert not np.array_equal(drawn("$x$"), drawn("x"))
    with matplotlib.rc_context({"text.usetex": True}):  # of a user's own settings
        drawn("$x$")


def test_runs_of_any_name_are_drawn():
    runs = [(name, [RECORD]) for name in ("$\\frac$", "a\nb\udcff", "_x" * 80)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert curves.png(runs, {}).startswith(b"\x89PNG")
        assert curves.png(runs[:1], {}).startswith(b"\x89PNG")
