"""Folders of runs, written epoch by epoch without training."""

import numpy as np

from mindghost.config import Config
from mindghost.runs.folder import RunFolder
from mindghost.runs.state import Position, RunState

WEIGHTS = {"w": np.zeros(3, np.float32)}

DATA = "ab" * 32


def config(path, **keys) -> Config:
    return Config(model="ghostnet_050", ckpt_save_dir=str(path), val_while_train=True, **keys)


def names(folder):
    return sorted(file.name for file in folder.path.glob("[!.]*"))


def save(folder, epoch, **keys) -> None:
    """A state whose one weight tells the epoch too."""
    folder.save_state(state_of(folder, {"w": np.full(3, epoch, np.float32)}, Position(epoch=epoch, **keys)))


def state_of(folder, arrays, position, *, steps: int = 7) -> RunState:
    """The state of a run of two ranks."""
    return RunState(folder.state, arrays, position, config(folder.path), DATA, ranks=2, steps=steps)


def damage(file) -> None:
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    file.write_bytes(content)


def run(path, accuracies, **keys) -> RunFolder:
    """A run of one epoch for each accuracy; the best so far is told as the trainer does."""
    folder = RunFolder(config(path, keep_checkpoint_max=2, **keys))
    folder.start()
    folder.config.write_text(config(path, **keys).to_yaml())
    best = None
    for epoch, top_1 in enumerate(accuracies, 1):
        better = top_1 is not None and (best is None or top_1 > best)
        best = top_1 if better else best
        folder.save_weights(WEIGHTS, epoch, 7, better, keep=True)
        folder.add_record({"epoch": epoch, "top_1": top_1})
    return folder


def kept(folder):
    """Epoch files that have their sidecars, and nothing else with such a name."""
    found = [name for name in names(folder) if "-" in name]
    assert found[1::2] == [f"{name}.sha256" for name in found[::2]]
    return found[::2]


def epochs_of_states(folder) -> list[int]:
    return [folder.read_state(str(file)).position.epoch for file in (folder.state, folder.previous_state)]
