"""Config -> the parts that training and validation share: network, precision, weights."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mindcv.utils import amp
from mindspore import nn

from .checkpoint import weights as weights_file
from .checkpoint.load import Loaded, fill_network
from .config import Config
from .errors import UserError
from .files import download
from .files.cache import cache_dir
from .models import USUAL, Card, Weights, card, create_model
from .models.network import Network
from .ops import rewrite


def facts(model: str) -> Card:
    """What is published of a network. Raises UserError for an unknown name."""
    try:
        return card(model)
    except ValueError as error:
        raise UserError(str(error)) from error


def published(model: str, variant: bool | str = True) -> Weights:
    """The published weights of a network: the usual ones (True), or a variant by its name.

    Raises UserError for a network, or a variant of it, that nobody has published for MindSpore.
    """
    found = facts(model)
    if not found.weights:
        raise UserError(
            f"pretrained: no weights of {model} are published for MindSpore; convert its PyTorch weights with "
            "`mindghost convert` and name the file with ckpt_path"
        )
    name = USUAL if isinstance(variant, bool) else variant
    if name not in found.weights:
        known = f"the variants are {', '.join(found.variants)}" if found.variants else "there are no variants"
        raise UserError(
            f"pretrained: no weights {name[:60]!r} of {model} are published; {known}; True takes the usual weights"
        )
    return found.weights[name]


def published_file(model: str, variant: bool | str = True, **patience: Any) -> Path:
    """The file of those weights, downloaded unless it is here; `patience` is for `download.fetch`.

    Raises UserError as `published`, and where the file cannot be had.
    """
    weights = published(model, variant)
    return download.fetch(weights.url, cache_dir(), digest=weights.sha256, **patience)


def published_place(model: str) -> Path:
    """Where the file of the usual weights is, or would be."""
    return download.place(published(model).url, cache_dir())


def network(config: Config) -> Network:
    """The network of `config.model` with fresh weights, before mixed precision.

    Raises UserError for an unknown name, or an option that the network does not have; ValueError for a configuration
    whose `num_classes` is not settled (`Runtime.with_classes`): the network would have its own default.
    """
    if config.num_classes is None:
        raise ValueError("num_classes: not settled; Runtime.with_classes takes that of the data")
    try:
        made = create_model(
            config.model,
            num_classes=config.num_classes,
            in_channels=config.in_channels,
            drop_rate=config.drop_rate,
            drop_path_rate=config.drop_path_rate,
            init=config.init,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    assert isinstance(made, Network)  # features_only was not asked for
    return made


def training_precision(net: nn.Cell, config: Config, operators: Path | None) -> nn.Cell:
    """The network of `config.model` as it is trained: in the precision of `amp_level`, on our native operators."""
    return _in_precision(net, config.amp_level, config, operators)


def evaluation_network(config: Config, operators: Path | None = None) -> nn.Cell:
    """The same network as it is evaluated: in the precision of `val_amp_level`, on our native operators."""
    return _in_precision(network(config), config.val_amp_level, config, operators)


def _in_precision(net: nn.Cell, level: str, config: Config, operators: Path | None) -> nn.Cell:
    net = _apply_amp(net, level, config.amp_cast_list)
    if operators is not None and level == "O0":
        rewrite.use(net, operators)
    return net


def _apply_amp(network: nn.Cell, level: str, cast_list: Sequence[str] | None = None) -> nn.Cell:
    """Make the network compute in float16 where `level` says so; parameters stay float32. Changes it in place.

    Args:
        network: the network, before it is first called.
        level: "O0" all float32; "O1" layers of a white list in float16 (convolutions, dense); "O2" all but those of
            a black list (normalisation); "O3" all.
        cast_list: names of `mindspore.nn` layers that take the place of the white or black list (MindCV's
            `amp_cast_list`).

    Raises:
        UserError: a name in the list that `mindspore.nn` does not have.
    """
    if cast_list is None or level in ("O0", "O3"):
        amp.auto_mixed_precision(network, level)
        return network
    layers = tuple(_layer(name) for name in cast_list)
    # mindcv's public function takes the list as a text that it evaluates as code.
    cast = amp._auto_white_list if level == "O1" else amp._auto_black_list
    cast(network, layers)
    return network


def _layer(name: str) -> type[nn.Cell]:
    layer = getattr(nn, name, None)
    if isinstance(layer, type) and issubclass(layer, nn.Cell):
        return layer
    names = [n for n in dir(nn) if isinstance(getattr(nn, n), type)]
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0)[0]
    raise UserError(f"amp_cast_list: mindspore.nn has no layer {name!r}; the nearest is {nearest!r}")


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
    elif not config.pretrained:
        return None
    else:
        path = published_file(config.model, config.pretrained)
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
    loaded = load_weights(cell, config, fine_tune=False)
    assert loaded is not None  # callers give `ckpt_path` or `pretrained`
    return cell, loaded


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
