"""What every format of exported files answers: what is in a file, read without trust, and who runs it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import UserError
from ...files import intact

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Images (N, channels, height, width) float32 -> logits (N, classes), of pixels (N, classes, height, width), float32.
Network = Callable[["NDArray[Any]"], "NDArray[Any]"]
# The entry of an exported file that holds its description.
ENTRY = "ghostnet"
# Of a description: suffix of a file that lies beside the one that is named -> its sha256.
_PARTS = "parts"


@dataclass(frozen=True)
class Step:
    """How int8 stands for numbers: a number is `scale` times what an integer is above `zero`.

    Attributes:
        scale: of a step from an integer to the next, above 0.
        zero: the integer that stands for 0.
    """

    scale: float
    zero: int

    def integers(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """The nearest integers, int8, for float32 numbers of any shape."""
        import numpy as np

        return np.clip(np.rint(numbers / np.float32(self.scale)) + self.zero, -128, 127).astype(np.int8)

    def numbers(self, integers: NDArray[Any]) -> NDArray[Any]:
        """The numbers, float32, that int8 stands for."""
        import numpy as np

        return (integers.astype(np.float32) - np.float32(self.zero)) * np.float32(self.scale)


@dataclass(frozen=True)
class End:
    """An input or output of a graph.

    Attributes:
        name: in the graph.
        kind: "float32", or another type by its format's word.
        shape: sizes; None for one that is open, or where the format says none at all.
        step: of one in int8 that stands for numbers.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...] | None
    step: Step | None = None


@dataclass(frozen=True)
class Graph:
    """What an exported file says of itself: its inputs and outputs, and its description (None: it carries none)."""

    inputs: tuple[End, ...]
    outputs: tuple[End, ...]
    description: str | None


class Format(ABC):
    """A format of exported files.

    Attributes:
        name: for people and for `mindghost export --format`.
        suffix: of the file that is named to open a network.
        infix: what stands before the suffix in names that an export gives.
        others: suffixes of the files that lie beside it, under the same stem.
        runtime: what runs it.
        has_names: its files keep the names of inputs and outputs.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    infix: ClassVar[str] = ""
    others: ClassVar[tuple[str, ...]] = ()
    runtime: ClassVar[str]
    has_names: ClassVar[bool] = True

    def parts(self, path: Path) -> list[Path]:
        """All files that make one up, but descriptions and digests; `path` is the one that is named."""
        return [path, *(path.with_suffix(suffix) for suffix in self.others)]

    def description_beside(self, path: Path) -> Path:
        """Where the description of a file lies, in readable form."""
        return path.with_suffix(".json")

    def bound(self, description: Mapping[str, Any], contents: Sequence[bytes]) -> dict[str, Any]:
        """A description of these files, in the order of `parts`: it says which others belong to the one that is named.

        Each has a digest of its own beside it, which goes where it goes: they alone would not tell it from another's.
        """
        digests = {s: hashlib.sha256(content).hexdigest() for s, content in zip(self.others, contents[1:], strict=True)}
        own = {key: value for key, value in description.items() if key != _PARTS}
        return {**own, _PARTS: digests} if digests else own

    def check_bound(self, path: Path, description: Mapping[str, Any]) -> None:
        """Raise UserError where a file beside `path` is not that of its description; older ones say nothing of them."""
        if _PARTS not in description:
            return
        digests = description[_PARTS]
        for part in self.parts(path)[1:]:
            wanted = digests.get(part.suffix) if isinstance(digests, dict) else None
            if hashlib.sha256(intact.read_intact(part)).hexdigest() != wanted:
                raise UserError(
                    f"{part}: not the file that {path.name} was written with (its sha256 is another one); copy all "
                    "files of an export together, or export it again"
                )

    @abstractmethod
    def read(self, path: Path) -> Graph:
        """What is in a file. Raises UserError where it is damaged, or a library is missing."""

    @abstractmethod
    def network(self, path: Path, threads: int = 0) -> Network:
        """What a file computes, on the CPU with some threads (0: one a core).

        Raises UserError where the file or the library is not fit, or the file is not the one whose sha256 is beside it.
        """

    def embedding(self, path: Path, threads: int = 0) -> Network:
        """As `network`, of the second output, `embedding`. Raises UserError for a format without such files, too."""
        raise UserError(f"{path}: {self.name} files carry no embedding; give the .onnx, .mindir or .ckpt file")

    def cannot_load(self, path: Path, error: Exception) -> UserError:
        """The error for a file that the runtime refuses."""
        return UserError(f"{path}: {self.runtime} cannot load it ({in_short(error)}); export it again")

    def cannot_run(self, path: Path, error: Exception) -> UserError:
        """The error for a file that the runtime has loaded, and fails at."""
        return UserError(f"{path}: {self.runtime} cannot run it ({in_short(error)}); export it again")


def in_short(error: Exception) -> str:
    """An error of a library, in a line that is not too long."""
    return " ".join(str(error).split())[:200]
