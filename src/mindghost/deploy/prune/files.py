"""A checkpoint -> the files of a smaller network, which all commands take."""

from __future__ import annotations

from pathlib import Path

from ... import build
from ...checkpoint import weights as weights_file
from ...config import PLACE_KEYS, Config
from ...config.beside_weights import KEYS
from ...errors import UserError
from ...files import intact, json_text, outputs, paths
from ...inference.deployment import Deployment
from ...models.pruned import parsed, written
from ...runs.files import RunFiles
from . import Pruned, prune
from .gradients import of_batches

# What is about a run itself, and not about how it trained its network.
_OF_A_RUN = PLACE_KEYS - {"teacher_ckpt_path", "exclude_list"} | {
    *("pretrained", "resume_force", "overwrite", "auto", "device_target", "distribute")
}


def write(
    deployed: Deployment, share: float, importance: str, folder: Path, batches: int = 16, multiple: int = 1
) -> tuple[Path, Pruned]:
    """Prune a checkpoint's network, and write what is left to a folder: weights, and what training left beside them.

    Args:
        deployed: the checkpoint.
        share, importance, multiple: see `prune`.
        folder: does not exist yet, or is empty; all of its files are there afterwards, or none.
        batches: of training images, for the importance "loss".

    Returns the weight file, and what was pruned.

    Raises:
        UserError: weights that do not fit, a network that cannot be followed, a share that cannot be reached, or a
            folder that is not free.
        RunError: a file cannot be written.
    """
    outputs.check_new_folder(folder, "--out")
    if deployed.config.quantize_aware is not None:
        raise UserError(
            f"{deployed.path}: is trained for integers; prune a network in float, and train that for integers"
        )
    config = deployed.config.replace(val_amp_level="O0")
    network, _ = build.trained_network(config)
    gradients = of_batches(network, config, batches) if importance == "loss" else ()
    found = prune(network, deployed.input_shape, share, importance, gradients, multiple)
    least = found.macs[1] / found.macs[0]
    if least > share:
        raise UserError(
            f"--macs {share:g}: {least:.3f} of the multiply-accumulates is the least that is left, since of each layer "
            f"an eighth stays, and channels go by {multiple} at a time; ask for more, or for a smaller --multiple"
        )
    # A network that was pruned before has said some of its channels.
    channels = {**parsed(config.channels), **found.channels}
    narrower = _recipe(deployed).replace(channels=written(channels))
    name = f"{config.model}_pruned.ckpt"
    with outputs.new_folder(folder, "--out") as made:
        weights_file.write(made / name, found.arrays)
        files = RunFiles(made)
        intact.write_atomically(files.config, narrower.to_yaml().encode())
        if not deployed.numbered:
            intact.write_atomically(files.classes, json_text.dumps(list(deployed.classes), indent=1).encode())
        if deployed.thresholds is not None:
            intact.copy(RunFiles.thresholds(deployed.path), RunFiles.thresholds(made / name))
        if paths.is_file(RunFiles.beside(deployed.path).colors):
            intact.copy(RunFiles.beside(deployed.path).colors, files.colors)
    return folder / name, found


def _recipe(deployed: Deployment) -> Config:
    """How the checkpoint's network was trained, as far as the `config.yaml` beside it says that."""
    beside = RunFiles.beside(deployed.path).config
    trained = Config.from_file(beside) if paths.exists(beside) else deployed.config
    fresh = {key: Config.default(key) for key in _OF_A_RUN}
    return trained.replace(**{**fresh, **{key: getattr(deployed.config, key) for key in KEYS}})
