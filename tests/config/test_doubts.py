"""Settings that nobody means, and those that hardly anybody does."""

import pytest

from mindghost.config import Config
from mindghost.config.doubts import refused
from mindghost.errors import UserError
from tests.helpers.places import ROOT

QUIET = {"decay_epochs": 87}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def doubts(**keys) -> list[str]:
    return Config(**QUIET, **keys).warnings()


def refusal(**keys) -> str:
    """The line that refuses a new run; empty where it may start."""
    found = list(refused(Config(**QUIET, **keys)))
    if not found:
        Config(**QUIET, **keys).check_new_run()
        return ""
    with pytest.raises(UserError) as caught:
        Config(**QUIET, **keys).check_new_run()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.fault("settings", "clean error")
@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (
            {"mean": MEAN, "std": STD},
            "mean: [0.485, 0.456, 0.406] and std [0.229, 0.224, 0.225] would be on the scale 0 to 1, but pixels "
            "are on the scale 0 to 255; give mean [123.675, 116.28, 103.53] and std [58.395, 57.12, 57.375]",
        ),
        ({"mean": MEAN}, "mean: [0.485, 0.456, 0.406] would be on the scale 0 to 1"),
        ({"std": STD}, "give mean [123.675, 116.28, 103.53] and std [58.395, 57.12, 57.375]"),
        ({"mean": (0.1307,), "std": (0.3081,), "in_channels": 1}, "give mean [33.3285] and std [78.5655]"),
        ({"mean": (0.5,) * 3, "std": (0.5,) * 3}, "give mean [127.5, 127.5, 127.5] and std [127.5, 127.5, 127.5]"),
        ({"mean": (0.0,) * 3, "std": (0.5,) * 3}, "std: [0.5, 0.5, 0.5] would be on the scale"),
        ({"mean": (0.5,) * 3, "std": (1.0,) * 3}, "mean: [0.5, 0.5, 0.5] would be"),
        ({"mean": (0.5, 0.0, 0.4)}, "mean: [0.5, 0.0, 0.4] would be"),
        ({"mean": (-1.0, 0.5, 1.0)}, "mean: [-1.0, 0.5, 1.0] would be"),
        ({"std": (1.0, 0.5, 1.0)}, "std: [1.0, 0.5, 1.0] would be"),
        ({"freeze_backbone": True}, "freeze_backbone: the features would stay the random ones"),
        ({"scale": (1e-6, 1e-6)}, "scale: crops of at most 0.0001 % of an image"),
        ({"scale": (0.001, 0.00999)}, "scale: crops of at most 0.999 % of an image"),
        ({"crop_padding": 224}, "crop_padding: 224 pixels of padding leave crops without any image"),
        ({"crop_padding": 32, "image_resize": (64, 32)}, "fewer than image_resize: 32"),
        ({"re_prob": 0.5, "re_max_attempts": 10_001}, "re_max_attempts: an image could take 10,001 tries"),
        ({"momentum": 1.0, "opt": "momentum"}, "momentum: with 1, no gradient is ever forgotten"),
    ],
)
def test_no_run_starts_with_what_nobody_means(keys, line):
    assert line in refusal(**keys)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"mean": (0.0,) * 3, "std": (1.0,) * 3},
        {"mean": (0.0,), "std": (1.0,), "in_channels": 1},
        {"mean": (0.0,) * 3, "std": (255.0,) * 3},
        {"std": (1.0,) * 3},
        {"mean": (1.5, 0.5, 0.5), "std": (1.5, 0.5, 0.5)},
        {"mean": MEAN, "std": STD, "dataset": "cifar10"},
        {"freeze_backbone": True, "ckpt_path": "w.ckpt"},
        {"freeze_backbone": True, "pretrained": True},
        {"scale": (0.01, 0.01)},
        {"scale": (1e-6, 1e-6), "dataset": "mnist"},
        {"scale": (1e-6, 1e-6), "crop_padding": 4},
        {"crop_padding": 31, "image_resize": 32},
        {"crop_padding": 999, "dataset": "cifar10"},
        {"re_prob": 0.5, "re_max_attempts": 10_000},
        {"re_max_attempts": 10_001},
        {"momentum": 1.0, "opt": "adam"},
        {"momentum": 0.999, "opt": "sgd"},
    ],
    ids=str,
)
def test_what_somebody_may_mean_is_not_refused(keys):
    assert refusal(**keys) == ""


@pytest.mark.fault("settings", "clean error")
@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"crop_pct": 0.001}, "crop_pct: each image would be resized to 224,000 pixels for the 224 that are kept"),
        ({"image_resize": 100_000}, "image_resize: expected at most 4,096 pixels a side, got 100,000"),
        ({"image_resize": (32, 4097)}, "image_resize: expected at most 4,096 pixels a side, got 4,097"),
        ({"crop_size": (32, 4097)}, "crop_size: expected at most 4,096 pixels a side, got 4,097"),
    ],
)
def test_sizes_that_no_machine_has_room_for(keys, line):
    assert refusal(**keys).startswith(line)
    with pytest.raises(UserError) as caught:
        Config(**keys).check_evaluation()
    assert str(caught.value) == refusal(**keys)


def test_sizes_up_to_the_bounds():
    for keys in ({"image_resize": 4096, "crop_pct": 0.25}, {"crop_pct": 0.001, "dataset": "cifar10"}):
        Config(**keys).check_evaluation()
        assert refusal(**keys) == ""


@pytest.mark.fault("settings", "ok")
@pytest.mark.parametrize(
    ("keys", "words", "fine"),
    [
        ({"crop_pct": 0.3}, "the middle 9 % of an image", {"crop_pct": 0.5}),
        ({"image_resize": (64, 31)}, "image_resize 31: most networks", {"image_resize": 32}),
        ({"warmup_factor": 2.0}, "falls to lr from above", {"warmup_factor": 1.0}),
        (
            {"scheduler": "step_decay", "decay_rate": 1.1},
            "decay_rate 1.1 is above 1",
            {"scheduler": "step_decay", "decay_rate": 1.0},
        ),
        ({"lr": 1e-7}, "lr 1e-07 is below min_lr 1e-06", {"lr": 1e-6}),
        ({"lr": 0.2}, "lr 0.2 is far more than adam goes with (over 0.1)", {"lr": 0.1}),
        ({"lr": 11.0, "opt": "momentum"}, "more than momentum goes with (over 10)", {"lr": 10.0, "opt": "momentum"}),
        ({"weight_decay": 1.0}, "pulls the weights to zero", {"weight_decay": 0.5}),
        ({"label_smoothing": 0.9}, "most of each label", {"label_smoothing": 0.5}),
        ({"drop_rate": 0.999}, "drop_rate 0.999 leaves hardly anything", {"drop_rate": 0.9}),
        ({"drop_path_rate": 0.95}, "drop_path_rate 0.95 leaves", {"drop_path_rate": 0.2}),
        ({"teacher": "x", "distill_alpha": 0.0}, "nothing is learnt from the teacher", {"teacher": "x"}),
        ({"scale": (0.01, 0.1)}, "no crop shows more than 10 %", {"scale": (0.01, 0.2)}),
        ({"color_jitter": (0.4, 1.5, 0.4)}, "color_jitter 1.5: 1 already takes", {"color_jitter": 1.0}),
        ({"color_jitter": 2.0}, "color_jitter 2: 1", {"color_jitter": 2.0, "auto_augment": "randaug-m9"}),
        ({"mixup": 0.2, "batch_size": 1}, "with batch_size 1 they do nothing", {"mixup": 0.2, "batch_size": 2}),
        ({"cutmix": 0.2, "cutmix_prob": 0.0}, "cutmix_prob is 0", {"cutmix_prob": 0.0}),
        ({"val_while_train": True, "val_split": "train"}, "that on the training images", {"val_split": "train"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_hardly_anybody_means_is_one_line(keys, words, fine):
    (line,) = doubts(**keys)
    assert words in line
    assert doubts(**fine) == []


def test_an_evaluation_hears_of_its_own_settings_alone():
    config = Config(mean=MEAN, std=STD, crop_pct=0.3, lr=99.0, image_resize=16)
    found = config.warnings(training=False)
    assert [line.split(" ")[0] for line in found] == ["mean", "crop_pct", "image_resize"]
    assert set(found) < set(config.warnings())


def test_recipes_start():
    for path in (ROOT / "configs").rglob("*.yaml"):
        Config.from_file(path).check_new_run()
