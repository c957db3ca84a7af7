"""GhostNet in plain PyTorch, made of the table that `prepare` wrote of ours. It needs torch and numpy alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional


def conv_bn(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution padded by half its kernel, and its batch norm."""
    convolved = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolved, nn.BatchNorm2d(out_channels)]


class Ghosts(nn.Module):
    """A Ghost module of as many ghosts as intrinsic maps; all widths of the table are even."""

    def __init__(self, in_channels: int, out_channels: int, relu: bool, kernel: int = 1) -> None:
        super().__init__()
        half = out_channels // 2
        act = [nn.ReLU(inplace=True)] if relu else []
        self.primary_conv = nn.Sequential(*conv_bn(in_channels, half, kernel), *act)
        self.cheap_operation = nn.Sequential(*conv_bn(half, half, 3, groups=half), *act)

    def forward(self, x: Tensor) -> Tensor:
        intrinsic = self.primary_conv(x)
        return torch.cat([intrinsic, self.cheap_operation(intrinsic)], 1)


class SqueezeExcite(nn.Module):
    """Mean, two 1x1 convolutions, hard sigmoid, scale."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, squeezed, 1)
        self.conv_expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = functional.relu(self.conv_reduce(x.mean((2, 3), keepdim=True)), inplace=True)
        return x * functional.hardsigmoid(self.conv_expand(scale))


class Bottleneck(nn.Module):
    """One row of the table: see `prepare.bottleneck`."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        super().__init__()
        before, expanded, after = row["in_channels"], row["expanded"], row["out_channels"]
        kernel, stride = row["kernel_size"], row["stride"]
        self.ghost1 = Ghosts(before, expanded, relu=True)
        self.strided = stride > 1
        if self.strided:
            self.conv_dw, self.bn_dw = conv_bn(expanded, expanded, kernel, stride, expanded)
        self.se = SqueezeExcite(expanded, row["squeezed"]) if row["squeezed"] else None
        self.ghost2 = Ghosts(expanded, after, relu=False)
        self.shortcut = None
        if row["shortcut"]:
            self.shortcut = nn.Sequential(*conv_bn(before, before, kernel, stride, before), *conv_bn(before, after, 1))

    def forward(self, x: Tensor) -> Tensor:
        out = self.ghost1(x)
        if self.strided:
            out = self.bn_dw(self.conv_dw(out))
        if self.se is not None:
            out = self.se(out)
        out = self.ghost2(out)
        return out + (x if self.shortcut is None else self.shortcut(x))


class ConvBnRelu(nn.Module):
    """The 1x1 convolution after the bottlenecks."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv, self.bn1 = conv_bn(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn1(self.conv(x)), inplace=True)


class TorchGhostNet(nn.Module):
    """Images (N, 3, H, W) -> logits (N, classes).

    Args:
        table: of `prepare.table`.
        drop_rate: of the dropout before the classifier.
    """

    def __init__(self, table: Mapping[str, Any], drop_rate: float) -> None:
        super().__init__()
        self.conv_stem, self.bn1 = conv_bn(3, table["stem"], 3, 2)
        stages = [nn.Sequential(*map(Bottleneck, rows)) for rows in table["stages"]]
        stages.append(nn.Sequential(ConvBnRelu(table["stages"][-1][-1]["out_channels"], table["last"])))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = nn.Conv2d(table["last"], table["features"], 1)
        self.dropout = nn.Dropout(drop_rate)
        self.classifier = nn.Linear(table["features"], table["classes"])

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(functional.relu(self.bn1(self.conv_stem(x)), inplace=True))
        x = functional.relu(self.conv_head(x.mean((2, 3), keepdim=True)), inplace=True)
        return self.classifier(self.dropout(x.flatten(1)))


def load(network: nn.Module, weights: Mapping[str, NDArray[Any]]) -> None:
    """Give a network the weights that `prepare` wrote; raises RuntimeError where they are another network's."""
    counters = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    network.load_state_dict(counters | {name: torch.from_numpy(array) for name, array in weights.items()})
