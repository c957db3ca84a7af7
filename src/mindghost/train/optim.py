"""Config -> optimizer, made by mindcv's factory where it has it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from mindcv.optim import create_optimizer
from mindcv.optim.optim_factory import init_group_params
from mindspore import nn

from ..config import Config
from ..errors import UserError
from ..ops.rmsprop_tf import RMSpropTF
from . import groups

_mindcv_log = logging.getLogger("mindcv.optim.optim_factory")


def optimizer(
    config: Config, network: nn.Cell, rates: Sequence[float], device: str, native: bool = False
) -> nn.Optimizer:
    """The optimizer of `config.opt` over the network's trainable parameters.

    Args:
        config: optimizer keys. `weight_decay_filter`: "disable" decays every parameter; "norm_and_bias" leaves out
            batch-norm parameters and biases; "auto" leaves it to MindSpore, which leaves out batch-norm parameters.
        network: its trainable parameters are updated.
        rates: learning rate of each update.
        device: "CPU", "Ascend" or "GPU".
        native: our native operators are there, which may update in the optimizer's place (`ops.updates`).

    Raises:
        UserError: an optimizer that nothing here can run on the device.
    """
    if config.opt == "lamb" and device == "CPU" and not native:
        raise UserError(
            "opt: lamb on a CPU takes our native operators (MindSpore has no kernel), and these are off or cannot be "
            "had here; use another optimizer (adamw is the nearest)"
        )
    parameters: Any = network.trainable_params()
    scale_of = groups.scales(config, network)
    if scale_of:
        parameters = groups.parameter_groups(config, parameters, scale_of, rates)
    elif config.opt == "rmsproptf" and config.weight_decay_filter != "auto":
        parameters = init_group_params(parameters, config.weight_decay, config.weight_decay_filter, no_weight_decay=())
    rate: Any = parameters[0]["lr"] if scale_of else list(rates)
    if config.opt == "rmsproptf":
        keys = {"momentum": config.momentum, "eps": config.eps, "weight_decay": config.weight_decay}
        return RMSpropTF(parameters, rate, **keys)
    # mindcv warns whenever the filter is "auto", which is a documented choice.
    _mindcv_log.setLevel(logging.ERROR)
    # MindSpore's Momentum ignores use_nesterov on the CPU; its SGD computes the same update and does not.
    nesterov_on_cpu = config.opt == "momentum" and config.use_nesterov and device == "CPU"
    # Gradients arrive unscaled (step.py), so that the optimizer never knows of the loss scale.
    return create_optimizer(
        parameters if scale_of else network,
        opt="sgd" if nesterov_on_cpu else config.opt,
        lr=rate,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        nesterov=config.use_nesterov,
        # With "auto", mindcv takes groups as they are.
        weight_decay_filter="auto" if scale_of else config.weight_decay_filter,
        eps=config.eps,
    )
