"""What networks for segmentation have in common: a backbone of the family, and logits of every pixel of the image."""

from __future__ import annotations

from abc import abstractmethod

from mindspore import nn

from .network import FeatureNetwork, Network, RegistryNetwork

BACKBONE = "backbone"


class SegmentationNetwork(RegistryNetwork):
    """Images (N, in_channels, H, W) -> logits (N, num_classes, H, W), for any H and W of at least 1 pixel.

    The backbone's parameters have the names that they have in the classifier, with `backbone.` before them.

    A subclass makes the cells of its decoder, and `make_classifier` that of its end; then it calls `finish`.

    Args:
        backbone: a classifier, whose cells are taken over as far as the last map needs them.
        strides: of the maps that the decoder reads, in growing order.

    Attributes:
        backbone: makes these maps.
        feature_info: of all maps of the backbone, up to the last one.

    Raises ValueError where the backbone lacks a map. Its maps halve their sizes rounding up.
    """

    prefix = f"{BACKBONE}."

    def __init__(self, backbone: Network, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.body, self.init = backbone.body, backbone.init
        self._draw_as_mindcv = backbone.initialise_as_mindcv
        self.feature_info = backbone.feature_info
        offered = self.feature_info.reduction()
        if not set(strides) <= set(offered):
            raise ValueError(f"the decoder reads maps of strides {list(strides)}, the backbone has {offered}")
        self.backbone = FeatureNetwork(backbone, [offered.index(stride) for stride in strides])

    def finish(self, num_classes: int) -> None:
        """Make the classifier, and draw the weights of all that is not the backbone's."""
        self._set_classifier(num_classes)
        for name, cell in self.name_cells().items():
            if name != BACKBONE:
                self.initialise(cell)

    def initialise_as_mindcv(self, cell: nn.Cell) -> None:
        """As the backbone's kind of network starts."""
        self._draw_as_mindcv(cell)

    def before_head(self) -> list[str]:
        return [p.name for p in self.get_parameters() if p.name.startswith(self.prefix)]

    @abstractmethod
    def make_classifier(self, num_classes: int) -> nn.Cell:
        """The cell that gives logits of the pixels of a map."""

    def _set_classifier(self, num_classes: int) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes: expected 1 or more, got {num_classes}; pixels have no embeddings")
        self.num_classes = num_classes
        self.classifier = self.make_classifier(num_classes)
