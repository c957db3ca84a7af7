"""Every command of the README and of the pages is run by a test, or listed in untried.txt with the reason why not."""

import importlib
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindghost.cli import main as program
from tests.helpers.launchers import BIN, environment
from tests.helpers.places import ROOT
from tests.helpers.served import served

UNTRIED = ROOT / "tests" / "system" / "untried.txt"
# test_walkthrough.py and test_walkthrough_masks.py run all of these.
WALKED = ("walkthrough", "walkthrough-masks")
PAGES = [*ROOT.glob("*.md"), *(page for page in (ROOT / "docs").glob("*.md") if page.stem not in WALKED)]
# What is run here, in this order, in one shell.
TRIED = r"""
mindghost --help
mindghost train --help
mindghost benchmark --help
mindghost recipes
mindghost train -c ghostnet_050_cpu --scale 0.35 1.0 --auto_augment None --distribute False --print_config
DRY_RUN=1 DEVICES=8 bash scripts/launch_ascend.sh -c ghostnet_100_ascend --data_dir /path/to/imagenet
mindghost stats --data_dir runs/digits --image_resize 32
mindghost pack --data_dir runs/digits --out runs/packed
mindghost train -c finetune --data_dir DATA
mindghost validate --ckpt_path ckpt/ghostnet_100_best.ckpt --report ckpt/report
mindghost predict photo.jpg 'more/*.png' --ckpt_path ckpt/ghostnet_100_best.ckpt --top_k 1
mindghost export --ckpt_path ckpt/ghostnet_100_best.ckpt --format onnx
python examples/predict_onnx.py ckpt/ghostnet_100_best.onnx photo.jpg
mindghost train -c ghostnet_050_cpu --data_dir DATA --num_classes 10 --ckpt_save_dir runs/mine --epoch_size 30
mindghost validate --ckpt_path runs/mine/ghostnet_050_best.ckpt --report runs/mine/report
mindghost export --ckpt_path runs/mine/ghostnet_050_best.ckpt
python examples/predict_onnx.py runs/mine/ghostnet_050_best.onnx photo.jpg
find . -name '*.jpg' | mindghost predict - --ckpt_path runs/mine/ghostnet_050_best.onnx --json --save_dir annotated
mindghost embed DATA --ckpt_path runs/mine/ghostnet_050_best.ckpt -o vectors.npz
mindghost index build vectors.npz -o photos.index
mindghost search photo.jpg --index photos.index --ckpt_path runs/mine/ghostnet_050_best.ckpt --picture found.png
mindghost embed DATA --split val --dtype float16 --ckpt_path runs/mine/ghostnet_050_best.ckpt -o val.parquet
mindghost export --ckpt_path runs/mine/ghostnet_050_best.ckpt --embedding
mindghost embed DATA --ckpt_path runs/mine/ghostnet_050_best.onnx -o same.npz
mindghost index info photos.index
mindghost index remove photos.index DATA/val/class_0
mindghost index add photos.index val.parquet
mindghost index sync photos.index DATA --ckpt_path runs/mine/ghostnet_050_best.ckpt
mindghost index build vectors.npz -o large.index --approximate
mindghost duplicates DATA --picture duplicates.png --leave_out leave_out.txt
mindghost duplicates DATA --ckpt_path runs/mine/ghostnet_050_best.ckpt --json
mindghost show-ghosts photo.jpg --ckpt_path runs/mine/ghostnet_050_best.ckpt --layer blocks.3.0.ghost1 -o ghosts.png
mindghost convert runs/mine/ghostnet_050_best.ckpt mine.safetensors --model ghostnet_050 --num_classes 10
mindghost plot runs/mine
mindghost model-card runs/mine --author "A. Uthor" --link https://example.org/weights --dataset "My animals"
mindghost release runs/mine --output release --data_license "CC BY 2.0"
"""
# The same after those, by `-m slow`.
TRIED_SLOWLY = r"""
mpirun -n 2 mindghost train -c finetune --data_dir DATA --ckpt_save_dir runs/two
mpirun -n 2 mindghost validate --ckpt_path runs/two/ghostnet_100_best.ckpt
mindghost validate --ckpt_path runs/mine/ghostnet_050_best.ckpt
mindghost validate --ckpt_path runs/mine/ghostnet_050_best.onnx
mindghost predict photo.jpg 'more/*.png' folder --ckpt_path runs/mine/ghostnet_050_best.ckpt
mindghost predict folder --ckpt_path runs/mine/ghostnet_050_best.ckpt --top_k 1 --csv > answers.csv
mindghost export --ckpt_path runs/mine/ghostnet_050_best.ckpt --format onnx --batch_size 1 --out deploy
mindghost complexity ghostnet_100 --input 224 192 --num_classes 10 --json
"""
# Open MPI takes the place of its options from there: root, and a machine with a single core.
MPI = {f"{name}_ALLOW_RUN_AS_ROOT{end}": "1" for name in ("OMPI", "PRTE") for end in ("", "_CONFIRM")}
MPI["PRTE_MCA_rmaps_default_mapping_policy"] = ":oversubscribe"


def lines(text: str) -> list[str]:
    """The commands of a shell script, a line each, without comments."""
    joined = re.sub(r"\\\n\s*", "", text).splitlines()
    return [command for line in joined if (command := re.sub(r"(^|\s+)#\s.*", "", line).strip())]


def documented() -> set[str]:
    """The commands of all pages."""
    blocks = [re.findall(r"^```(?:bash|sh|shell)\n(.*?)^```$", page.read_text(), re.M | re.S) for page in PAGES]
    return {command for found in blocks for block in found for command in lines(block)}


def test_every_command_is_tried_or_listed_once():
    listed = [*lines(TRIED), *lines(TRIED_SLOWLY), *lines(UNTRIED.read_text())]
    assert sorted(documented() - set(listed)) == [], "run them here, or list them in untried.txt"
    assert sorted(set(listed) - documented()) == [], "no page has them any more"
    assert len(listed) == len(set(listed))


def test_every_command_that_is_not_tried_has_its_reason():
    for group in UNTRIED.read_text().strip().split("\n\n"):
        assert group.startswith("# ")
        assert [name for name in re.findall(r"tests/[\w/]+(?:\.py)?", group) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("command", sorted(c for c in lines(UNTRIED.read_text()) if "mindghost " in c))
def test_what_is_not_tried_has_flags_that_exist(command):
    words = shlex.split(command.partition(" >")[0])
    name, *arguments = words[words.index("mindghost") + 1 :]
    parser = importlib.import_module(program.module_of(name)).make_parser()
    flags = [word for word in arguments if word.startswith("-") and word != "-"]
    assert set(flags) <= set(parser._option_string_actions)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """The project's root as a reader has it, with small images where the commands look for them."""
    folder = tmp_path_factory.mktemp("root")
    for name in ("configs", "examples", "scripts", "train.py", "validate.py"):
        (folder / name).symlink_to(ROOT / name)
    rng = np.random.default_rng(0)

    def picture(path: Path, colour: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(20 * colour, 20 * colour + 60, (40, 48, 3)).astype(np.uint8)).save(path)

    for kind in range(10):
        for split in ("train", "val"):
            picture(folder / "DATA" / split / f"class_{kind}" / "0.jpg", kind)
    shutil.copytree(folder / "DATA", folder / "runs" / "digits")
    picture(folder / "photo.jpg", 3)
    for name in ("more/1.png", "folder/2.png"):
        picture(folder / name, 4)
    # A shorter network, see short_program.py.
    (folder / "bin").mkdir()
    with served(folder / "bin"):
        yield folder


@pytest.fixture(scope="module")
def printed(folder) -> dict[str, str]:
    """What each of the commands in TRIED printed."""
    return shell(folder, lines(TRIED))


def shell(folder: Path, commands: list[str]) -> dict[str, str]:
    """Run commands in one shell, which ends at the first that fails; what each printed."""
    script = "set -e\n" + "".join(f"{command}\necho '= done'\n" for command in commands)
    paths = environment(folder, PATH=f"{folder / 'bin'}:{BIN}:/usr/local/bin:/usr/bin:/bin", **MPI)
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=paths, capture_output=True, text=True, timeout=900)
    said = done.stdout.split("= done\n")
    assert done.returncode == 0, f"{commands[len(said) - 1]}\n{said[-1][-2000:]}{done.stderr[-2000:]}"
    return dict(zip(commands, said, strict=False))


def found(printed: dict[str, str], start: str) -> str:
    """What the one command that starts like this printed."""
    (text,) = (text for command, text in printed.items() if command.startswith(start))
    return text


def test_commands_do_what_the_pages_say(folder, printed):
    for name in (
        "ghostnet_050_best.ckpt",
        "ghostnet_050_best.onnx",
        "report/report.html",
        "metrics.png",
        "model_card.md",
    ):
        assert (folder / "runs" / "mine" / name).is_file()
    for name in ("runs/packed", "mine.safetensors", "ghosts.png", "annotated"):
        assert (folder / name).exists()
    assert "ghostnet_050_cpu" in found(printed, "mindghost recipes")
    assert "-n 8" in found(printed, "DRY_RUN")


@pytest.mark.slow
@pytest.mark.usefixtures("printed")
def test_slow_commands_do_what_the_pages_say(folder):
    printed = shell(folder, lines(TRIED_SLOWLY))
    assert (folder / "runs" / "two" / "ghostnet_100_best.ckpt").is_file()
    assert (folder / "answers.csv").read_text().count("\n") == 2
    assert (folder / "deploy" / "ghostnet_050_best.onnx").is_file()
    by_checkpoint, by_onnx = (
        json.loads(found(printed, f"mindghost validate --ckpt_path runs/mine/ghostnet_050_best.{end}").splitlines()[-1])
        for end in ("ckpt", "onnx")
    )
    assert by_checkpoint["top_1"] == by_onnx["top_1"]
