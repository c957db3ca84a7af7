"""What all networks of the registry have in common: body, embedding, classifier; and networks of feature maps.

The methods have the names and meanings that timm and MindCV give them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mindspore import Tensor, nn, ops

from .layers import Dropout, MapMeans, forget_graphs, he_normal_init, pytorch_init


class FeatureInfo(list[dict[str, Any]]):
    """The last feature map of each stride, by growing stride: a dict each, of the keys that MindCV uses.

    `chs` are its channels, `reduction` how many pixels of the image are one of the map, `name` the cell that makes it.
    """

    @classmethod
    def last_of_each_stride(cls, maps: Iterable[tuple[str, int, int]]) -> FeatureInfo:
        """From (name, channels, reduction) of the maps in the order in which they are made."""
        last = {reduction: {"chs": chs, "reduction": reduction, "name": name} for name, chs, reduction in maps}
        return cls(last.values())

    def channels(self) -> list[int]:
        """Channels of each map."""
        return [entry["chs"] for entry in self]

    def reduction(self) -> list[int]:
        """Stride of each map: image pixels to one pixel, in either direction."""
        return [entry["reduction"] for entry in self]


class RegistryNetwork(nn.Cell, ABC):
    """What `create_model` builds: a body that makes feature maps, and a head that is made for the task.

    Attributes:
        body: names of the cells that make feature maps of an image; they run in this order.
        prefix: what stands before them in the names of parameters.
        classifier_name: of the cell that depends on the number of classes.
        num_classes: outputs of the classifier.
        feature_info: the last map of each stride.
        left_out: names of parameters that files of the whole network hold and this one does without.
        init: how fresh weights are drawn: "mindcv" or "pytorch".
    """

    body: tuple[str, ...]
    prefix = ""
    classifier_name = "classifier"
    num_classes: int
    init = "mindcv"
    feature_info: FeatureInfo
    left_out: tuple[str, ...] = ()

    def start_afresh(self, init: str) -> None:
        """Draw the network's weights anew, and those of later classifiers, as MindCV or as PyTorch does.

        Raises ValueError for an `init` that is neither "mindcv" nor "pytorch".
        """
        if init not in ("mindcv", "pytorch"):
            raise ValueError(f"init: expected mindcv or pytorch, got {init!r}")
        self.init = init
        self.initialise(self)

    def initialise(self, cell: nn.Cell) -> None:
        """Draw fresh weights for the network or a part of it, as `init` says."""
        if self.init == "pytorch":
            pytorch_init(cell)
        else:
            self.initialise_as_mindcv(cell)

    def initialise_as_mindcv(self, cell: nn.Cell) -> None:
        """As MindCV starts its ResNets and RegNets, and the authors of Ghost-ResNet and G-GhostNet theirs."""
        he_normal_init(cell)

    @abstractmethod
    def before_head(self) -> list[str]:
        """Names of the parameters of all that is not made for the task."""

    @abstractmethod
    def _set_classifier(self, num_classes: int) -> None:
        """Make a classifier. Raises ValueError for a number of classes that the network cannot have."""

    def get_classifier(self) -> nn.Cell:
        """The cell that ends the network, or what stands in its place."""
        return getattr(self, self.classifier_name)

    def reset_classifier(self, num_classes: int) -> None:
        """Put a fresh classifier in the place of the old one; 0 removes it, and the network gives embeddings.

        Graphs that the network was compiled to are dropped; those of a cell that holds the network are not. Call it
        before the optimizer and mixed precision are made. Raises ValueError for a negative number, and for 0 where the
        network has no embedding.
        """
        # In a larger network, names begin with the cell's place there.
        path, parameter = next(self.parameters_and_names())
        prefix = parameter.name.removesuffix(path)
        self._set_classifier(num_classes)
        classifier = self.get_classifier()
        self.initialise(classifier)
        for name, parameter in classifier.parameters_and_names():
            parameter.name = f"{prefix}{self.classifier_name}.{name}"
        forget_graphs(self)


class Network(RegistryNetwork):
    """Body -> embedding -> dropout -> classifier.

    A subclass makes the cells of its body, sets `feature_info` and calls `add_head`; `embed` is the mean over pixels
    where it says nothing else.

    Attributes:
        num_features: length of the embedding, which the classifier, a dense layer, reads.
        num_classes: outputs of the classifier; 0 where it was removed, and the network gives embeddings.
    """

    def add_head(self, num_features: int, num_classes: int, drop_rate: float) -> None:
        """Make pooling, dropout and classifier, the last cells of a network."""
        self.num_features = num_features
        self.global_pool = MapMeans()
        self.dropout = Dropout(drop_rate)
        self._set_classifier(num_classes)

    def before_head(self) -> list[str]:
        start = f"{self.classifier_name}."
        return [parameter.name for parameter in self.get_parameters() if not parameter.name.startswith(start)]

    def _set_classifier(self, num_classes: int) -> None:
        if num_classes < 0:
            raise ValueError(f"num_classes: expected 0 (embeddings) or more, got {num_classes}")
        self.num_classes = num_classes
        setattr(self, self.classifier_name, nn.Dense(self.num_features, num_classes) if num_classes else nn.Identity())
        self.left_out = () if num_classes else tuple(f"{self.classifier_name}.{kind}" for kind in ("weight", "bias"))

    def steps(self) -> Iterator[tuple[str, nn.Cell]]:
        """The cells of the body in the order in which they run, as fine as `feature_info` names them."""
        for name in self.body:
            cell = getattr(self, name)
            if any(entry["name"].startswith(f"{name}.") for entry in self.feature_info):
                yield from ((f"{name}.{key}", child) for key, child in cell.name_cells().items())
            else:
                yield name, cell

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (N, in_channels, H, W) -> the last feature maps (N, C, H', W')."""
        for name in self.body:
            x = getattr(self, name)(x)
        return x

    def embed(self, x: Tensor) -> Tensor:
        """The last feature maps -> embeddings (N, num_features)."""
        x = self.global_pool(x)
        return ops.reshape(x, x.shape[:2])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last feature maps -> logits (N, num_classes), or with `pre_logits` embeddings (N, num_features).

        In training, dropout comes before both. Without a classifier both are the same.
        """
        x = self.dropout(self.embed(x))
        return x if pre_logits else getattr(self, self.classifier_name)(x)

    def construct(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


class FeatureNetwork(nn.Cell):
    """Images (N, in_channels, H, W) -> a tuple of feature maps (N, C, H', W'), for detection and segmentation.

    It takes over the cells of a network, as far as the last map needs them, under the names that they have there.

    Args:
        network: whose maps; it must not be used afterwards.
        out_indices: which entries of its `feature_info`, in growing order; None for all.

    Attributes:
        body: names of the cells that run, in this order; those in `fine` are lists of cells.
        feature_info: of the chosen maps.
        out_channels: their channels, under MindCV's name.
        left_out: names of the network's parameters that this one does without.

    Raises ValueError for indices that are none.
    """

    def __init__(self, network: Network, out_indices: Sequence[int] | None = None) -> None:
        super().__init__(auto_prefix=False)
        offered = network.feature_info
        chosen = list(range(len(offered)) if out_indices is None else out_indices)
        if not chosen or chosen != sorted(set(chosen)) or not set(chosen) <= set(range(len(offered))):
            raise ValueError(
                f"out_indices: expected growing numbers from 0 to {len(offered) - 1} (strides "
                f"{', '.join(map(str, offered.reduction()))}), got {', '.join(map(str, chosen)) or 'none'}"
            )
        self.feature_info = FeatureInfo(offered[index] for index in chosen)
        self.out_channels = self.feature_info.channels()
        steps = list(network.steps())
        names = [name for name, _ in steps]
        self.taken = tuple(names.index(entry["name"]) for entry in self.feature_info)
        parameters = [parameter.name for parameter in network.get_parameters()]
        parts: dict[str, list[nn.Cell]] = {}
        for name, cell in steps[: self.taken[-1] + 1]:
            parts.setdefault(name.partition(".")[0], []).append(cell)
        self.body = tuple(parts)
        self.fine = tuple(name for name in parts if name not in names)
        for name, cells in parts.items():
            setattr(self, name, nn.CellList(cells, auto_prefix=False) if name in self.fine else cells[0])
        kept = {parameter.name for parameter in self.get_parameters()}
        self.left_out = tuple(name for name in (*parameters, *network.left_out) if name not in kept)

    def construct(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = ()
        index = 0
        for name in self.body:
            for step in getattr(self, name) if name in self.fine else (getattr(self, name),):
                x = step(x)
                if index in self.taken:
                    maps = (*maps, x)
                index += 1
        return maps
