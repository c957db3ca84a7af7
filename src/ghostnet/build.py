"""Config -> the parts that training and validation share: network, precision, weights, class names."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from mindspore import nn

from . import amp, checkpoint, download
from .config import Config
from .distributed import Ranks
from .errors import UserError
from .models import Card, card, create_model
from .models.replace import replace_cells
from .native import build as native
from .native import layers as native_layers
from .native import momentum as native_momentum
from .native import ranks as native_ranks

log = logging.getLogger("ghostnet")


def facts(model: str) -> Card:
    """What is published of a network. Raises UserError for an unknown name."""
    try:
        return card(model)
    except ValueError as error:
        raise UserError(str(error)) from error


def network(config: Config) -> nn.Cell:
    """The network of `config.model` with fresh weights, before mixed precision.

    Raises UserError for an unknown name, or an option that the network does not have; ValueError for a configuration
    whose `num_classes` is not settled (`Runtime.with_classes`): the network would have its own default.
    """
    if config.num_classes is None:
        raise ValueError("num_classes: not settled; Runtime.with_classes takes that of the data")
    try:
        return create_model(
            config.model,
            num_classes=config.num_classes,
            in_channels=config.in_channels,
            drop_rate=config.drop_rate,
            drop_path_rate=config.drop_path_rate,
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def training_precision(net: nn.Cell, config: Config, operators: Path | None) -> nn.Cell:
    """The network of `config.model` as it is trained: in the precision of `amp_level`, on our `native_operators`."""
    return _in_precision(net, config.amp_level, config, operators)


def evaluation_network(config: Config, operators: Path | None = None) -> nn.Cell:
    """The same network as it is evaluated: in the precision of `val_amp_level`, on our `native_operators`."""
    return _in_precision(network(config), config.val_amp_level, config, operators)


def _in_precision(net: nn.Cell, level: str, config: Config, operators: Path | None) -> nn.Cell:
    net = amp.apply(net, level, config.amp_cast_list)
    if operators is not None and level == "O0":
        native_layers.use(net, operators)
    return net


def synchronise_batch_norm(net: nn.Cell) -> None:
    """Have every batch norm of a network use the mean and variance over all ranks' batches (Ascend only)."""
    norms = [cell for _, cell in net.cells_and_names() if type(cell) is nn.BatchNorm2d]
    replace_cells(net, {id(norm): _synchronised(norm) for norm in norms})


def _synchronised(norm: nn.BatchNorm2d) -> nn.SyncBatchNorm:
    """The same batch norm, parameters and all, over all ranks."""
    result = nn.SyncBatchNorm(norm.num_features, norm.eps, 1 - norm.momentum)
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        setattr(result, name, getattr(norm, name))
    result.use_batch_statistics = norm.use_batch_statistics
    return result


def native_operators(config: Config, device: str, threads: int) -> Path | None:
    """The library of our C++ operators for float32 networks, loaded; says in the log whether it is.

    Args:
        config: reads `native_ops` and whether training or evaluation is in float32.
        device: "CPU", "Ascend" or "GPU".
        threads: that the operators may use.

    Returns None where `native_ops` is off, or auto and they cannot be had. Raises UserError where it is on and they
    cannot be had.
    """
    if config.native_ops == "off":
        return None
    try:
        if device != "CPU" or "O0" not in (config.amp_level, config.val_amp_level):
            raise native.NativeError(f"they are for float32 on a CPU, not for {device}, {config.amp_level}")
        path = native.library()
        kernels = native.load(path, threads)
    except native.NativeError as error:
        if config.native_ops == "on":
            raise UserError(f"native_ops: on, but {error}; give auto or off to do without them") from error
        if device == "CPU":
            log.info(f"MindSpore's own operators instead of the faster native ones: {error}")
        return None
    log.info(f"native operators: {kernels}, {threads} thread(s)")
    return path


def rank_sum(net: nn.Cell, operators: Path | None, ranks: Ranks) -> nn.Cell | None:
    """Sums up the gradients of a network over ranks on one machine; None where that is left to MindSpore's collectives.

    Every rank has to call it, with our operators or without.
    """
    weights = net.trainable_params()
    if operators is None or ranks.size == 1:
        return None
    if not native_ranks.join(operators, ranks, sum(weight.size for weight in weights)):
        return None
    log.info("gradients are summed up over the ranks in shared memory")
    return native_ranks.SumOverRanks(operators, len(weights))


def fused_update(optimizer: nn.Optimizer, operators: Path | None) -> nn.Cell | None:
    """Does what an optimizer does in one pass; None without our operators, or where they do not know it."""
    if operators is None or not native_momentum.covers(optimizer):
        return None
    return native_momentum.MomentumUpdate(operators, optimizer)


def load_weights(net: nn.Cell, config: Config, *, fine_tune: bool) -> checkpoint.Loaded | None:
    """Fill `net` from `ckpt_path`, else from the published weights where `pretrained` is set; None where neither is.

    Args:
        net: the network of `config.model`.
        config: names the file.
        fine_tune: a classifier of another size starts fresh; otherwise it must fit too.

    Raises UserError where the file cannot be had or does not fit.
    """
    facts = card(config.model)
    if fine_tune and config.pretrained and config.ckpt_path:
        raise UserError("pretrained: pretrained and ckpt_path both name weights to start from; drop one of them")
    if config.ckpt_path:
        path = Path(config.ckpt_path)
    elif config.pretrained and facts.weights_url is None:
        raise UserError(
            f"pretrained: no weights of {config.model} are published for MindSpore; convert its PyTorch weights with "
            "scripts/convert_weights.py and name the file with ckpt_path"
        )
    elif config.pretrained:
        path = download.fetch(facts.weights_url, download.cache_dir(), digest=facts.weights_sha256)
    else:
        return None
    return checkpoint.load_weights(
        net,
        path,
        stem=facts.stem,
        classifier=facts.classifier,
        averaged=config.ema,
        fresh_classifier=fine_tune,
    )


def saved_classes(ckpt_path: str) -> list[str] | None:
    """Class names in label order from the `classes.json` beside a weight file; None where there is none.

    Raises UserError where the file is not a list of names.
    """
    path = Path(ckpt_path).parent / "classes.json"
    if not ckpt_path or not path.is_file():
        return None
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); delete it, or restore the one that training wrote") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: expected a list of class names; delete it, or restore the one that training wrote")
    return names
