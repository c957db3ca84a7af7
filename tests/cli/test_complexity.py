"""Counts of networks: by hand for a small one, golden for the registry, and the table as a user sees it."""

import json
import subprocess
import sys
from dataclasses import replace

import mindcv
import mindspore as ms
import pytest
from mindspore import Tensor, nn, ops

from mindghost.cli import complexity as command
from mindghost.cli import main
from mindghost.models import card, create_model, ghostnet, list_models, registry
from mindghost.models.complexity import Complexity, complexity, trainable_parameters
from tests.helpers import short
from tests.helpers.families import one_of_each
from tests.helpers.places import ROOT


class Small(nn.Cell):
    """A convolution with bias, a grouped one that runs twice, a batch norm and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, pad_mode="pad", padding=1, has_bias=True)
        self.norm = nn.BatchNorm2d(8)
        self.twice = nn.Conv2d(8, 8, (1, 3), group=4)
        self.last = nn.Dense(8, 5)

    def construct(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(self.norm(self.first(x))))
        return self.last(ops.mean(x, (2, 3)))


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE])
def test_a_small_network_by_hand(mode):
    """9x6 pixels become 5x3; the network and the mode are as before."""
    ms.set_context(mode=mode)
    network = Small()
    network.set_train(True)
    weights = (8 * 3 * 9 + 8) + (8 * 2 * 3) + (8 * 5 + 5)
    macs = 15 * 8 * 27 + 2 * 15 * 8 * 6 + 5 * 8
    assert complexity(network, 9, 6) == Complexity(weights + 16, weights + 32, macs, 3 * 15 * 8 + 5)
    assert (ms.get_context("mode"), network.training, network.last.training) == (mode, True, True)


def test_another_network_counts_as_published():
    """ResNet-50 as in the RegNet paper (Radosavovic et al., 2020, table 3): parameters, MACs and activations."""
    found = complexity(mindcv.create_model("resnet50"))
    assert [round(n / 1e6, 1) for n in (found.parameters, found.activations)] == [25.6, 11.1]
    assert round(found.macs / 1e9, 1) == 4.1


def run(*arguments: object, capsys) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of the command."""
    status = main.run(["complexity", *map(str, arguments)])
    return status, *capsys.readouterr()


@pytest.mark.parametrize("name", one_of_each(list_models()))
def test_cards_count_their_networks(name):
    """As trained and, where there is one, in the fused form."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    facts = card(name)
    counted = complexity(create_model(name), facts.input_size, facts.input_size)
    assert (counted.parameters, counted.macs) == (facts.parameters, facts.macs)
    if facts.fused_parameters is not None:
        counted = complexity(create_model(name, deploy=True), facts.input_size, facts.input_size)
        assert (counted.parameters, counted.macs) == (facts.fused_parameters, facts.fused_macs)


ALIKE = [param.values[0] for param in one_of_each(list_models()) if param.marks]


# What a RepGhostNet has is among tests/models/test_repghostnet.py's.
@pytest.mark.parametrize("name", [name for name in ALIKE if not name.startswith(("plain_", "repghostnet_"))])
def test_cards_have_the_parameters_of_every_width(name):
    """Quicker than to count all: nothing runs."""
    assert trainable_parameters(create_model(name)) == card(name).parameters


def test_rows_are_cards_and_fused_forms(monkeypatch, capsys):
    """Without names, of all networks; here of a registry of two."""
    for name in set(list_models()) - {"ghost_resnet56", "ghostnetv3_050"}:
        monkeypatch.delitem(registry.CARDS, name)
    status, said, error = run("--json", capsys=capsys)
    assert (status, error) == (0, "")
    rows = json.loads(said)
    forms = [("ghost_resnet56", False), ("ghostnetv3_050", False), ("ghostnetv3_050", True)]
    assert [(row["model"], row["deploy"]) for row in rows] == forms
    titles = [line.split("  ")[0] for line in command.table(rows).splitlines()]
    assert titles == ["model", "ghost_resnet56", "ghostnetv3_050", "ghostnetv3_050, fused"]
    for row in rows:
        facts = card(row["model"])
        expected = (facts.fused_parameters, facts.fused_macs) if row["deploy"] else (facts.parameters, facts.macs)
        assert (row["parameters"], row["macs"]) == expected
        asked = (row["height"], row["width"], row["num_classes"])
        assert asked == (facts.input_size, facts.input_size, facts.num_classes)
        published = (row["paper_top_1"], row["mindcv_top_1"], row["timm_top_1"])
        assert published == (facts.paper_top_1, facts.mindcv_top_1, facts.timm_top_1)
        # Names and shapes add to the four bytes of each value.
        assert 1 < row["file_bytes"] / (4 * row["values"]) < 1.05


def test_a_network_for_segmentation_says_its_backbone(monkeypatch, capsys):
    """Both forms where the backbone has two; `512x1024` is a height and a width."""
    monkeypatch.setattr(ghostnet, "STAGES", short.all_strides())
    options = ("--backbone", "ghostnetv3_050", "--decoder_width", 0.5, "--upsampling", "transposed")
    status, said, error = run("ghost_unet", *options, "--input", "40x72", "--num_classes", 3, "--json", capsys=capsys)
    assert (status, error) == (0, "")
    rows = json.loads(said)
    asked = [(row["model"], row["backbone"], row["height"], row["width"], row["num_classes"]) for row in rows]
    assert asked == [("ghost_unet", "ghostnetv3_050", 40, 72, 3)] * 2
    titles = [line.split("  ")[0] for line in command.table(rows).splitlines()]
    assert titles == ["model", "ghost_unet on ghostnetv3_050", "ghost_unet on ghostnetv3_050, fused"]
    for row in rows:
        keys = {"backbone": "ghostnetv3_050", "decoder_width": 0.5, "upsampling": "transposed", "num_classes": 3}
        counted = complexity(create_model("ghost_unet", deploy=row["deploy"], **keys), 40, 72)
        assert {key: row[key] for key in vars(counted)} == vars(counted)


def test_options_of_decoders_ask_for_networks_for_segmentation(monkeypatch, capsys):
    for name in set(list_models()) - {"ghost_lraspp", "ghostnet_050", "ghostnet_100"}:
        monkeypatch.delitem(registry.CARDS, name)
    monkeypatch.setattr(ghostnet, "STAGES", short.all_strides())
    status, said, _ = run("--backbone", "ghostnet_050", "--json", capsys=capsys)
    assert (status, [row["model"] for row in json.loads(said)]) == (0, ["ghost_lraspp"])


def test_the_table_for_another_image_and_unpublished_accuracy(monkeypatch, capsys):
    monkeypatch.setitem(registry.CARDS, "ghostnet_050", replace(card("ghostnet_050"), weights={}, timm_top_1=66.125))
    arguments = ("ghostnet_050", "--input", 64, 32, "--num_classes", 10)
    status, said, error = run(*arguments, capsys=capsys)
    assert (status, error) == (0, "")
    titles, numbers = said.splitlines()
    assert titles.split()[:4] == ["model", "input", "classes", "parameters"]
    assert numbers.split() == [
        *("ghostnet_050", "64x32", "10"),
        *("1,319,102", "1,330,086", "2,637,136", "75,962", "5,347,054", "66.2", "%", "-", "66.12", "%"),
    ]
    assert len(titles) == len(numbers)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["ghostnet_999"], "model: 'ghostnet_999' is not known; the nearest is"),
        (["--input", "0"], "--input: expected one or two numbers from 1 to 2048 (height width), got 0"),
        (["--input", "9999"], "--input: expected one or two numbers from 1 to 2048 (height width), got 9999"),
        (["--input", "2", "3", "4"], "--input: expected one or two numbers from 1 to 2048 (height width), got 2 3 4"),
        (["--input", "224", "ghostnet_050"], "--input: 'ghostnet_050' is no number; names of networks go before"),
        (["ghost_unet", "--backbone", "ghost_vgg16"], "backbone: ghost_vgg16 is made for images of 32 x 32 pixels and"),
        (["ghostnet_050", "--decoder_width", "2"], "decoder_width: ghostnet_050 is a classifier, which has no decoder"),
        (["--decoder_width", "9"], "--decoder_width: expected a number from 0.1 to 8, got '9'"),
        (["--input", "12x"], "--input: '12x' is no number"),
        (["--num_classes", "0"], "--num_classes: expected an integer from 1 to 1,000,000, got '0'"),
        (["--what"], "unrecognized arguments: --what"),
    ],
)
def test_bad_input_is_one_line(arguments, expected, capsys):
    status, said, error = run(*arguments, capsys=capsys)
    assert (status, said) == (2, "")
    assert error.startswith(f"mindghost complexity: error: {expected}")
    assert error.count("\n") == 1


def test_a_network_of_another_data_set(monkeypatch, capsys):
    small = replace(card("ghostnet_050"), input_size=32, num_classes=10)
    monkeypatch.setitem(registry.CARDS, "ghostnet_050", small)
    status, said, _ = run("ghostnet_050", capsys=capsys)
    assert status == 0
    assert said.splitlines()[1].split()[1:4] == ["32x32", "10", "1,319,102"]


def test_an_image_that_a_network_cannot_take_is_one_line(monkeypatch, capsys):
    def unpadded(num_classes: int, **_: object) -> nn.Cell:
        return nn.SequentialCell(nn.Conv2d(3, num_classes, 7, pad_mode="valid"))

    monkeypatch.setitem(registry.CARDS, "ghostnet_050", replace(card("ghostnet_050"), build=unpadded))
    status, said, error = run("ghostnet_050", "--input", 5, 8, capsys=capsys)
    assert (status, said, error.count("\n")) == (2, "", 1)
    assert "--input: ghostnet_050 cannot take 5 x 8 pixels (" in error


def test_help_as_a_user_types_it():
    command = [sys.executable, "-m", "mindghost", "complexity", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT / "src")}, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert all(word in result.stdout for word in ("NAME", "--input HEIGHT [WIDTH]", "--json", "activations"))
