"""What ranks compute together, for tests/parallel: `mpirun -n N python -m tests.helpers.rank_checks FOLDER`.

Rank 0 writes one .npz file; the same functions with a rank of 1 give what it is compared with.
"""

import sys
import unittest.mock
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import mindghost  # noqa: F401  (environment defaults, before MindSpore is imported)

if TYPE_CHECKING:
    from mindghost.parallel.ranks import Ranks

IMAGES, CLASSES, STEPS = 24, 5, 3
CASES = {
    "plain": {},
    "sum": {"sum_gradients": True},
    "accumulated": {"accumulation": 3, "clip_norm": 0.5, "ema_decay": 0.9, "loss_scale": 128.0},
}
# Cases and modes. Gradients that are summed up over steps are compiled in tests/train/test_step.py.
TRIED = [(case, mode) for case in CASES for mode in (0, 1) if (case, mode) != ("sum", 0)]


def ways() -> list[str]:
    """How gradients can be summed up over ranks on this machine."""
    from mindghost.ops.library import NativeError, library

    try:
        library()
    except NativeError:
        return ["messages"]
    return ["messages", "shared memory"]


def trained(case: str, mode: int, rank: int, ranks: int, shared: "Ranks | None" = None) -> dict[str, np.ndarray]:
    """The state of a small network after three steps on this rank's share of the same global batches.

    `shared`: ranks whose gradients are summed up in shared memory, before an update in one pass; None for MindSpore's
    collectives and optimizers.
    """
    import mindspore as ms
    from mindspore import Tensor, nn

    from mindghost.models.layers import ConvBnAct, freeze_batch_norm
    from mindghost.ops import allreduce
    from mindghost.ops.library import library
    from mindghost.ops.rmsprop_tf import RMSpropTF
    from mindghost.train.step import StepOptions, TrainStep
    from mindghost.train.update import update_by

    ms.set_context(mode=mode)
    ms.set_seed(3)
    rng = np.random.default_rng(3)
    layers = [ConvBnAct(3, 4, 3), ConvBnAct(4, 40, 1), *(ConvBnAct(40, 40, 1) for _ in range(1))]
    network = nn.SequentialCell(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dense(40, CLASSES))
    for parameter in network.get_parameters():
        if parameter.name.endswith("moving_mean"):
            parameter.set_data(Tensor(rng.normal(size=parameter.shape), ms.float32))
    freeze_batch_norm(network)
    network.set_train(True)
    reduction = "sum" if case == "sum" else "mean"
    kind = RMSpropTF if case == "accumulated" else nn.Momentum
    optimizer = kind(network.trainable_params(), 0.05, momentum=0.9)
    loss = nn.CrossEntropyLoss(reduction=reduction)
    rank_sum = None
    if shared is not None:
        rank_sum = allreduce.rank_sum(network, library(), shared)
        assert rank_sum is not None
    update = update_by(optimizer, shared and library())
    step = TrainStep(network, loss, update, StepOptions(**CASES[case]), ranks, rank_sum)
    images = rng.normal(size=(STEPS, IMAGES, 3, 8, 8)).astype(np.float32)
    labels = rng.integers(0, CLASSES, (STEPS, IMAGES)).astype(np.int32)
    for batch, label in zip(images, labels, strict=True):
        step(Tensor(batch[rank::ranks]), Tensor(label[rank::ranks]))
    return step.state()


def synchronised() -> dict[str, np.ndarray]:
    """The layers that a network runs once its batch norms are synchronised, and what it then evaluates to.

    MindSpore makes the layers wherever there are ranks, but can train them on Ascend only.
    """
    from mindspore import Tensor, nn

    from mindghost.models import create_model
    from mindghost.models.surgery import synchronise_batch_norm

    network = create_model("ghostnet_050", num_classes=CLASSES).set_train(False)
    image = Tensor(np.random.default_rng(3).normal(size=(1, 3, 32, 32)).astype(np.float32))
    names = [parameter.name for parameter in network.get_parameters()]
    before, ran = network(image).asnumpy(), []
    # It asks for the device to name the group of ranks, and knows no name on the CPU.
    with unittest.mock.patch("mindspore.context.get_context", lambda key: {"device_target": "Ascend"}[key]):
        synchronise_batch_norm(network)

    class Watched(nn.SyncBatchNorm):
        def construct(self, x: Tensor) -> Tensor:
            ran.append(self.process_groups)
            return super().construct(x)

    left = 0
    for _, cell in network.cells_and_names():
        left += type(cell) is nn.BatchNorm2d
        if type(cell) is nn.SyncBatchNorm:
            cell.__class__ = Watched
    return {
        "sync/before": before,
        "sync/after": network(image).asnumpy(),
        "sync/left": np.array(left),
        "sync/ran": np.array(len(ran)),
        "sync/same_names": np.array(names == [parameter.name for parameter in network.get_parameters()]),
    }


def main(folder: Path) -> None:
    """All checks, one after the other, in one start of MindSpore's collectives."""
    import mindspore as ms

    from mindghost.errors import RunError
    from mindghost.parallel import replicas
    from mindghost.parallel.ranks import start
    from mindghost.process import endings

    ms.set_device("CPU")
    ranks = start("CPU")
    facts = {"hosts": np.array(ranks.hosts), "cores": np.array(ranks.gather(np.array(ranks.cores)))}

    # Odd lengths, every kind of number, scalars.
    for kind in ("uint8", "int32", "int64", "float32", "float64", "bool"):
        facts[f"gathered/{kind}"] = np.array(ranks.gather(np.array([ranks.rank, 1, 7], kind)))
    facts["gathered/scalar"] = np.array(ranks.gather(np.array(0.1 * ranks.rank)))
    facts["gathered/bytes"] = np.array([len(part) for part in ranks.gather_bytes(b"x" * (3 * ranks.rank))])
    heard = [ranks.from_main(bytes([ranks.rank]) * length) for length in (0, 1, 7, 8)]
    facts["from_main"] = np.array([part.hex() for part in ranks.gather_bytes(b"-".join(heard))])

    own = {"bn.moving_mean": np.full(3, ranks.rank, np.float32), "w": np.ones(2, np.float32)}
    facts["averaged"] = replicas.averaged(ranks, own, ["bn.moving_mean"])["bn.moving_mean"]
    state = replicas.gathered_state(ranks, own, ["bn.moving_mean"])
    facts["state_names"] = np.array(sorted(state))
    restored = replicas.own_state(ranks, state)
    facts["restored"] = np.array(ranks.gather(restored["bn.moving_mean"]))

    replicas.check_equal(ranks, {"w": own["w"]}, "here")
    try:
        replicas.check_equal(ranks, own, "epoch 7")
    except RunError as error:
        messages = ranks.gather_bytes(str(error).encode())
        facts["drift"] = np.array([message.decode() for message in messages])

    for case, mode in TRIED:
        for way in ways():
            shared = ranks if way == "shared memory" else None
            result = trained(case, mode, ranks.rank, ranks.size, shared)
            replicas.check_equal(ranks, result, f"{case}, mode {mode}, {way}")
            facts |= {f"{case}/{mode}/{way}/{name}": array for name, array in result.items()}
    facts |= synchronised()
    if ranks.main:
        np.savez(folder / "facts.npz", **facts)
    ranks.barrier()
    for action in endings.endings:
        action(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
