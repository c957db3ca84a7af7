"""Other layers in the place of a network's own."""

from collections.abc import Iterator

from mindspore import Parameter, nn

from .layers import forget_graphs


def name_of(cell: nn.Cell) -> str:
    """What the parameters of a layer have before their own names: a cell may have another name.

    `cell`: a convolution, a dense layer or a batch norm.
    """
    parameter: Parameter = cell.gamma if isinstance(cell, nn.BatchNorm2d) else cell.weight
    return parameter.name.rpartition(".")[0]


def named(new: nn.Cell, name: str) -> nn.Cell:
    """A layer whose parameters are called by its name and their own, as those of a network's layers are.

    MindSpore names parameters from the root down, as cells are assigned in constructors; it knows no root here.
    """
    for key, parameter in new._params.items():
        parameter.name = f"{name}.{key}"
    return new


def convolution_like(old: nn.Conv2d, outputs: int, inputs: int, bias: bool) -> nn.Conv2d:
    """A convolution that is like another one but for its channels and its bias; a depthwise one stays one."""
    return nn.Conv2d(
        inputs,
        outputs,
        old.kernel_size,
        old.stride,
        old.pad_mode,
        old.padding,
        old.dilation,
        inputs if is_depthwise(old) else old.group,
        has_bias=bias,
    )


def is_depthwise(cell: nn.Cell) -> bool:
    """Whether a layer is a convolution that makes each output of one input."""
    return isinstance(cell, nn.Conv2d) and cell.group == cell.in_channels > 1


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
