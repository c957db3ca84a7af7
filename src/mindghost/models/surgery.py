"""Other layers in the place of a network's own."""

from collections.abc import Iterator

from mindspore import nn

from .layers import forget_graphs


def replace_cells(net: nn.Cell, replacements: dict[int, nn.Cell]) -> None:
    """Put each replacement wherever the cell with that id is, and forget compiled graphs.

    All parameters keep the names that they have; name those of the replacements before or after.
    """
    cells = [net, *replacements.values()]
    named = [(parameter, parameter.name) for cell in cells for parameter in cell.get_parameters()]
    for parent, key, child in list(_children(net)):
        if id(child) in replacements:
            if isinstance(parent, (nn.SequentialCell, nn.CellList)):
                # Their attributes are not what they run.
                parent[list(parent._cells).index(key)] = replacements[id(child)]
            else:
                setattr(parent, key, replacements[id(child)])
    for parameter, name in named:
        # Some kinds of parent renamed them.
        parameter.name = name
    forget_graphs(net)


def _children(net: nn.Cell) -> Iterator[tuple[nn.Cell, str, nn.Cell]]:
    """Each cell's children, with a child that occurs twice listed twice (`name_cells` lists it once)."""
    for _, parent in net.cells_and_names():
        for key, child in parent._cells.items():
            yield parent, key, child


def synchronise_batch_norm(net: nn.Cell) -> None:
    """Have every batch norm of a network use the mean and variance over all ranks' batches (Ascend only)."""
    norms = [cell for _, cell in net.cells_and_names() if type(cell) is nn.BatchNorm2d]
    replace_cells(net, {id(norm): _synchronised(norm) for norm in norms})


def _synchronised(norm: nn.BatchNorm2d) -> nn.SyncBatchNorm:
    """The same batch norm, parameters and all, over all ranks."""
    result = nn.SyncBatchNorm(norm.num_features, norm.eps, 1 - norm.momentum)
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        setattr(result, name, getattr(norm, name))
    result.use_batch_statistics = norm.use_batch_statistics
    return result
