"""Strict loading of networks and optimizers."""

from pathlib import Path

import mindcv
import mindspore as ms
import mindspore.dataset as ds
import numpy as np
import pytest
from mindcv.loss import create_loss
from mindcv.optim import create_optimizer
from mindcv.utils.trainer_factory import create_trainer
from mindspore import nn

from mindghost.checkpoint import weights as weights_file
from mindghost.checkpoint.load import Loaded, fill_network, fill_optimizer
from mindghost.checkpoint.names import select, unwrapped
from mindghost.errors import UserError
from mindghost.models import create_model
from tests.helpers.weights import randomise


@pytest.fixture(scope="module")
def source():
    """Weights of a 10-class, 3-channel network."""
    network = create_model("ghostnet_050", num_classes=10)
    randomise(network)
    return {parameter.name: parameter.asnumpy().copy() for parameter in network.get_parameters()}


def load(path, **options):
    names = ("num_classes", "in_channels")
    network = create_model("ghostnet_050", **{"num_classes": 10, **{n: options.pop(n) for n in names if n in options}})
    before = {p.name: p.asnumpy().copy() for p in network.get_parameters()}
    try:
        loaded = fill_network(network, path, stem="conv_stem", classifier="classifier", **options)
    except UserError:
        for parameter in network.get_parameters():
            np.testing.assert_array_equal(parameter.asnumpy(), before[parameter.name])
        raise
    return loaded, {p.name: p.asnumpy() for p in network.get_parameters()}, before


def save(tmp_path, arrays):
    weights_file.write(tmp_path / "w.ckpt", arrays)
    return tmp_path / "w.ckpt"


def test_everything_is_loaded(source, tmp_path):
    loaded, found, _ = load(save(tmp_path, source))
    assert loaded.parameters == len(source) == 432
    assert "prefix" not in str(loaded)
    for name, array in source.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_mindcv_trainers_file(source, tmp_path):
    """Optimizer entries are counted, not refused; the averaged weights are taken when asked for."""
    extra = {f"moments.{name}": array for name, array in source.items() if "moving" not in name}
    extra |= {f"ema.{name}": array + 1 for name, array in source.items()}
    extra |= {"global_step": np.array([5], np.int32), "learning_rate": np.zeros(9, np.float32)}
    path = save(tmp_path, source | extra)
    loaded, found, _ = load(path)
    assert (loaded.averaged, loaded.training_entries) == (False, 272 + 432 + 2)
    np.testing.assert_array_equal(found["conv_stem.weight"], source["conv_stem.weight"])
    loaded, found, _ = load(path, averaged=True)
    assert (loaded.averaged, loaded.training_entries) == (True, 272 + 2)
    np.testing.assert_array_equal(found["conv_stem.weight"], source["conv_stem.weight"] + 1)


def test_a_file_of_mindcvs_own_trainer(tmp_path):
    """Its train step, with averaging, for two steps: what it saves loads here and gives its network's logits."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    theirs = mindcv.create_model("ghostnet_050", num_classes=10)
    optimizer = create_optimizer(theirs.trainable_params(), "momentum", lr=[0.1] * 2)
    trainer = create_trainer(theirs, create_loss("CE"), optimizer, set(), "O0", None, "fixed", ema=True)
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((8, 3, 32, 32)).astype(np.float32), np.arange(8, dtype=np.int32)
    data = ds.NumpySlicesDataset((images, labels), ["image", "label"], shuffle=False).batch(4)
    trainer.train(1, data, dataset_sink_mode=False)
    ms.save_checkpoint(trainer.train_network, str(tmp_path / "theirs.ckpt"))

    loaded, found, _ = load(tmp_path / "theirs.ckpt")
    assert (loaded.parameters, loaded.averaged) == (432, False)
    for parameter in theirs.get_parameters():
        np.testing.assert_array_equal(found[parameter.name], parameter.asnumpy())
    loaded, averaged, _ = load(tmp_path / "theirs.ckpt", averaged=True)
    assert loaded.averaged
    assert (averaged["classifier.weight"] != found["classifier.weight"]).any()
    network = create_model("ghostnet_050", num_classes=10)
    momentum = create_optimizer(network.trainable_params(), "momentum", lr=[0.1] * 2)
    assert fill_optimizer(momentum, tmp_path / "theirs.ckpt") == 272


def test_a_fresh_classifier(source, tmp_path):
    path = save(tmp_path, source)
    loaded, found, before = load(path, num_classes=4, fresh_classifier=True)
    assert loaded.fresh == ("classifier.weight", "classifier.bias")
    assert "fresh" in str(loaded)
    np.testing.assert_array_equal(found["classifier.weight"], before["classifier.weight"])
    np.testing.assert_array_equal(found["conv_head.weight"], source["conv_head.weight"])
    loaded, found, _ = load(path, fresh_classifier=True)
    assert loaded.fresh == ()
    np.testing.assert_array_equal(found["classifier.weight"], source["classifier.weight"])


def test_one_channel_sums_the_stem(source, tmp_path):
    loaded, found, _ = load(save(tmp_path, source), in_channels=1)
    assert loaded.stem_summed
    np.testing.assert_allclose(found["conv_stem.weight"], source["conv_stem.weight"].sum(1, keepdims=True))


PREFIXES = ["module.", "_orig_mod.", "model.", "network.", "backbone.", "net.", "_backbone.", "train_network.network."]


def of_a_trainer(source, prefix):
    """Weights by a wrapper's names, and what a trainer has beside them: moments follow their names."""
    arrays = {f"{prefix}{name}": array for name, array in source.items()}
    arrays |= {f"moments.{prefix}{name}": array + 1 for name, array in source.items() if "moving" not in name}
    arrays |= {f"ema.{prefix}{name}": array + 2 for name, array in source.items()}
    return arrays | {"global_step": np.array([5], np.int32), "learning_rate": np.zeros(9, np.float32)}


@pytest.mark.fault("weights", "ok")
@pytest.mark.parametrize("beside", [False, True], ids=["weights alone", "a trainer's file"])
def test_a_wrappers_prefix_is_known(beside, source):
    for prefix in [*PREFIXES, "module._orig_mod.model."]:
        found = of_a_trainer(source, prefix) if beside else [f"{prefix}{name}" for name in source]
        selection = select(Path("w.ckpt"), list(found), source, averaged=False)
        assert selection.prefix == prefix
        assert selection.names == {name: f"{prefix}{name}" for name in source}
        assert selection.training == (272 + 432 + 2) * beside


@pytest.mark.fault("weights", "ok")
def test_a_wrappers_prefix_is_taken_off_and_said(source, tmp_path):
    weights_file.write_safetensors(tmp_path / "w.safetensors", {f"model.module.{n}": a for n, a in source.items()})
    for path, prefix, added in (
        (save(tmp_path, of_a_trainer(source, "_backbone.")), "_backbone.", 2),
        (tmp_path / "w.safetensors", "model.module.", 0),
    ):
        loaded, found, _ = load(path, averaged=bool(added))
        assert (loaded.averaged, loaded.prefix, loaded.parameters) == (bool(added), prefix, 432)
        assert f"; took off the prefix {prefix}" in str(loaded)
        for name, array in source.items():
            np.testing.assert_array_equal(found[name], array + added)


def test_names_that_fit_keep_what_looks_like_a_prefix():
    """A network of its own may call a part of it `network` or `net`."""
    wanted = ["net.0.weight", "weight", "network.net.bias"]
    for wrapper in ("", "module.", "model.net."):
        found = [f"{wrapper}{name}" for name in wanted]
        assert unwrapped(Path("w.ckpt"), found, wanted) == (wrapper, dict(zip(found, wanted, strict=True)))
    assert unwrapped(Path("w.ckpt"), ["network.w"], ["v"]) == ("", {"network.w": "network.w"})


def without(arrays, name):
    return {n: a for n, a in arrays.items() if n != name}


@pytest.mark.parametrize(
    ("change", "options", "expected"),
    [
        (lambda a: without(a, "bn1.gamma"), {}, "1 missing: bn1.gamma"),
        (
            lambda a: a | {"blocks.20.weight": np.zeros(2, np.float32)},
            {},
            "1 not in the network: blocks.20.weight",
        ),
        (
            lambda a: a | {"bn1.beta": np.zeros(9, np.float32)},
            {},
            r"1 of another shape: bn1.beta \(9,\) instead of \(8,\)",
        ),
        (lambda a: a, {"num_classes": 4}, "of another shape: classifier.weight .* give the num_classes"),
        (
            lambda a: without(a, "bn1.gamma"),
            {"num_classes": 4, "fresh_classifier": True},
            "1 missing: bn1.gamma",
        ),
        (lambda a: {"x": np.zeros(2, np.float32)}, {}, "432 missing: .* and 428 more"),
        (lambda a: {f"moments.{n}": v for n, v in a.items()}, {}, "432 missing: .*; 432 not in the network: moments."),
        (
            lambda a: {f"module.{n}": v for n, v in without(a, "bn1.gamma").items()},
            {},
            "1 missing: bn1.gamma; took off the prefix module.",
        ),
        (
            lambda a: {f"model.{n}": v for n, v in a.items()} | {"criterion.weight": np.ones(3, np.float32)},
            {},
            r"holds the network under model\., and more beside it \(1 not in the network: criterion.weight\)",
        ),
        (lambda a: a | {f"module.{n}": v + 1 for n, v in a.items()}, {}, "twice, also as module.conv_stem.weight"),
        (
            lambda a: {f"{prefix}.{n}": v for prefix in ("model", "net") for n, v in a.items()},
            {},
            "432 missing: .*; 864 not in the network: model.",
        ),
        (lambda a: a | {"bn1.beta": np.full(8, 1e300)}, {}, "bn1.beta holds values that float32 cannot"),
        (lambda a: a | {"bn1.beta": np.ones(8, np.int32)}, {}, "bn1.beta holds int32"),
        (lambda a: a | {"ema.bn1.beta": a["bn1.beta"]}, {"averaged": True}, "missing: "),
        (lambda a: a, {"in_channels": 4}, "conv_stem.weight .* give the in_channels that the file was made with"),
    ],
)
def test_what_does_not_fit_is_listed_and_nothing_changes(source, change, options, expected, tmp_path):
    path = save(tmp_path, change(source))
    with pytest.raises(UserError, match=expected) as caught:
        load(path, **options)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_optimizer_state(source, tmp_path):
    network = create_model("ghostnet_050", num_classes=10)
    optimizer = create_optimizer(network.trainable_params(), "momentum", lr=[0.1, 0.2])
    state = {f"moments.{p.name}": np.full(p.shape, 2, np.float32) for p in network.trainable_params()}
    path = save(tmp_path, source | state | {"global_step": np.array([5], np.int32)})
    assert fill_optimizer(optimizer, path) == 272
    assert optimizer.global_step.asnumpy()[0] == 0
    assert (optimizer.moments[3].asnumpy() == 2).all()
    wrapped = {f"module.{name}": array for name, array in source.items()}
    wrapped |= {f"moments.module.{name.removeprefix('moments.')}": array + 1 for name, array in state.items()}
    assert fill_optimizer(optimizer, save(tmp_path, wrapped)) == 272
    assert (optimizer.moments[3].asnumpy() == 3).all()
    assert fill_optimizer(optimizer, save(tmp_path, source | state)) == 272
    with pytest.raises(
        UserError, match=r"\(272 of 272 entries missing or of another shape: moments.conv_stem.weight, .*"
    ):
        fill_optimizer(optimizer, save(tmp_path, source))
    wrong = {"moments.bn1.beta": np.zeros(9, np.float32)}
    with pytest.raises(UserError, match=r"\(1 of 272 entries missing or of another shape: moments.bn1.beta\)"):
        fill_optimizer(optimizer, save(tmp_path, source | state | wrong))
    assert (optimizer.moments[3].asnumpy() == 2).all()


# --- By hand, in a network of three layers


class Small(nn.Cell):
    """A stem, a norm and a classifier; what is left out of it is in files of the whole network."""

    left_out = ("head.weight", "head.bias")

    def __init__(self, channels: int = 3, features: int = 4, classes: int = 5):
        super().__init__()
        self.stem = nn.Conv2d(channels, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.classifier = nn.Dense(features, classes)


def arrays_of(network: nn.Cell, value: float = 0.0) -> dict[str, np.ndarray]:
    """Arrays for its parameters: the first holds `value`, each next one 1 more."""
    return {p.name: np.full(p.shape, value + i, np.float32) for i, p in enumerate(network.get_parameters())}


def fill(network: nn.Cell, path, **options) -> tuple[Loaded, dict[str, float]]:
    """What was loaded, and the first value of each parameter afterwards."""
    loaded = fill_network(network, path, stem="stem", classifier="classifier", **options)
    return loaded, {p.name: float(p.asnumpy().ravel()[0]) for p in network.get_parameters()}


def firsts(arrays: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(array.ravel()[0]) for name, array in arrays.items()}


def test_all_that_was_done_is_said_in_one_line(tmp_path):
    arrays = arrays_of(Small(), 10)
    trained = {f"ema.{name}": array + 1 for name, array in arrays.items()} | {"moments.bn.gamma": arrays["bn.gamma"]}
    path = save(tmp_path, arrays | trained | {"head.weight": np.zeros((2, 4), np.float32)})
    loaded, found = fill(Small(channels=1, classes=3), path, averaged=True, fresh_classifier=True)
    assert str(loaded) == (
        f"loaded 5 parameters from {path}, the averaged ones (ema.*); left out 1 entries of its trainer; summed the "
        "stem's filters for 1-channel images; fresh, since the number of classes differs: classifier.weight, "
        "classifier.bias; dropped 1 that the network does without: head.weight"
    )
    assert found["stem.weight"] == 3 * 11
    assert found["bn.gamma"] == firsts(arrays)["bn.gamma"] + 1
    plain, found = fill(Small(), save(tmp_path, arrays))
    assert str(plain) == f"loaded 7 parameters from {path}"
    assert plain == Loaded(path, 7, False, 0)
    assert found == firsts(arrays)


def test_what_a_part_of_a_network_does_without_is_dropped(tmp_path):
    arrays = arrays_of(Small(), 10)
    path = save(tmp_path, arrays | {"head.weight": np.zeros((2, 4), np.float32)})
    loaded, found = fill(Small(), path)
    assert loaded.dropped == ("head.weight",)
    assert str(loaded).endswith("; dropped 1 that the network does without: head.weight")
    assert found == firsts(arrays)


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize(
    ("features", "classes", "change"),
    [
        (6, 5, {}),  # of another width
        (6, 3, {}),
        (4, 3, {"classifier.bias": None}),  # of another number of classes, and half of it is not there
        (4, 5, {"classifier.bias": None}),
        (4, 3, {"classifier.weight": np.zeros((5, 6), np.float32)}),
    ],
)
def test_only_a_whole_classifier_of_another_number_of_classes_stays_fresh(tmp_path, features, classes, change, fresh):
    arrays = {name: array for name, array in (arrays_of(Small()) | change).items() if array is not None}
    with pytest.raises(UserError, match=r"classifier\."):
        fill(Small(features=features, classes=classes), save(tmp_path, arrays), fresh_classifier=fresh)


@pytest.mark.parametrize(
    ("channels", "kernel"), [(3, (4, 1, 3, 3)), (1, (4, 2, 3, 3)), (3, (4, 2, 3, 3)), (1, (4, 3)), (2, (4, 3, 3, 3))]
)
def test_only_filters_of_three_channels_are_summed_for_one(tmp_path, channels, kernel):
    path = save(tmp_path, arrays_of(Small()) | {"stem.weight": np.zeros(kernel, np.float32)})
    with pytest.raises(UserError, match=r"stem.weight .* give the in_channels"):
        fill(Small(channels), path)


def test_a_file_without_a_stem_lacks_it(tmp_path):
    arrays = without(arrays_of(Small()), "stem.weight")
    with pytest.raises(UserError, match="1 missing: stem.weight"):
        fill(Small(channels=1), save(tmp_path, arrays))


def test_moments_have_the_precision_of_the_optimizer(tmp_path):
    network = Small()
    optimizer = create_optimizer(network.trainable_params(), "momentum", lr=0.1)
    state = {f"moments.{p.name}": np.full(p.shape, 0.5) for p in network.trainable_params()}
    assert fill_optimizer(optimizer, save(tmp_path, state)) == 5
    assert optimizer.moments[0].dtype == ms.float32
    assert (optimizer.moments[0].asnumpy() == 0.5).all()
