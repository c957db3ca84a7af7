"""A checkpoint -> the files of a smaller network, which all commands take."""

from __future__ import annotations

from pathlib import Path

from ... import build
from ...checkpoint import weights as weights_file
from ...errors import UserError
from ...files import intact, json_text, paths
from ...inference.deployment import Deployment
from ...models.pruned import parsed, written
from ...runs.files import RunFiles
from . import Pruned, prune
from .gradients import of_batches


def write(
    deployed: Deployment, share: float, importance: str, folder: Path, overwrite: bool = False, batches: int = 16
) -> tuple[Path, Pruned]:
    """Prune a checkpoint's network, and write what is left to a folder: weights, configuration, class names.

    Args:
        deployed: the checkpoint.
        share, importance: see `prune`.
        folder: where the files go.
        overwrite: replace files that are there.
        batches: of training images, for the importance "loss".

    Returns the weight file, and what was pruned.

    Raises:
        UserError: weights that do not fit, a network that cannot be followed, or files that are there.
        RunError: a file cannot be written.
    """
    config = deployed.config.replace(val_amp_level="O0")
    files = RunFiles(folder)
    weights = folder / f"{config.model}_pruned.ckpt"
    paths.make_folder(folder, "--out")
    for file in (weights, files.config, files.classes):
        if paths.exists(file) and not overwrite:
            raise UserError(f"--out: {file} exists; give another folder, or --overwrite to replace it")
    network, _ = build.trained_network(config)
    gradients = of_batches(network, config, batches) if importance == "loss" else ()
    found = prune(network, deployed.input_shape, share, importance, gradients)
    # A network that was pruned before has said some of its channels.
    channels = {**parsed(config.channels), **found.channels}
    narrower = config.replace(channels=written(channels), ckpt_path="", pretrained=False)
    build.network(narrower)  # it can be built
    intact.write_all_atomically(
        {
            files.config: narrower.to_yaml().encode(),
            files.classes: json_text.dumps(list(deployed.classes), indent=1).encode(),
        }
    )
    weights_file.write(weights, found.arrays)
    return weights, found
