"""Published weights have words for their classes; weights of anybody else never get them."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from mindghost import build
from mindghost.checkpoint import weights as weights_file
from mindghost.cli import predict
from mindghost.config import Config
from mindghost.data.imagenet import names as imagenet_names
from mindghost.deploy import model_card
from mindghost.evaluate.validate import validate
from mindghost.inference import artifact, deployment, published
from mindghost.models import Weights, create_model, ghostnet
from mindghost.tasks.report import words
from tests.helpers import short
from tests.helpers.pictures import save_image

DOG, FISH = "n02099601", "n01440764"  # of label 207 and 0
SYNSETS = imagenet_names.synsets()


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Weights that say golden retriever of any image, published as those of ghostnet_050."""
    monkeypatch.setattr(ghostnet, "STAGES", short.stages())
    network = create_model("ghostnet_050", num_classes=1000)
    arrays = {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}
    arrays["classifier.weight"] = np.zeros_like(arrays["classifier.weight"])
    arrays["classifier.bias"] = np.float32(np.arange(1000) == SYNSETS.index(DOG))
    path = tmp_path / "weights" / "ghostnet_050-any.ckpt"
    path.parent.mkdir()
    weights_file.write(path, arrays)
    digest, facts = hashlib.sha256(path.read_bytes()).hexdigest(), build.facts

    def known(model: str):
        return replace(facts(model), weights={"": Weights("https://any/any.ckpt", digest[:8], 66.0, 86.0)})

    monkeypatch.setattr(build, "facts", known)
    return path


def test_published_weights_are_told_by_their_sha256(weights, tmp_path):
    found = artifact.of_file(weights, model="ghostnet_050")
    assert (found.classes, found.numbered) == (SYNSETS, False)
    said = found.describe()
    assert said["classes"] == list(SYNSETS)
    assert (said["names"][0], said["names"][207]) == ("tench", "golden retriever")
    assert deployment.of_description(tmp_path / "x.onnx", json.loads(json.dumps(said))).classes == SYNSETS
    own = Config(model="ghostnet_050", ckpt_path=str(weights))
    assert published.classes(own) == list(SYNSETS)
    assert published.classes(own.replace(num_classes=10)) is None
    assert published.classes(own.replace(ckpt_path="", pretrained=True)) == list(SYNSETS)
    assert published.classes(own.replace(ckpt_path="")) is None
    assert published.classes(own.replace(model="ghost_resnet56", dataset="cifar10")) is None
    other = tmp_path / "other.ckpt"
    other.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert published.classes(own.replace(ckpt_path=str(other))) is None
    numbered = artifact.of_file(other, model="ghostnet_050")
    assert (numbered.classes[:2], numbered.numbered) == (("0", "1"), True)
    assert "names" not in numbered.describe()


def test_reports_and_cards_have_words():
    assert words.output_names([FISH, "rose"], 3) == ["tench", "rose", "#2"]
    assert model_card._class_list([FISH, "rose"]) == "In label order: tench, rose."


@pytest.mark.fault("imagenet", "ok")
def test_words_are_predicted_and_some_folders_have_their_labels(weights, tmp_path, capsys):
    for synset, count in ((DOG, 3), (FISH, 1)):
        for number in range(count):
            save_image(tmp_path / "data" / "val" / synset / f"{number}.png", number)
    image = str(tmp_path / "data" / "val" / DOG / "0.png")
    predict.main([image, "--ckpt_path", str(weights), "--model", "ghostnet_050", "--json", "--top_k", "1"])
    out, err = capsys.readouterr()
    assert json.loads(out)["predictions"][0]["class"] == "golden retriever"
    assert "no class names" not in err
    keys = {"model": "ghostnet_050", "data_dir": str(tmp_path / "data"), "image_resize": 32, "mode": 1}
    config = Config(**keys, ckpt_path=str(weights), num_parallel_workers=1, predictions=str(tmp_path / "p.jsonl"))
    assert validate(config).metrics.top_1 == 75
    rows = list(map(json.loads, (tmp_path / "p.jsonl").read_text().splitlines()))
    assert [(row["true_label"], row["true_class"]) for row in rows] == [(0, "tench")] + 3 * [(207, "golden retriever")]
    # The same of a copy that nobody published, since its classes are said; the folders are not its first outputs.
    other = tmp_path / "other.ckpt"
    arrays = weights_file.read(weights)
    arrays["classifier.bias"] = arrays["classifier.bias"] * 2
    weights_file.write(other, arrays)
    again = config.replace(ckpt_path=str(other), num_classes=1000, predictions="")
    assert validate(again).metrics.top_1 == 75
    predict.main([image, "--ckpt_path", str(other), "--model", "ghostnet_050", "--class_names", "imagenet", "--csv"])
    assert capsys.readouterr().out.splitlines()[-5].split(",")[2:4] == ["golden retriever", "207"]
