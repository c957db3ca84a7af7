"""The networks that MindCV lacks, in MindCV's registry: `mindcv.create_model("ghostnetv2_100")`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .network import FeatureNetwork, Network
from .registry import CARDS

Create = Callable[..., Network | FeatureNetwork]


def register(names: Iterable[str], create: Create) -> None:
    """Add networks to MindCV's registry, as far as it has no network of that name; nothing without MindCV.

    Args:
        names: of the networks.
        create: `models.create_model`.
    """
    try:
        from mindcv.models import registry
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "mindcv":
            raise
        return
    for name in names:
        if not registry.is_model(name):
            registry.register_model(_builder(name, create))


def _builder(name: str, create: Create) -> Create:
    """What MindCV calls: with `num_classes`, `in_channels`, `pretrained`, and what its own caller added."""

    def build(pretrained: bool = False, **options: object) -> Network | FeatureNetwork:
        if pretrained:
            raise ValueError(
                f"pretrained: no weights of {name} are published for MindSpore; convert "
                f"{CARDS[name].pytorch_weights} with `mindghost convert` and give them as checkpoint_path"
            )
        return create(name, **options)

    # MindCV registers a function under its name.
    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"mindghost.models.create_model({name!r}), see there; `pretrained` is refused."
    return build
