"""Config -> optimizer, made by mindcv's factory."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mindcv.optim import create_optimizer
from mindspore import nn

from .config import Config
from .errors import UserError

_mindcv_log = logging.getLogger("mindcv.optim.optim_factory")


def optimizer(config: Config, network: nn.Cell, rates: Sequence[float], device: str) -> nn.Optimizer:
    """The optimizer of `config.opt` over the network's trainable parameters.

    Args:
        config: optimizer keys. `weight_decay_filter`: "disable" decays every parameter; "norm_and_bias" leaves out
            batch-norm parameters and biases; "auto" leaves it to MindSpore, which leaves out batch-norm parameters.
        network: its trainable parameters are updated.
        rates: learning rate of each update.
        device: "CPU", "Ascend" or "GPU".

    Raises:
        UserError: an optimizer that MindSpore cannot run on the device.
    """
    if config.opt == "lamb" and device == "CPU":
        raise UserError("opt: MindSpore has no CPU kernel for lamb; use another optimizer (adamw is the nearest)")
    # mindcv warns whenever the filter is "auto", which is a documented choice.
    _mindcv_log.setLevel(logging.ERROR)
    # MindSpore's Momentum ignores use_nesterov on the CPU; its SGD computes the same update and does not.
    nesterov_on_cpu = config.opt == "momentum" and config.use_nesterov and device == "CPU"
    # Gradients arrive unscaled (step.py), so that the optimizer never knows of the loss scale.
    return create_optimizer(
        network,
        opt="sgd" if nesterov_on_cpu else config.opt,
        lr=list(rates),
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        nesterov=config.use_nesterov,
        weight_decay_filter=config.weight_decay_filter,
        eps=config.eps,
    )
