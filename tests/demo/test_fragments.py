"""The parts of the page: what they say, and that names of strangers stay text."""

import base64
import io
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mindghost.config import Config
from mindghost.demo import fragments
from mindghost.demo.answers import Answer, Wanted
from mindghost.inference.deployment import Deployment
from mindghost.inference.predictor import Prediction
from mindghost.search.picture import Neighbour
from mindghost.tasks.show import Guess

EVIL = "<script>alert(1)</script>&\"'"
NAMES = ("ant", EVIL, "cat")
TAGS = {"div", "h1", "h2", "p", "ol", "li", "span", "br", "figure", "figcaption", "img"}
PIXELS = np.full((30, 40, 3), 200, np.uint8)


def deployment(**keys) -> Deployment:
    config = Config(model="ghostnet_050", num_classes=3, image_resize=64, **keys)
    return Deployment(Path("/secret/place/x.ckpt"), config, NAMES)


def answerer(deployed: Deployment, index=None, **wanted) -> SimpleNamespace:
    return SimpleNamespace(deployed=deployed, index=index, wanted=Wanted(**wanted))


GUESSES = (Guess(1, EVIL, 0.75), Guess(0, "ant", 0.25))


def answer(guesses=GUESSES, **keys) -> Answer:
    prediction = Prediction(f"{EVIL}.png", tuple(guesses), pixels=PIXELS, mask=keys.pop("mask", None))
    return Answer(prediction, picture=PIXELS, **keys)


def is_harmless(html: str) -> bool:
    """Whether all tags are ours, and nothing is fetched."""
    tags = set(re.findall(r"<\s*/?\s*(\w+)", html))
    sources = re.findall(r"(?:src|href)\s*=\s*(\S{12})", html)
    return tags <= TAGS and set(sources) <= {'"data:image/'}


def test_a_heading_says_what_the_network_is():
    html = fragments.heading(answerer(deployment()), 120)
    assert "<h1>ghostnet_050</h1>" in html
    assert "3 classes: ant, &lt;script&gt;" in html
    assert "It sees 64 x 64 pixels." in html
    assert "deleted within 2 minutes" in html
    assert "No map" not in html
    assert is_harmless(html)


def test_a_heading_names_no_numbers_and_no_folders():
    html = fragments.heading(answerer(replace(deployment(), numbered=True)), 120)
    assert "3 classes. It sees" in html
    index = type("Index", (), {"path": Path("/secret/photos.index"), "__len__": lambda self: 1234})()
    html = fragments.heading(answerer(replace(deployment(), path=Path("/secret/x.onnx")), index), 120)
    assert "photos.index, which has 1,234 of them" in html
    assert "x.onnx is an exported file, which has no gradients" in html
    assert "secret" not in html
    assert "No map" not in fragments.heading(answerer(replace(deployment(), path=Path("x.onnx")), explain=False), 120)


def test_answers_have_their_names_and_bars():
    html = fragments.said(answer(), answerer(deployment()))
    assert is_harmless(html)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert [*re.findall(r"width: ([\d.]+)%", html)] == ["75.0", "25.0"]
    assert [*re.findall(r"class=number>([^<]*)<", html)] == ["75.00 %", "25.00 %"]
    assert "40 x 30 pixels" in html
    assert "several images" not in html
    assert "Most like it" not in html
    assert "several images" in fragments.said(answer(is_first=True), answerer(deployment()))


def shown(html: str, kind: str) -> list[np.ndarray]:
    found = re.findall(rf'<img class={kind} [^>]*src="data:image/\w+;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in found]


def test_the_map_stands_beside_the_picture():
    html = fragments.said(answer(overlay=PIXELS // 2), answerer(deployment()))
    picture, overlay = shown(html, "shown")
    np.testing.assert_array_equal(picture, PIXELS)
    np.testing.assert_array_equal(overlay, PIXELS // 2)
    assert "where it saw &lt;script&gt;" in html
    assert is_harmless(html)
    assert len(shown(fragments.said(answer(), answerer(deployment())), "shown")) == 1


def test_several_labels_may_be_none():
    deployed = deployment(task="multi_label", loss="BCE")
    html = fragments.said(answer((), overlay=PIXELS), answerer(deployed))
    assert "none: no label reaches its threshold" in html
    assert "where it saw the likeliest label" in html


def test_classes_of_pixels_have_their_colours():
    config = Config(model="ghost_unet", task="segmentation", num_classes=3, image_resize=64)
    colors = ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    deployed = replace(deployment(), config=config, colors=colors)
    mask = np.zeros((30, 40), np.uint8)
    html = fragments.said(answer(overlay=PIXELS, mask=mask), answerer(deployed))
    assert re.findall(r"background: rgb(\([^)]*\))", html) == ["(4, 5, 6)", "(1, 2, 3)"]
    assert "the class of each pixel" in html
    assert 'aria-label="share"' in html
    assert is_harmless(html)


def test_neighbours_have_score_class_and_name_but_no_folder(tmp_path):
    there = tmp_path / "secret" / f"{EVIL.replace('/', '')}.png"
    there.parent.mkdir()
    Image.fromarray(PIXELS).save(there)
    neighbours = (Neighbour(str(there), 0.98765, 0, "ant"), Neighbour("secret/gone.png", 0.5))
    index = type("Index", (), {"__len__": lambda self: 2})()
    html = fragments.said(answer(neighbours=neighbours), answerer(deployment(), index))
    assert is_harmless(html)
    assert "0.9877 ant<br>" in html
    assert "0.5000<br>(cannot be read)" in html
    assert "secret" not in html
    first, second = shown(html, "like")
    assert first.shape == second.shape == (160, 160, 3)
    assert abs(int(first[80, 80, 0]) - 200) < 4


@pytest.mark.parametrize("message", ["x.png: not a readable image", f"{EVIL}: bad"])
def test_a_problem_is_all_there_is(message):
    answer = Answer(Prediction("x.png", (), message))
    html = fragments.said(answer, answerer(deployment()))
    assert html == fragments.problem(message)
    assert "role=alert" in html
    assert is_harmless(html)


def test_the_style_fetches_nothing():
    assert not any(word in fragments.STYLE for word in ("url(", "@import", "http"))
