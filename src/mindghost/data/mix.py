"""Mixup and cutmix of whole batches, with mindcv's meaning: one draw for all samples of a batch.

Sample i is mixed with sample n - 1 - i; the labels become soft with the same weights. Label smoothing is the
loss's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SWITCH_PROBABILITY = 0.5  # of cutmix, where mixup and cutmix are both on


def mix_batch(
    images: NDArray[Any],
    labels: NDArray[Any],
    rng: np.random.Generator,
    *,
    num_classes: int,
    mixup: float,
    cutmix: float,
    probability: float,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mixes a batch, or leaves it as it is but for its labels.

    Args:
        images: float32, (B, C, H, W); not changed.
        labels: integers, (B,).
        rng: all draws come from it.
        num_classes: the width of the soft labels.
        mixup: alpha of mixup's beta distribution; 0: no mixup.
        cutmix: alpha of cutmix's beta distribution; 0: no cutmix.
        probability: that the batch is mixed at all.

    Returns:
        Images (float32, (B, C, H, W)) and labels (float32, (B, num_classes), rows that sum to 1).
    """
    if rng.random() >= probability:
        return images, soft_labels(labels, num_classes, 1.0)
    use_cutmix = cutmix > 0 and (mixup <= 0 or rng.random() < SWITCH_PROBABILITY)
    alpha = cutmix if use_cutmix else mixup
    lam = float(rng.beta(alpha, alpha))
    if use_cutmix:
        images, lam = paste_box(images, cut_box(images.shape[-2], images.shape[-1], lam, rng))
    else:
        images = blend(images, lam)
    return images, soft_labels(labels, num_classes, lam)


def soft_labels(labels: NDArray[Any], num_classes: int, lam: float) -> NDArray[Any]:
    """Labels, `lam` of the sample's own and `1 - lam` of its mirror's: float32, (B, num_classes)."""
    one_hot = np.eye(num_classes, dtype=np.float32)[labels]
    return one_hot * np.float32(lam) + one_hot[::-1] * np.float32(1.0 - lam)


def blend(images: NDArray[Any], lam: float) -> NDArray[Any]:
    """Mixup: `lam` of each image and `1 - lam` of its mirror; (B, C, H, W), float32."""
    return images * np.float32(lam) + images[::-1] * np.float32(1.0 - lam)


def cut_box(height: int, width: int, lam: float, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a box around a random pixel: `1 - lam` of the area, cut off at the borders."""
    side = np.sqrt(1.0 - lam)
    rows = _clipped_range(int(rng.integers(height)), int(height * side), height)
    columns = _clipped_range(int(rng.integers(width)), int(width * side), width)
    return rows, columns


def _clipped_range(centre: int, length: int, limit: int) -> slice:
    half = length // 2
    return slice(max(0, centre - half), min(limit, centre + half))


def paste_box(images: NDArray[Any], box: tuple[slice, slice]) -> tuple[NDArray[Any], float]:
    """Cutmix: the box of each image comes from its mirror; returns also the share of pixels that stay."""
    mixed = images.copy()
    rows, columns = box
    mixed[..., rows, columns] = images[::-1][..., rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, 1.0 - area / (images.shape[-2] * images.shape[-1])
