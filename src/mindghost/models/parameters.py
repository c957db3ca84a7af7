"""The one place where parameters are given other values."""

from typing import Any

import numpy as np
from mindspore import Parameter, Tensor
from numpy.typing import NDArray


def assign(parameter: Parameter, values: NDArray[Any] | Tensor) -> None:
    """Give a parameter values of its own shape, in its own type. Arrays are copied.

    `Parameter.set_data` takes values of any shape, and the parameter has that shape from then on.

    Raises ValueError, which names the parameter and both shapes, for another shape; nothing is changed then.
    """
    found, wanted = tuple(values.shape), tuple(parameter.shape)
    if found != wanted:
        raise ValueError(f"{parameter.name} has shape {found} instead of {wanted}")
    if isinstance(values, np.ndarray):
        values = Tensor(values.copy(), dtype=parameter.dtype)
    parameter.set_data(values)


def reshape(parameter: Parameter, shape: tuple[int, ...]) -> None:
    """Give a parameter zeros of another shape, in its own type. For what is no weight: a graph has one shape for it."""
    parameter.set_data(Tensor(np.zeros(shape), dtype=parameter.dtype), slice_shape=True)
