"""Which part of a network stays as it is while the rest is trained."""

from __future__ import annotations

from ..config import Config
from ..errors import UserError
from ..models.depth import stages
from ..models.layers import freeze_batch_norm
from ..models.network import RegistryNetwork


def freeze(network: RegistryNetwork, config: Config, epoch: int = 0) -> None:
    """Keep the parameters and batch-norm statistics of the frozen stages as they are.

    Args:
        network: before mixed precision and our operators, which go by what is frozen.
        config: `freeze_backbone` stands for all stages, `freeze_stages` for the first ones; `unfreeze_epoch` ends both,
            and freezes all stages where neither is given.
        epoch: epochs that are finished.

    Raises UserError where the network has fewer stages.
    """
    found = stages(network)
    if config.freeze_stages > len(found):
        names = ", ".join(stage.name for stage in found)
        raise UserError(
            f"freeze_stages: {config.freeze_stages}, but {config.model} has {len(found)} stages ({names}); give at "
            f"most {len(found)}"
        )
    frozen = {name for stage in found[: _count(config, epoch, len(found))] for name in stage.parameters}
    for parameter in network.get_parameters():
        if parameter.name in frozen:
            parameter.requires_grad = False
    freeze_batch_norm(network, frozen)


def _count(config: Config, epoch: int, stages: int) -> int:
    """How many of the stages are frozen."""
    if unfrozen(config, epoch):
        return 0
    nothing_said = config.unfreeze_epoch is not None and config.freeze_stages == 0
    return stages if config.freeze_backbone or nothing_said else config.freeze_stages


def unfrozen(config: Config, epoch: int) -> bool:
    """Whether, after so many finished epochs, all is trained that was frozen until then."""
    return config.unfreeze_epoch is not None and epoch >= config.unfreeze_epoch - 1


def part_end(config: Config, epoch: int) -> int:
    """The epoch that ends the part of the run which trains the same parameters; `epoch` are finished."""
    if config.unfreeze_epoch is None or unfrozen(config, epoch):
        return config.epoch_size
    return min(config.unfreeze_epoch - 1, config.epoch_size)
