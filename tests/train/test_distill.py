"""Knowledge distillation: the loss against hand-computed values, and teachers of every kind."""

import mindspore as ms
import numpy as np
import pytest
from mindcv.loss import create_loss
from mindspore import Tensor, nn

from mindghost.checkpoint import weights as weights_file
from mindghost.config import Config
from mindghost.errors import UserError
from mindghost.models import create_model
from mindghost.models.layers import Dropout
from mindghost.train import distill
from mindghost.train.distill import DistillationLoss, TaughtStep
from mindghost.train.step import StepOptions, TrainStep, training_loss
from mindghost.train.update import update_by
from tests.helpers.steps import batch, tiny
from tests.helpers.weights import randomise


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def config(**keys) -> Config:
    return Config(**{"data_dir": "D", "num_classes": 10, "batch_size": 2, "image_resize": 32} | keys)


@pytest.fixture(autouse=True)
def pynative():
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_is_the_published_one(reduction):
    rng = np.random.default_rng(0)
    logits, taught = rng.normal(0, 3, (2, 6, 5))
    labels = rng.integers(0, 5, 6)
    true = -np.log(softmax(logits)[np.arange(6), labels])
    goal, found = softmax(taught / 4), softmax(logits / 4)
    expected = 0.7 * true + 0.3 * 16 * (goal * np.log(goal / found)).sum(1)
    keys = {"teacher": "ghostnet_100", "distill_alpha": 0.3, "distill_temperature": 4.0, "reduction": reduction}
    loss = training_loss(config(**keys))
    found = loss(
        *(Tensor(array, ms.float32) for array in (logits,)), Tensor(labels, ms.int32), Tensor(taught, ms.float32)
    )
    assert float(found) == pytest.approx(getattr(np, reduction)(expected), rel=1e-5)


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE])
def test_a_step_moves_towards_the_teacher_which_stays_as_it_is(mode):
    """The classifier's bias after one step of plain gradient descent, by hand; the teacher has a batch norm and a
    dropout, and is evaluated."""
    ms.set_context(mode=mode)
    student, other = tiny(0), nn.SequentialCell(tiny(1), Dropout(0.5))
    images, labels = batch(4)
    bias = student.classifier.bias.asnumpy().copy()
    taught = other.set_train(False)(Tensor(images)).asnumpy()
    before = {parameter.name: parameter.asnumpy().copy() for parameter in other.get_parameters()}

    loss = DistillationLoss(create_loss("CE"), 1.0, 2.0, "mean")
    step = TrainStep(student, loss, update_by(nn.SGD(student.trainable_params(), 0.1)), StepOptions())
    together = TaughtStep(step, distill.Teacher(other))
    together.set_train(True)
    logits = student(Tensor(images)).asnumpy()
    value, finite, _ = together(Tensor(images), Tensor(labels))

    goal, found = softmax(taught / 2), softmax(logits / 2)
    assert float(value) == pytest.approx(4 * (goal * np.log(goal / found)).sum(1).mean(), rel=1e-4)
    assert bool(finite)
    moved = bias - 0.1 * 2 * (found - goal).mean(0)
    np.testing.assert_allclose(student.classifier.bias.asnumpy(), moved, rtol=1e-4, atol=1e-6)
    assert np.abs(moved - bias).max() > 1e-3
    for parameter in other.get_parameters():
        assert (parameter.asnumpy() == before[parameter.name.removeprefix("teacher.")]).all()
    assert not any(name.startswith("teacher.") for name in step.state())


def test_a_step_hands_the_weights_of_samples_on():
    """Between labels and the teacher's logits: weights of 0 leave the loss to the other samples."""
    student, (images, labels) = tiny(0), batch(4)
    loss = training_loss(config(teacher="ghostnet_100", num_classes=5))
    step = TrainStep(student, loss, update_by(nn.SGD(student.trainable_params(), 0.1)), StepOptions())
    together = TaughtStep(step, distill.Teacher(tiny(1)))
    logits, taught = (cell(Tensor(images)).asnumpy() for cell in (student, together.teacher))
    weights = np.array([0, 2, 0, 1], np.float32)
    value, *_ = together(Tensor(images), Tensor(labels), Tensor(weights))
    true = -np.log(softmax(logits)[np.arange(4), labels])
    goal, found = softmax(taught), softmax(logits)
    expected = (weights * (0.5 * true + 0.5 * (goal * np.log(goal / found)).sum(1))).mean()
    assert float(value) == pytest.approx(expected, rel=1e-4)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> dict[str, tuple[nn.Cell, dict[str, str]]]:
    """Name -> a network in evaluation, and the keys by which it is named as a teacher."""
    import mindcv

    folder = tmp_path_factory.mktemp("teachers")
    ours, theirs, file = create_model("ghost_resnet56"), mindcv.create_model("squeezenet1_1", num_classes=10), tiny()
    file.classifier = nn.Dense(4, 10)
    found = {}
    for name, network in (("ghost_resnet56", ours), ("squeezenet1_1", theirs)):
        randomise(network, 3)
        path = folder / f"{name}.ckpt"
        weights_file.write(path, {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()})
        found[name] = network.set_train(False), {"teacher": name, "teacher_ckpt_path": str(path)}
    path = folder / "tiny.mindir"
    ms.export(
        file.set_train(False), Tensor(np.zeros((2, 3, 32, 32), np.float32)), file_name=str(path), file_format="MINDIR"
    )
    return found | {"mindir": (file, {"teacher": str(path)})}


@pytest.mark.parametrize("name", ["ghost_resnet56", "squeezenet1_1", "mindir"])
def test_teachers_of_the_registries_and_of_a_file(name, teachers, caplog):
    caplog.set_level("INFO")
    network, keys = teachers[name]
    images = Tensor(batch(2, 1)[0].repeat(6, 2).repeat(6, 3)[:, :, :32, :32])
    found = distill.load(config(**keys))
    assert ("teacher: loaded " in caplog.text) == (name != "mindir")
    found.set_train(True)
    logits = found(images).asnumpy()
    np.testing.assert_allclose(logits, network(images).asnumpy(), rtol=1e-4, atol=1e-4 * np.abs(logits).max())
    assert np.abs(logits).max() > 0
    assert {parameter.name.split(".")[0] for parameter in found.get_parameters()} == {"teacher"}
    assert found.trainable_params() == []


def test_the_digest_is_that_of_the_file(teachers):
    import hashlib
    from pathlib import Path

    _, keys = teachers["mindir"]
    assert distill.digest(config(**keys)) == hashlib.sha256(Path(keys["teacher"]).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"teacher": "ghostnet_10"}, "teacher_ckpt_path: no weights of ghostnet_10 are published here"),
        ({"teacher": "resnet50"}, "teacher_ckpt_path: no weights of resnet50 are published here; name a file"),
        ({"teacher": "x.mindir"}, "teacher: x.mindir: no such file"),
        ({"teacher": "resnet50", "teacher_ckpt_path": "w.ckpt"}, "w.ckpt: no such file"),
        (
            {"teacher": "resnot50", "teacher_ckpt_path": __file__},
            "no network 'resnot50' here or in mindcv; the nearest",
        ),
        ({"teacher": "LICENSE.mindir"}, "LICENSE.mindir: MindSpore cannot load it"),
    ],
)
def test_what_is_no_teacher_is_one_line(keys, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "LICENSE.mindir").write_text("Apache")
    with pytest.raises(UserError, match=message) as caught:
        distill.load(config(**keys))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 7}, r"gives 2 x 10 for images of shape \(2, 3, 32, 32\); expected logits of num_classes: 7"),
        ({"in_channels": 1}, "does not take images of shape"),
    ],
)
def test_a_file_of_another_size_is_one_line(changes, message, teachers):
    _, keys = teachers["mindir"]
    with pytest.raises(UserError, match=message) as caught:
        distill.load(config(**keys | changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"teacher_ckpt_path": "w.ckpt"}, "teacher_ckpt_path: there is no teacher to give weights to"),
        ({"teacher": "t.mindir", "teacher_ckpt_path": "w.ckpt"}, "a MindIR file holds its weights"),
        ({"teacher": "t.mindir", "drop_remainder": False}, "a MindIR teacher takes batches of one size"),
        ({"distill_alpha": 1.5}, "distill_alpha: expected a number >= 0 and <= 1"),
        ({"distill_temperature": 0.0}, "distill_temperature: expected a number > 0"),
    ],
)
def test_keys_that_do_not_fit(keys, message):
    with pytest.raises(UserError, match=message):
        config(**keys)
