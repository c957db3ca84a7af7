"""Config -> the parts that training and validation share."""

import pytest

from mindghost import build
from mindghost.config import Config
from mindghost.errors import UserError
from mindghost.models import create_model
from mindghost.tasks import names as class_names


def config(**keys) -> Config:
    return Config(**{"model": "ghostnet_050", "data_dir": "D"} | keys)


def test_class_names_beside_the_weights(tmp_path):
    assert class_names.saved_classes("") is None
    assert class_names.saved_classes(str(tmp_path / "w.ckpt")) is None
    (tmp_path / "classes.json").write_text('["b", "a"]')
    assert class_names.saved_classes(str(tmp_path / "w.ckpt")) == ["b", "a"]


@pytest.mark.parametrize("text", ["[", "{}", "[1, 2]", '"ab"'])
def test_damaged_class_names_are_one_line(text, tmp_path):
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(UserError, match="classes.json") as caught:
        class_names.saved_classes(str(tmp_path / "w.ckpt"))
    assert "\n" not in str(caught.value)


def test_training_takes_weights_from_one_place():
    both = config(pretrained=True, ckpt_path="w.ckpt")
    with pytest.raises(UserError, match="pretrained and ckpt_path both name weights"):
        build.load_weights(None, both, fine_tune=True)
    with pytest.raises(UserError, match="w.ckpt: no such file"):
        # Validation of a run that started from published weights: its own file counts.
        build.load_weights(create_model("ghostnet_050"), both, fine_tune=False)


@pytest.mark.parametrize(
    ("model", "weights"),
    [
        ("ghost_vgg16", "its PyTorch weights"),
        ("repghostnet_050", r"its PyTorch weights \(https://huggingface.co/timm/repghostnet_050.in1k\)"),
    ],
)
def test_a_network_without_published_weights_says_so(model, weights):
    message = f"pretrained: no weights of {model} are published for MindSpore; convert {weights} with"
    with pytest.raises(UserError, match=message):
        build.load_weights(None, config(model=model, pretrained=True), fine_tune=False)


@pytest.mark.parametrize(
    ("variant", "file", "digest"),
    [
        (True, "download.mindspore.cn/toolkits/mindcv/ghostnet/ghostnet_050-85b91860.ckpt", "85b91860"),
        (
            "910v2",
            "download-mindspore.osinfra.cn/toolkits/mindcv/ghostnet/ghostnet_050-ae7771cb-910v2.ckpt",
            "ae7771cb",
        ),
    ],
)
def test_published_weights_are_fetched_with_their_digest(monkeypatch, variant, file, digest):
    asked = []

    def fetch(url, folder, *, digest):
        asked.append((url.removeprefix("https://"), digest))
        raise UserError("offline")

    monkeypatch.setattr(build.download, "fetch", fetch)
    with pytest.raises(UserError, match="offline"):
        build.load_weights(None, config(pretrained=variant), fine_tune=False)
    assert asked == [(file, digest)]


@pytest.mark.fault("settings", "clean error")
def test_a_variant_that_nobody_has_published_is_one_line():
    known = (
        "^pretrained: no weights '910v3' of ghostnet_050 are published; the variants are 910v2; True takes the usual"
    )
    with pytest.raises(UserError, match=known):
        build.load_weights(None, config(pretrained="910v3"), fine_tune=False)
    with pytest.raises(UserError, match="'910v2' of ghostnet_100 are published; there are no variants; True takes"):
        build.load_weights(None, config(model="ghostnet_100", pretrained="910v2"), fine_tune=False)
