"""Weight files that are damaged, crafted or of another network."""

from __future__ import annotations

import io
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import mindspore as ms
import numpy as np
import onnxruntime
from mindspore import Tensor, nn
from onnx import helper, numpy_helper

from mindghost.checkpoint import safetensors as safetensors_file
from mindghost.checkpoint import weights as weights_file
from mindghost.checkpoint.load import fill_network
from mindghost.config import Config
from mindghost.errors import UserError
from mindghost.files import intact
from mindghost.inference import deployment, formats
from mindghost.inference.network import open_network
from mindghost.models import create_model
from tests.helpers.weight_files import entries_end, entry, safetensors
from tests.helpers.weights import randomise
from tests.system.fault.harness import Case, attempt, group

Arrays = dict[str, np.ndarray]


# --- What is loaded, and by whom


@cache
def network(name: str) -> nn.Cell:
    cell = create_model(name, num_classes=1000)
    randomise(cell)
    return cell


def arrays_of(cell: nn.Cell) -> Arrays:
    return {parameter.name: parameter.asnumpy() for parameter in cell.get_parameters()}


@cache
def values(name: str) -> Arrays:
    """What the network has before anything is loaded. A copy, as `network`'s own share memory with it."""
    return {key: array.copy() for key, array in arrays_of(network(name)).items()}


@cache
def other_values(name: str) -> Arrays:
    """Weights that fit, and that the network does not have."""
    return {key: array + np.float32(0.5) for key, array in values(name).items()}


@cache
def file_of(name: str, folder: Path) -> bytes:
    """A `.ckpt` file of `other_values`."""
    path = folder / "good.ckpt"
    weights_file.write(path, other_values(name))
    return path.read_bytes()


def load_ours(name: str, path: Path, content: bytes, expected: Mapping[str, np.ndarray] | None = None) -> None:
    """All that the file has to give, or nothing; and an error leaves the network as it was."""
    path.write_bytes(content)
    cell, before = network(name), values(name)
    try:
        fill_network(cell, path, stem="conv_stem", classifier="classifier")
    except Exception:
        assert_holds(cell, before, "was changed before the error")
        raise
    assert_holds(cell, other_values(name) if expected is None else expected)


def load_stock(name: str, path: Path, content: bytes, expected: Mapping[str, np.ndarray] | None = None) -> None:
    """As a script for MindSpore does it."""
    path.write_bytes(content)
    cell = network(name)
    ms.load_param_into_net(cell, ms.load_checkpoint(str(path)), strict_load=True)
    assert_holds(cell, other_values(name) if expected is None else expected)


def assert_holds(
    cell: nn.Cell, expected: Mapping[str, np.ndarray], otherwise: str = "has other values, and nobody says so"
) -> None:
    """Compares bits: -0 is not 0."""
    for name, array in arrays_of(cell).items():
        wanted = np.asarray(expected[name], array.dtype)
        assert array.shape == wanted.shape, f"{name} {otherwise}"
        assert np.array_equal(array.view(np.uint8), wanted.view(np.uint8)), f"{name} {otherwise}"


def either_way(name: str, path: Path, content: bytes, expected: Mapping[str, np.ndarray] | None = None) -> dict:
    """A case's two functions."""
    return {
        "ours": lambda: load_ours(name, path, content, expected),
        "stock": lambda: load_stock(name, path, content, expected),
        "names": str(path),
    }


# --- Damage


@group("truncated checkpoints", 632)
def truncations(rng: random.Random, folder: Path) -> Iterator[Case]:
    """Without a sidecar, which would give any of them away. A cut after the last parameter leaves MindCV's format."""
    content = file_of("ghostnet_100", folder)
    cuts = [rng.randrange(len(content)) for _ in range(200)] + entries_end(content)
    for cut in cuts:
        yield Case(f"{cut} bytes", **either_way("ghostnet_100", folder / "cut.ckpt", content[:cut]))


@group("bit flips", 400)
def bit_flips(rng: random.Random, folder: Path) -> Iterator[Case]:
    """Half of them in the values, half where names, types and sizes are, and in the CRC."""
    content = file_of("ghostnet_100", folder)
    heads = [at for end in (0, *entries_end(content)) for at in range(end, min(end + 60, len(content)))]
    for number in range(400):
        at, bit = (rng.randrange(len(content)) if number % 2 else rng.choice(heads)), rng.randrange(8)
        damaged = bytearray(content)
        damaged[at] ^= 1 << bit
        yield Case(f"byte {at}, bit {bit}", **either_way("ghostnet_100", folder / "flipped.ckpt", bytes(damaged)))


# --- Crafted files


CRAFTED = {
    "empty": b"",
    "text": b"not a checkpoint at all, just text\n" * 9,
    "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "claims 2^80 numbers": entry(dims=(1 << 40, 1 << 40)),
    "claims 37 GB": entry(dims=(100_000, 100_000)),
    "a negative size": entry(dims=(-2,)),
    "more numbers than bytes": entry(dims=(3,)),
    "fewer numbers than bytes": entry(dims=(1,)),
    "no size": entry(dims=()),
    "99 dimensions": entry(dims=(1,) * 99, content=b"\0" * 4),
    "sizes beside a zero": entry(dims=(0, 1 << 62, 1 << 62), content=b""),
    "an unknown type": entry(kind="Float31"),
    "no type": entry(kind=""),
    "text in place of numbers": entry(kind="str"),
    "NaN": entry(content=np.array([1, np.nan], np.float32).tobytes()),
    "a name that is none": entry(name="w\x1b[2J\n"),
    "a wrong CRC": entry() + b"crc_num" + b"\0" * 10,
    "a message that ends early": entry()[:-3],
    "safetensors: too few bytes": safetensors({"w": ("F32", [2], 0, 8)}, b"\0" * 7),
    "safetensors: too many bytes": safetensors({"w": ("F32", [2], 0, 8)}, b"\0" * 9),
    "safetensors: a wrong shape": safetensors({"w": ("F32", [3], 0, 8)}),
    "safetensors: 2^65 numbers": safetensors({"w": ("F32", [1 << 62, 8], 0, 8)}),
    "safetensors: overlapping": safetensors({"w": ("F32", [2], 0, 8), "v": ("F32", [2], 0, 8)}),
    "safetensors: before the beginning": safetensors({"w": ("F32", [2], -8, 0)}),
    "safetensors: a header of 2^62 bytes": safetensors({"w": ("F32", [2], 0, 8)}, length=1 << 62),
    "safetensors: infinity": safetensors({"w": ("F32", [2], 0, 8)}, b"\0\0\x80\x7f" * 2),
    "a pickle": b"\x80\x04\x95\x0a\0\0\0\0\0\0\0\x8c\x02os\x8c\x06system\x93.",
}


class _One(nn.Cell):
    """A network with the one parameter that the crafted files have."""

    def __init__(self) -> None:
        super().__init__()
        self.w = ms.Parameter(Tensor(np.ones(2, np.float32)), name="w")


@group("crafted weight files", 26)
def crafted(rng: random.Random, folder: Path) -> Iterator[Case]:
    for number, (name, content) in enumerate(CRAFTED.items()):
        ending = "safetensors" if name.startswith("safetensors") else "ckpt"
        path = folder / f"crafted{number}.{ending}"

        def ours(path: Path = path, content: bytes = content) -> None:
            path.write_bytes(content)
            cell = _One()
            try:
                fill_network(cell, path, stem="stem", classifier="classifier")
            finally:
                assert cell.w.asnumpy().tolist() == [1, 1], "the network was changed"
            raise AssertionError("accepted")

        def stock(path: Path = path, content: bytes = content, kind: str = ending) -> None:
            path.write_bytes(content)
            ms.load_param_into_net(_One(), ms.load_checkpoint(str(path), format=kind), strict_load=True)
            raise AssertionError("accepted")

        yield Case(name, ours, str(path), stock)


# --- Weights of another network


def mismatches() -> dict[str, Callable[[Arrays], Arrays]]:
    """What is done to the right weights."""
    kernel, norm, last = "conv_stem.weight", "bn1.gamma", "classifier.weight"

    def without(*names: str) -> Callable[[Arrays], Arrays]:
        return lambda arrays: {name: array for name, array in arrays.items() if name not in names}

    def put(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], Arrays]:
        return lambda arrays: arrays | {name: change(arrays[name])}

    def every(change: Callable[[str, np.ndarray], tuple[str, np.ndarray]]) -> Callable[[Arrays], Arrays]:
        return lambda arrays: dict(change(name, array) for name, array in arrays.items())

    return {
        "without the stem": without(kernel),
        "without a batch norm's scale": without(norm),
        "without running statistics": lambda arrays: {n: a for n, a in arrays.items() if "moving_" not in n},
        "without the classifier": without(last, "classifier.bias"),
        "the classifier alone": lambda arrays: {last: arrays[last]},
        "one more parameter": lambda arrays: arrays | {"blocks.99.weight": arrays[last]},
        "a transposed classifier": put(last, lambda array: np.ascontiguousarray(array.T)),
        "a stem of one channel": put(kernel, lambda array: array[:, :1]),
        "a stem of four channels": put(kernel, lambda array: np.concatenate([array, array[:, :1]], 1)),
        "a stem with a larger kernel": put(kernel, lambda array: np.pad(array, ((0, 0), (0, 0), (1, 1), (1, 1)))),
        "ten classes": lambda a: a | {last: a[last][:10], "classifier.bias": a["classifier.bias"][:10]},
        "a flat classifier": put(last, lambda array: array.reshape(-1)),
        "a number for a vector": put(norm, lambda array: array[0].reshape(())),
        "an empty array": put(norm, lambda array: array[:0]),
        "whole numbers": put(norm, lambda array: array.astype(np.int32)),
        "truth values": put(norm, lambda array: array > 0),
        "names in a wrapper": every(lambda name, array: (f"module.{name}", array)),
        "names of another wrapper": every(lambda name, array: (f"backbone.net.{name}", array)),
        "names in capitals": every(lambda name, array: (name.upper(), array)),
        "an optimizer's state": every(lambda name, array: (f"moments.{name}", array)),
        "another width": lambda _: arrays_of(network("ghostnet_050")),
        "another family": lambda _: arrays_of(network("ghostnetv2_100")),
        "float64": every(lambda name, array: (name, array.astype(np.float64))),
        "another order": lambda arrays: dict(reversed(arrays.items())),
    }


@group("mismatched weights", 24)
def mismatched(rng: random.Random, folder: Path) -> Iterator[Case]:
    """Of both kinds of files; the last two fit, and so do two with the prefix of a wrapper."""
    right = other_values("ghostnet_100")
    for number, (name, change) in enumerate(mismatches().items()):
        path = folder / f"other{number}.{'ckpt' if number % 2 else 'safetensors'}"

        def content(change: Callable[[Arrays], Arrays] = change, path: Path = path) -> bytes:
            arrays = change(right)
            if path.suffix == ".ckpt":
                weights_file.write(path, arrays)
                intact.sidecar(path).unlink()
                return path.read_bytes()
            return safetensors_file.encode(arrays)

        def stock(content: Callable[[], bytes] = content, path: Path = path) -> None:
            made = content()
            path.write_bytes(made)
            cell = network("ghostnet_100")
            parameters = ms.load_checkpoint(str(path), format=path.suffix[1:])
            ms.load_param_into_net(cell, parameters, strict_load=True)
            assert_holds(cell, right)

        def ours(content: Callable[[], bytes] = content, path: Path = path) -> None:
            load_ours("ghostnet_100", path, content(), right)

        yield Case(name, ours, str(path), stock)


# --- Exported files


WEIGHT = np.linspace(-1, 1, 8 * 16, dtype=np.float32).reshape(8, 16)
INPUT = np.linspace(-2, 2, 2 * 16, dtype=np.float32).reshape(2, 16)


def export_tiny(path: Path) -> None:
    """A file of a dense layer, in the format of its ending."""
    if path.suffix == ".mindir":
        dense = nn.Dense(16, 8, weight_init=Tensor(WEIGHT), has_bias=False)
        ms.export(dense, Tensor(INPUT), file_name=str(path), file_format="MINDIR")
        return
    node = helper.make_node("Gemm", ["image", "weight"], ["logits"], transB=1)
    ends = [helper.make_tensor_value_info(n, 1, shape) for n, shape in (("image", [2, 16]), ("logits", [2, 8]))]
    graph = helper.make_graph([node], "tiny", ends[:1], ends[1:], [numpy_helper.from_array(WEIGHT, "weight")])
    # An older version of the format: ONNX Runtime is often behind onnx.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def assert_right(logits: np.ndarray) -> None:
    assert np.allclose(logits, INPUT @ WEIGHT.T, rtol=1e-4, atol=1e-4), "other logits, and nobody says so"


def damage(good: bytes, rng: random.Random) -> Iterator[bytes]:
    """The file itself, then with a bit flipped, then cut."""
    yield good
    for _ in range(40):
        flipped = bytearray(good)
        flipped[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
        yield bytes(flipped)
    for _ in range(20):
        yield good[: rng.randrange(len(good))]


@group("exported files without a sha256", 120)
def unchecked(rng: random.Random, folder: Path) -> Iterator[Case]:
    """The same files alone, run as `mindghost predict` runs them.

    What a flipped bit makes of a weight is a weight as well: other logits are no error if it was said that the values
    were not checked.
    """
    config = Config(num_classes=8)
    for kind in (".mindir", ".onnx"):
        path = folder / f"alone{kind}"
        assert attempt(lambda path=path: export_tiny(path), seconds=120) == ("ok", "")
        good = path.read_bytes()
        for number, damaged in enumerate(damage(good, rng)):

            def ours(path: Path = path, good: bytes = good, damaged: bytes = damaged) -> None:
                path.write_bytes(damaged)
                said = io.StringIO()
                logging.getLogger("mindghost").addHandler(logging.StreamHandler(said))
                logging.getLogger("mindghost").setLevel(logging.INFO)
                run = open_network(deployment.Deployment(path, config, tuple("abcdefgh"), 2))
                logits = run(INPUT)
                assert np.isfinite(logits).all()
                assert "the values of its weights were not" in said.getvalue()
                if damaged == good:
                    assert_right(logits)

            yield Case(f"{kind} {number}", ours, str(path))


@group("damaged exported files", 120)
def exported(rng: random.Random, folder: Path) -> Iterator[Case]:
    """Real MindIR and ONNX files, their sha256 beside them as an export leaves it; one of each is undamaged."""
    for kind in (".mindir", ".onnx"):
        path = folder / f"network{kind}"
        # In a process of its own: a process that has compiled something is a bad one to fork.
        assert attempt(lambda path=path: export_tiny(path), seconds=120) == ("ok", "")
        good = path.read_bytes()
        for number, damaged in enumerate(damage(good, rng)):

            def ours(path: Path = path, good: bytes = good, damaged: bytes = damaged) -> None:
                intact.write_with_sidecar(path, good)
                path.write_bytes(damaged)
                try:
                    run = formats.of(path).network(path)
                except UserError as error:
                    if damaged == good:
                        raise AssertionError(f"a good file is refused: {error}") from error
                    raise
                assert damaged == good, "accepted"
                assert_right(run(INPUT))

            def stock(path: Path = path, damaged: bytes = damaged) -> None:
                path.write_bytes(damaged)
                if path.suffix == ".onnx":
                    logits = onnxruntime.InferenceSession(str(path)).run(None, {"image": INPUT})[0]
                else:
                    logits = nn.GraphCell(ms.load(str(path)))(Tensor(INPUT)).asnumpy()
                assert_right(logits)

            yield Case(f"{kind} {number}", ours, str(path), stock)
