"""`ghost_unet` in plain PyTorch, made of the table that `prepare` wrote of ours. It needs torch and numpy alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .torch_network import Bottleneck, Ghosts, conv_bn


class Backbone(nn.Module):
    """Images (N, 3, H, W) -> the last map of each stride, from 2 to 32.

    Args:
        table: of `prepare.table`; the stages after the last one of maps are left out.
    """

    def __init__(self, table: Mapping[str, Any]) -> None:
        super().__init__()
        self.conv_stem, self.bn1 = conv_bn(3, table["stem"], 3, 2)
        self.blocks = nn.Sequential(*(nn.Sequential(*map(Bottleneck, rows)) for rows in table["stages"]))
        self.taken = table["taken"]

    def forward(self, x: Tensor) -> list[Tensor]:
        x = functional.relu(self.bn1(self.conv_stem(x)), inplace=True)
        maps = []
        for index, stage in enumerate(self.blocks):
            x = stage(x)
            if index in self.taken:
                maps.append(x)
        return maps


def enlarged(x: Tensor, height: int, width: int) -> Tensor:
    """Twice as large, and cut to a size."""
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)[:, :, :height, :width]


class Level(nn.Module):
    """Coarser maps, enlarged, beside the backbone's -> two Ghost modules of 3x3 kernels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.fuse = Ghosts(in_channels, out_channels, relu=True, kernel=3)
        self.refine = Ghosts(out_channels, out_channels, relu=True, kernel=3)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.refine(self.fuse(torch.cat([enlarged(x, *skip.shape[2:]), skip], 1)))


class TorchGhostUnet(nn.Module):
    """Images (N, 3, H, W) -> logits (N, classes, H, W).

    Args:
        table: of `prepare.table`, with "levels", the channels before and after each, and "taken", the stages with maps.
        drop_rate: of the dropout before the classifier.
    """

    def __init__(self, table: Mapping[str, Any], drop_rate: float) -> None:
        super().__init__()
        self.backbone = Backbone(table)
        self.decoder = nn.ModuleList(Level(*channels) for channels in table["levels"])
        self.dropout = nn.Dropout(drop_rate)
        self.classifier = nn.Conv2d(table["levels"][-1][1], table["classes"], 1)

    def forward(self, x: Tensor) -> Tensor:
        *skips, last = self.backbone(x)
        for level in self.decoder:
            last = level(last, skips.pop())
        return enlarged(self.classifier(self.dropout(last)), *x.shape[2:])
