"""Where a Ghost module starts so that it gives nearly the maps of a trained convolution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

# Ridge on the least squares, relative to the mean square of an intrinsic map: a dead map gives finite filters.
_RIDGE = 1e-4


@dataclass(frozen=True)
class Fit:
    """Weights of a Ghost module that stands for a convolution with N filters, m of them intrinsic.

    Attributes:
        intrinsic: (m,) the filters that are kept, by their index in the convolution.
        filters: (m * (ratio - 1), 1, dw_size, dw_size) depthwise filters, float32.
        bias: (m * (ratio - 1),) float32; zeros for a convolution without.
        order: (N,) where the module's maps, intrinsic ones first, have each of the convolution's.
        explained: share of the variance of the other N - m maps that the ghosts give, each map weighted by `gain`.
    """

    intrinsic: NDArray[Any]
    filters: NDArray[Any]
    bias: NDArray[Any]
    order: NDArray[Any]
    explained: float


def fit(
    maps: NDArray[Any], gain: NDArray[Any] | float = 1.0, ratio: int = 2, dw_size: int = 3, *, bias: bool = False
) -> Fit:
    """Choose the intrinsic filters of a convolution, and depthwise filters that make its other maps from theirs.

    Intrinsic become the filters whose maps vary most. Each other map is paired with an intrinsic one, so that the sum
    of squared errors over all pairs is smallest; its depthwise filter is the least-squares one.

    Args:
        maps: (n, N, H, W) outputs of the convolution on real images.
        gain: (N,) factors of what follows (a batch norm): errors and variances count after it.
        ratio: one map in `ratio` is intrinsic.
        dw_size: size of the depthwise filters.
        bias: whether ghosts have a bias.
    """
    channels = maps.shape[1]
    weight = np.broadcast_to(np.square(gain, dtype=np.float64), channels)
    variance = maps.var(axis=(0, 2, 3), dtype=np.float64) * weight
    count = math.ceil(channels / ratio)
    intrinsic = np.sort(np.argsort(-variance, kind="stable")[:count])
    others = np.setdiff1d(np.arange(channels), intrinsic)
    filters, errors = _least_squares(maps, intrinsic, others, dw_size, bias)

    # Ghost g is made of intrinsic map g // (ratio - 1); those beyond the convolution's channels are cut off.
    source = np.repeat(np.arange(count), ratio - 1)
    errors = errors[source[: len(others)]] * weight[others]
    ghosts, partners = linear_sum_assignment(errors)
    chosen = np.zeros((len(source), dw_size**2 + 1))
    chosen[ghosts] = filters[source[ghosts], partners]
    order = np.empty(channels, np.int64)
    order[intrinsic] = np.arange(count)
    order[others[partners]] = count + ghosts
    total = variance[others].sum()
    explained = 1 - errors[ghosts, partners].sum() / total if total > 0 else 1.0
    chosen = chosen.astype(np.float32)
    return Fit(intrinsic, chosen[:, :-1].reshape(-1, 1, dw_size, dw_size), chosen[:, -1], order, float(explained))


def _least_squares(
    maps: NDArray[Any], intrinsic: NDArray[Any], others: NDArray[Any], dw_size: int, bias: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    """For each intrinsic and each other map, the filter (with a bias last) that makes the one from the other.

    Returns filters (m, others, dw_size ** 2 + 1) and mean squared errors (m, others).
    """
    height, width = maps.shape[2:]
    margin = dw_size // 2
    targets = maps[:, others].transpose(1, 0, 2, 3).reshape(len(others), -1).astype(np.float64)
    positions = targets.shape[1]
    squares = np.square(targets).mean(axis=1)
    filters = np.zeros((len(intrinsic), len(others), dw_size**2 + 1))
    errors = np.empty((len(intrinsic), len(others)))
    for row, channel in enumerate(intrinsic):
        padded = np.pad(maps[:, channel].astype(np.float64), ((0, 0), (margin, margin), (margin, margin)))
        shifted = [padded[:, y : y + height, x : x + width].ravel() for y in range(dw_size) for x in range(dw_size)]
        inputs = np.stack([*shifted, np.ones(positions)] if bias else shifted)
        products = inputs @ inputs.T / positions
        wanted = inputs @ targets.T / positions
        ridge = np.zeros_like(products)
        # Not on the bias.
        ridge[np.diag_indices(dw_size**2)] = _RIDGE * np.square(padded).mean() + np.finfo(np.float64).tiny
        solved = np.linalg.solve(products + ridge, wanted)
        filters[row, :, : len(inputs)] = solved.T
        errors[row] = squares + np.sum(solved * (products @ solved - 2 * wanted), axis=0)
    return filters, errors
