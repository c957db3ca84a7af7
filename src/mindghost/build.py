"""Config -> the parts that training and validation share: network, precision, weights."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mindcv.utils import amp
from mindspore import nn

from . import tasks
from .checkpoint import weights as weights_file
from .checkpoint.load import Loaded, fill_network
from .config import Config
from .errors import UserError
from .files import download
from .files.cache import cache_dir
from .models import CLASSIFICATION, SEGMENTATION, USUAL, Card, Weights, backbone_name, card, create_model, list_models
from .models.folded import folded
from .models.network import RegistryNetwork
from .models.parameters import assign
from .models.quantized import is_range, quantize_aware
from .models.segmentation import SegmentationNetwork
from .ops import plan, rewrite
from .ops.library import check_bfloat16


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
            f"pretrained: no weights of {model} are published for MindSpore; convert {found.pytorch_weights} with "
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


def trunk(config: Config) -> str:
    """Name of the classifier that the network is, or whose feature maps it is made of.

    Raises UserError for a network that is not known, does not fit the task, or has no such backbone.
    """
    found, wanted = facts(config.model), SEGMENTATION if tasks.of(config).is_dense else CLASSIFICATION
    if found.task != wanted:
        fitting = Config.default("model") if wanted == CLASSIFICATION else f"one of {', '.join(list_models(wanted))}"
        raise UserError(
            f"model: {config.model} is a network for {found.task}, not for task {config.task}; give {fitting}, or "
            "another task"
        )
    try:
        return backbone_name(config.model, config.backbone)
    except ValueError as error:
        raise UserError(str(error)) from error


def check(config: Config) -> None:
    """Raise UserError where what a training asks of its network shows to be wrong before any image is looked at."""
    trunk(config)
    if config.backbone_ckpt_path or config.quantize_aware is not None:
        _check_start(config)


def options(config: Config) -> dict[str, Any]:
    """What `create_model` takes of a configuration, but for how fresh weights are drawn."""
    return {
        "num_classes": config.num_classes,
        "in_channels": config.in_channels,
        "drop_rate": config.drop_rate,
        "drop_path_rate": config.drop_path_rate,
        "backbone": config.backbone,
        "decoder_width": config.decoder_width,
        "upsampling": config.upsampling,
        "channels": config.channels,
    }


def network(config: Config) -> RegistryNetwork:
    """The network of `config.model` with fresh weights, before mixed precision.

    Raises UserError for an unknown name, an option that the network does not have, or another task's network;
    ValueError for a configuration whose `num_classes` is not settled (`Runtime.with_classes`): the network would have
    its own default.
    """
    if config.num_classes is None:
        raise ValueError("num_classes: not settled; Runtime.with_classes takes that of the data")
    trunk(config)
    try:
        made = create_model(config.model, init=config.init, **options(config))
    except ValueError as error:
        raise UserError(str(error)) from error
    assert isinstance(made, RegistryNetwork)  # features_only was not asked for
    return made if config.quantize_aware is None else _quantize_aware(made, config)


def _quantize_aware(made: nn.Cell, config: Config) -> RegistryNetwork:
    """A network, trained in float or fresh, in the form that is trained for integers."""
    form = quantize_aware(folded(config.model, made, **options(config)), config.in_channels)
    assert isinstance(form, RegistryNetwork)
    return form


def training_precision(net: nn.Cell, config: Config, operators: Path | None) -> nn.Cell:
    """The network of `config.model` as it is trained: in the precision of `amp_level`, on our native operators."""
    if config.amp_type == "bfloat16" and config.amp_level == "O2":
        # That of our operators' products, and of nothing else; without operators all is in float32.
        if operators is not None:
            rewrite.use(net, operators, bfloat16=True)
        return net
    net = _apply_amp(net, config.amp_level, config.amp_cast_list)
    if operators is not None and config.amp_level == "O0":
        rewrite.use(net, operators)
    return net


def evaluation_network(config: Config, operators: Path | None = None) -> nn.Cell:
    """The same network as it is evaluated, where nobody asks for gradients: in the precision of `val_amp_level`.

    It is on our native operators, but what `ops.plan` knows has none of them in it (`inference.network.of_cell`).

    Raises UserError for `val_amp_level: bfloat16` where it cannot be had.
    """
    net = network(config)
    check_evaluation(net, config, operators)
    if config.val_amp_level == "bfloat16":
        return net
    net = _apply_amp(net, config.val_amp_level, config.amp_cast_list)
    if config.val_amp_level == "O0" and operators is not None and not plan.knows(net):
        rewrite.use(net, operators)
    return net


def check_evaluation(net: nn.Cell, config: Config, operators: Path | None) -> None:
    """Raise UserError where a network, as `models` makes it, is to be evaluated in bfloat16 and cannot be.

    That is a matter of the plan that it becomes, and of the processor.
    """
    if config.val_amp_level != "bfloat16":
        return
    check_bfloat16(operators, "val_amp_level")
    if not plan.knows(net):
        raise plan.missing(config.model)


def for_plan(config: Config, operators: Path | None) -> plan.Form | None:
    """How plans are made, if they may be: in float32 or bfloat16, and by the library of our operators."""
    if operators is None or config.val_amp_level not in ("O0", "bfloat16"):
        return None
    return plan.Form(operators, config.val_amp_level == "bfloat16")


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
    """Fill `net` from a file that the configuration names; None where it names none.

    That is `ckpt_path`, else the published weights where `pretrained` is set. A training for segmentation fills the
    backbone alone, of `backbone_ckpt_path`, or of the backbone's published weights.

    Args:
        net: the network of `config.model`.
        config: names the file.
        fine_tune: a training starts from these weights. A classifier of another size starts fresh then; otherwise it
            must fit too.

    Raises UserError where the file cannot be had or does not fit.
    """
    if fine_tune:
        _check_start(config)
        if config.quantize_aware is not None and not _is_quantize_aware(config):
            return _fill_from_float(net, config)
        if _starts_from_backbone(config):
            return _fill_backbone(net, config)
    if config.ckpt_path:
        path = Path(config.ckpt_path)
        if fine_tune and facts(config.model).task == SEGMENTATION:
            _check_whole(config, _shapes(path))
    elif not config.pretrained:
        return None
    else:
        path = published_file(config.model, config.pretrained)
    return fill_network(
        net,
        path,
        stem=_stem(config),
        classifier=facts(config.model).classifier,
        averaged=config.ema,
        fresh_classifier=fine_tune,
        key=_made_with(config),
    )


def _is_quantize_aware(config: Config) -> bool:
    """Whether `ckpt_path` holds ranges of maps, and not the weights of a float network."""
    return bool(config.ckpt_path) and any(map(is_range, _shapes(Path(config.ckpt_path))))


def _fill_from_float(net: nn.Cell, config: Config) -> Loaded | None:
    """Fill a network that is trained for integers from the weights of a float one; ranges of maps stay fresh."""
    in_float = config.replace(quantize_aware=None)
    source = network(in_float)
    loaded = load_weights(source, in_float, fine_tune=True)
    places = {parameter.name: parameter for parameter in net.get_parameters()}
    for parameter in folded(config.model, source, **options(config)).get_parameters():
        assign(places[parameter.name], parameter.asnumpy())
    return loaded


def _made_with(config: Config) -> str:
    """The keys that say what the cells of the network are."""
    keys = ["model"]
    if facts(config.model).task == SEGMENTATION:
        keys += ["backbone", "decoder_width", "upsampling"]
    if config.channels:
        keys.append("channels")
    return ", ".join(keys)


def _check_start(config: Config) -> None:
    """Raise UserError where a training is told twice what weights to start from, or a classifier of a backbone's."""
    keys = [key for key in ("pretrained", "backbone_ckpt_path", "ckpt_path") if getattr(config, key)]
    if len(keys) > 1:
        raise UserError(f"{keys[0]}: {keys[0]} and {keys[1]} both name weights to start from; drop one of them")
    if config.backbone_ckpt_path and facts(config.model).task != SEGMENTATION:
        raise UserError(f"backbone_ckpt_path: {config.model} is a classifier, which has no backbone; give ckpt_path")
    if config.quantize_aware is not None and not keys:
        raise UserError(
            f"quantize_aware: {config.quantize_aware} begins with a network that is trained in float; name its weights "
            "with ckpt_path"
        )


def _starts_from_backbone(config: Config) -> bool:
    return bool(config.backbone_ckpt_path or (config.pretrained and facts(config.model).task == SEGMENTATION))


def _fill_backbone(net: nn.Cell, config: Config) -> Loaded:
    """Fill the backbone of a network for segmentation, and nothing else of it."""
    assert isinstance(net, SegmentationNetwork)
    backbone = trunk(config)
    path = Path(config.backbone_ckpt_path) if config.backbone_ckpt_path else published_file(backbone, config.pretrained)
    found = card(backbone)
    loaded = fill_network(
        net.backbone,
        path,
        stem=found.stem,
        classifier=found.classifier,
        averaged=config.ema,
        prefix=net.prefix,
        key="backbone",
    )
    fresh = tuple(p.name for p in net.get_parameters() if not p.name.startswith(net.prefix))
    return replace(loaded, part=f"the backbone {backbone}", fresh=fresh)


def _stem(config: Config) -> str:
    """Name of the cell that depends on the image's channels."""
    prefix = SegmentationNetwork.prefix if facts(config.model).task == SEGMENTATION else ""
    return prefix + facts(trunk(config)).stem


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Of the entries of a weight file. Raises UserError where it cannot be read."""
    return {name: array.shape for name, array in weights_file.read(path).items()}


def _check_whole(config: Config, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise UserError where `ckpt_path` names a classifier's weights, and the network is one for segmentation."""
    stem = _stem(config)
    bare = stem.removeprefix(SegmentationNetwork.prefix)
    if _size_of(shapes, stem, 0) is None and bare != stem and _size_of(shapes, bare, 0) is not None:
        raise UserError(
            f"{config.ckpt_path}: holds a classifier, not the whole of {config.model}; a training for segmentation "
            "takes it as backbone_ckpt_path"
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
    shapes = _shapes(path)
    _check_whole(config, shapes)
    outputs = _size_of(shapes, found.classifier, 0)
    if outputs is not None and config.num_classes != outputs:
        raise UserError(
            f"num_classes: {config.num_classes}, but the classifier in {path} has {outputs} outputs; give "
            "the num_classes that the file was made with"
        )
    channels = _size_of(shapes, _stem(config), 1)
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


def _size_of(shapes: Mapping[str, tuple[int, ...]], cell: str, axis: int) -> int | None:
    """A size of the weight of a cell, or of its parts, whatever stands before its name; None where it is not known."""
    pattern = re.compile(rf"(?:.+\.)?{re.escape(cell)}\.(?:\w+\.)?weight")
    entries = [entry for entry in shapes if pattern.fullmatch(entry)]
    # Of several the outermost: blocks have a conv1, too.
    shape = shapes[min(entries, key=len)] if entries else ()
    return shape[axis] if len(shape) > axis else None
