"""A network in PyTorch: GhostNet, and the U-Net on it, of our own table; timm's relatives; the user's own file.

Variants are words: "channels_last", "bfloat16" (autocast, of the second's layout) and "compile" (likewise).
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from . import torch_module
from .job import Job, answer, time_steps
from .recipe import TABLE, TORCH_WEIGHTS, TRAINING, images_of, labels_of
from .torch_network import TorchGhostNet, load
from .torch_segmentation import TorchGhostUnet

_BFLOAT16 = {"x86_64": {"avx512_bf16", "amx_bf16"}, "aarch64": {"bf16"}}


def measure(job: Job) -> dict[str, Any]:
    """Training or inference."""
    if "bfloat16" in job.variant and not _has_bfloat16():
        return {"missing": "this processor has no instructions for bfloat16"}
    torch.set_num_threads(job.threads)
    torch.manual_seed(1)
    network = torch_module.network(job) if job.torch_module else _ours(job) or _timms(job)
    if network is None:
        return {"missing": f"written for GhostNet and ghost_unet, not for {job.model}, and timm has none"}
    layout = torch.contiguous_format if job.variant == "eager" else torch.channels_last
    network = network.to(memory_format=layout)
    images = torch.from_numpy(images_of(job)).to(memory_format=layout)
    compiled = torch.compile(network) if "compile" in job.variant else network

    def run(images: torch.Tensor) -> torch.Tensor:
        with _precision(job):
            return compiled(images).float()

    return time_steps(job, (_training if job.task == "training" else _inference)(job, network, run, images))


def _has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16 by itself, as far as Linux says; emulating it would be slow."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return False
    return bool(words & _BFLOAT16.get(platform.machine(), set()))


def _precision(job: Job) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16) if "bfloat16" in job.variant else nullcontext()


def _ours(job: Job) -> nn.Module | None:
    """The network of our table; None where there is no table."""
    path = Path(job.folder, TABLE)
    if not path.exists():
        return None
    network = (TorchGhostUnet if job.dense else TorchGhostNet)(
        json.loads(path.read_text(encoding="utf-8")), TRAINING["drop_rate"]
    )
    load(network, np.load(Path(job.folder, TORCH_WEIGHTS)))
    return network


def _timms(job: Job) -> nn.Module | None:
    """The network of this name in timm, with our weights, its branches fused but for training; None if it has none."""
    if job.dense:
        return None
    import timm
    from timm.utils.model import reparameterize_model

    if job.model not in timm.list_models():
        return None
    network = timm.create_model(job.model, num_classes=job.num_classes, drop_rate=TRAINING["drop_rate"])
    load(network, np.load(Path(job.folder, TORCH_WEIGHTS)))
    return network if job.task == "training" else reparameterize_model(network.eval())


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
