"""GhostNet, and the U-Net on it, in PyTorch: variants "eager", "channels_last" and "compile" (channels-last too)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .job import Job, answer, time_steps
from .recipe import TABLE, TORCH_WEIGHTS, TRAINING, images_of, labels_of
from .torch_network import TorchGhostNet, load
from .torch_segmentation import TorchGhostUnet


def measure(job: Job) -> dict[str, Any]:
    """Training or inference."""
    path = Path(job.folder, TABLE)
    if not path.exists():
        return {"missing": f"written for GhostNet and ghost_unet, not for {job.model}"}
    torch.set_num_threads(job.threads)
    torch.manual_seed(1)
    network = (TorchGhostUnet if job.dense else TorchGhostNet)(
        json.loads(path.read_text(encoding="utf-8")), TRAINING["drop_rate"]
    )
    load(network, np.load(Path(job.folder, TORCH_WEIGHTS)))
    layout = torch.contiguous_format if job.variant == "eager" else torch.channels_last
    network = network.to(memory_format=layout)
    images = torch.from_numpy(images_of(job)).to(memory_format=layout)
    run = torch.compile(network) if job.variant == "compile" else network
    return time_steps(job, (_training if job.task == "training" else _inference)(job, network, run, images))


def _training(job: Job, network: nn.Module, run: Callable[..., Any], images: torch.Tensor) -> Callable[[], object]:
    network.train()
    labels = torch.from_numpy(labels_of(job)).long()
    loss_of = nn.CrossEntropyLoss(label_smoothing=TRAINING["label_smoothing"])
    keys = {key: TRAINING[key] for key in ("lr", "weight_decay", "momentum")}
    optimizer = torch.optim.SGD(network.parameters(), **keys)

    def step() -> float:
        optimizer.zero_grad()
        loss = loss_of(run(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _inference(job: Job, network: nn.Module, run: Callable[..., Any], images: torch.Tensor) -> Callable[[], object]:
    network.eval()

    def step() -> NDArray[Any]:
        with torch.inference_mode():
            return run(images).numpy()

    return step


if __name__ == "__main__":
    answer(measure)
