"""Evaluation by a plan of the whole network: the numbers of MindSpore's operators, in training and afterwards."""

import ctypes

import mindspore as ms
import pytest

from mindghost import tasks
from mindghost.checkpoint import weights as weights_file
from mindghost.config import Config
from mindghost.errors import UserError
from mindghost.evaluate.evaluator import WeightsEvaluator
from mindghost.evaluate.validate import validate
from mindghost.ops import library, plan
from tests.helpers.pictures import write_images
from tests.helpers.runtimes import runtime_of
from tests.helpers.trained import CLASSES, write_run

try:
    library.library()
except library.NativeError as error:
    pytestmark = pytest.mark.skip(reason=f"no library: {error}")


@pytest.fixture
def made(monkeypatch) -> list[bool]:
    """For each network that a plan was asked for whether there was one."""
    found, of = [], plan.of

    def noted(*given):
        result = of(*given)
        found.append(result is not None)
        return result

    monkeypatch.setattr(plan, "of", noted)
    return found


@pytest.fixture
def config(short_network, tmp_path) -> Config:
    weights = write_run(tmp_path / "run", model="ghostnet_050")
    images = write_images(tmp_path / "images", CLASSES, val_images=5)
    return Config.from_file(weights.parent / "config.yaml").replace(
        data_dir=str(images), ckpt_path=str(weights), batch_size=4, mode=1
    )


def test_a_plan_gives_the_numbers_of_mindspore(config, made):
    without = validate(config.replace(native_ops="off")).metrics
    assert made == []
    found = validate(config.replace(native_ops="on")).metrics
    assert made == [True]
    assert (found.top_1, found.loss) == pytest.approx((without.top_1, without.loss), rel=1e-4)
    # To the last bit while it is trained; each time with the weights of the epoch.
    samples = tasks.of(config).open_split(config, "val", tuple(CLASSES))
    evaluator = WeightsEvaluator(runtime_of(config.replace(native_ops="on")), samples)
    weights = weights_file.read(config.ckpt_path)
    others = {name: values * 0.5 for name, values in weights.items()}
    numbers = [evaluator(given).result() for given in (weights, others, weights)]
    assert made == [True] * 4
    assert numbers[0] == numbers[2] == found.result()
    assert numbers[1] != numbers[0]


def test_in_bfloat16_numbers_are_nearly_the_same(config, made):
    """By the processor that this is."""
    asked = config.replace(val_amp_level="bfloat16")
    if not ctypes.CDLL(str(library.library())).ghostnet_bfloat16():
        with pytest.raises(UserError, match="val_amp_level: bfloat16 takes a processor with AMX"):
            validate(asked)
        return
    exact, found = validate(config).metrics, validate(asked).metrics
    assert made == [True, True]
    assert found.loss != exact.loss
    assert found.loss == pytest.approx(exact.loss, rel=0.02)


def test_networks_in_float16_have_none(config, made, monkeypatch):
    monkeypatch.setattr(library, "native_operators", lambda *_: library.library())
    ms.set_context(mode=ms.PYNATIVE_MODE)
    validate(config.replace(val_amp_level="O2"))
    assert made == []
