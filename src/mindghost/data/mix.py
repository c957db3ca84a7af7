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
    weights: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], ...]:
    """Mixes a batch, or leaves it as it is but for its labels.

    Args:
        images: float32, (B, C, H, W); not changed.
        labels: integers, (B,), or float32, (B, num_classes).
        rng: all draws come from it.
        num_classes: the width of the soft labels.
        mixup: alpha of mixup's beta distribution; 0: no mixup.
        cutmix: alpha of cutmix's beta distribution; 0: no cutmix.
        probability: that the batch is mixed at all.
        weights: of the samples in the loss, float32, (B,); None where they have none.

    Returns:
        Images (float32, (B, C, H, W)) and labels (float32, (B, num_classes); of classes, rows that sum to 1). With
        `weights`, also those of the mixed samples (see `soft_weighted`).
    """
    images, lam = _mixed(images, rng, mixup, cutmix, probability)
    if weights is None:
        return images, soft_labels(labels, num_classes, lam)
    return images, *soft_weighted(labels, num_classes, lam, weights)


def _mixed(
    images: NDArray[Any], rng: np.random.Generator, mixup: float, cutmix: float, probability: float
) -> tuple[NDArray[Any], float]:
    """The images, mixed or not, and each one's own share of itself."""
    if rng.random() >= probability:
        return images, 1.0
    use_cutmix = cutmix > 0 and (mixup <= 0 or rng.random() < SWITCH_PROBABILITY)
    alpha = cutmix if use_cutmix else mixup
    lam = float(rng.beta(alpha, alpha))
    if use_cutmix:
        return paste_box(images, cut_box(images.shape[-2], images.shape[-1], lam, rng))
    return blend(images, lam), lam


def soft_labels(labels: NDArray[Any], num_classes: int, lam: float) -> NDArray[Any]:
    """Labels, `lam` of the sample's own and `1 - lam` of its mirror's: float32, (B, num_classes)."""
    rows = labels if labels.ndim == 2 else np.eye(num_classes, dtype=np.float32)[labels]
    return rows * np.float32(lam) + rows[::-1] * np.float32(1.0 - lam)


def soft_weighted(
    labels: NDArray[Any], num_classes: int, lam: float, weights: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """`soft_labels` of samples that count differently, and how much each mix counts: float32, (B,).

    The loss of a mix is to be `lam` times weight times loss for the sample's own label, and likewise for its mirror's.
    Losses are linear in the label: so it is that of the two labels' weighted mean, times the sum of their parts.
    """
    own, other = weights * np.float32(lam), weights[::-1] * np.float32(1.0 - lam)
    total = own + other
    rows = labels if labels.ndim == 2 else np.eye(num_classes, dtype=np.float32)[labels]
    return rows * (own / total)[:, None] + rows[::-1] * (other / total)[:, None], total


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
