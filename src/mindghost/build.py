"""Config -> the parts that training and validation share: network, precision, weights, class names."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from mindspore import nn

from . import amp
from .checkpoint import weights as weights_file
from .checkpoint.load import Loaded, fill_network
from .config import Config
from .errors import UserError
from .files import download, paths
from .models import Card, card, create_model
from .models.surgery import replace_cells
from .ops import allreduce as native_ranks
from .ops import fused as native_layers
from .ops import library as native
from .ops import momentum as native_momentum
from .parallel.ranks import Ranks
from .tasks.classification import names as class_names

log = logging.getLogger("mindghost")

_NAMES_SHOWN = 12


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


def load_weights(net: nn.Cell, config: Config, *, fine_tune: bool) -> Loaded | None:
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
    return fill_network(
        net,
        path,
        stem=facts.stem,
        classifier=facts.classifier,
        averaged=config.ema,
        fresh_classifier=fine_tune,
    )


def trained_network(config: Config, operators: Path | None = None) -> tuple[nn.Cell, Loaded]:
    """The network of `config.model` as it is evaluated, with the weights of `ckpt_path` or the published ones.

    Raises UserError where they cannot be had or do not fit. Sizes that are not those of the file are refused before a
    network of them is built: a file beside weights may ask for two billion classes.
    """
    if config.ckpt_path:
        _check_sizes(config)
    cell = evaluation_network(config, operators)
    return cell, load_weights(cell, config, fine_tune=False)


def _check_sizes(config: Config) -> None:
    """Raise UserError where `num_classes` or `in_channels` is not that of the weights in `ckpt_path`."""
    found, path = facts(config.model), Path(config.ckpt_path)
    shapes = {name: array.shape for name, array in weights_file.read(path).items()}
    outputs = _size_of(shapes, f"{found.classifier}.weight", 0)
    if outputs is not None and config.num_classes != outputs:
        raise UserError(
            f"num_classes: {config.num_classes}, but the classifier in {path} has {outputs} outputs; give "
            "the num_classes that the file was made with"
        )
    channels = _size_of(shapes, f"{found.stem}.weight", 1)
    # Weights for colour images take grey ones, too.
    if channels is not None and config.in_channels != channels and (config.in_channels, channels) != (1, 3):
        raise UserError(
            f"in_channels: {config.in_channels}, but the weights in {path} take {channels}; give the in_channels that "
            "the file was made with"
        )
    largest = max((max(shape, default=1) for shape in shapes.values()), default=0)
    for key in ("num_classes", "in_channels"):
        if getattr(config, key) > largest:
            raise UserError(f"{key}: {getattr(config, key)}, but no weight in {path} is as large; correct {key}")


def _size_of(shapes: Mapping[str, tuple[int, ...]], name: str, axis: int) -> int | None:
    """A size of the parameter with this name, whatever stands before the name; None where it is not known."""
    entries = [entry for entry in shapes if entry == name or entry.endswith(f".{name}")]
    # Of several the outermost: blocks have a conv1, too.
    shape = shapes[min(entries, key=len)] if entries else ()
    return shape[axis] if len(shape) > axis else None


def saved_classes(ckpt_path: str) -> list[str] | None:
    """Class names in label order from the `classes.json` beside a weight file; None where there is none.

    Raises UserError where the file is not a list of names.
    """
    path = Path(ckpt_path).parent / "classes.json"
    if not ckpt_path or not paths.exists(path):
        return None
    return class_names.read(path, "delete it, or restore the one that training wrote")


def say_order(classes: Sequence[str], why: str) -> None:
    """Say which class has which label where only the names of folders know it."""
    named = ", ".join(f"{label} {name}" for label, name in enumerate(classes[:_NAMES_SHOWN]))
    more = f", ... ({len(classes)} classes)" if len(classes) > _NAMES_SHOWN else ""
    # Folders 0 to 10: whoever trained elsewhere may have counted.
    numbers = "; numbers are sorted as text, too" if in_other_order(classes) else ""
    log.info(f"{why}: labels follow the sorted names of the class folders{numbers}: {named}{more}")


def in_other_order(classes: Sequence[str]) -> bool:
    """Whether names are numbers whose order is not that of their labels, as with folders 0, 1, 10, 2."""
    numeric = [int(name) for name in classes if name.isascii() and name.isdecimal() and len(name) < 10]
    return len(numeric) == len(classes) and numeric != sorted(numeric)
