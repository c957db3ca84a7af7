"""Config -> optimizer, made by mindcv's factory where it has it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from mindcv.optim import create_optimizer
from mindcv.optim.optim_factory import init_group_params
from mindspore import Parameter, nn

from ..config import Config
from ..errors import UserError
from .rmsprop_tf import RMSpropTF

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
    if config.opt == "rmsproptf":
        return _rmsprop_tf(config, network.trainable_params(), rates)
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


def _rmsprop_tf(config: Config, parameters: list[Parameter], rates: Sequence[float]) -> RMSpropTF:
    """RMSpropTF over mindcv's groups of parameters, so that `weight_decay_filter` means what it does elsewhere."""
    keys: dict[str, Any] = {"learning_rate": list(rates), "momentum": config.momentum, "eps": config.eps}
    if config.weight_decay_filter == "auto":
        return RMSpropTF(parameters, weight_decay=config.weight_decay, **keys)
    groups = init_group_params(parameters, config.weight_decay, config.weight_decay_filter, no_weight_decay=())
    return RMSpropTF(groups, **keys)
