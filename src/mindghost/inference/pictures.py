"""The files that prediction leaves of images: annotated pictures, masks, maps; called by the stems of the images."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .. import tasks
from ..data import transforms
from ..errors import UserError
from ..files import outputs, paths
from ..files.outputs import Output
from ..tasks import heat
from .deployment import Deployment
from .predictor import Prediction
from .sources import is_video, picture_name

# What `mindghost predict` is called in files that it writes; the second is its name of the past.
MARKS = ("predict", "predict.py")


@dataclass(frozen=True)
class Written:
    """The files of an image that its line names; None for those that were not written."""

    mask: Path | None = None
    explanation: Path | None = None


class Pictures:
    """Writes the annotated picture of each image, its mask, and where the network saw its class, as PNG files.

    Of two images with one stem, the second's files get a number: `a.png`, `a_2.png`.

    Args:
        deployed: the network.
        images: that will be predicted, in their order (of `sources.expand`); none of them is ever replaced.
        save_dir: folder of the annotated pictures; None: none are made.
        mask_dir: folder of the masks; None: none are made.
        explain_dir: folder of the images with `Prediction.heat` over them; None: none are made.
        overwrite: replace files that are there, also those that prediction did not make.

    Raises UserError where a folder holds a file of somebody else's by one of the names.
    """

    def __init__(
        self,
        deployed: Deployment,
        images: Sequence[str],
        save_dir: Path | None,
        mask_dir: Path | None,
        explain_dir: Path | None = None,
        overwrite: bool = False,
    ) -> None:
        self._task = tasks.of(deployed.config)
        if mask_dir and not self._task.is_dense:
            raise UserError(
                f"--mask_dir: task {self._task.name} says nothing of single pixels; leave it out, or give weights of "
                "task segmentation"
            )
        self._colors, self._config = deployed.colors, deployed.config
        self._folders = {"--save_dir": save_dir, "--mask_dir": mask_dir, "--explain": explain_dir}
        self._check_folders()
        self._overwrite, self._read = overwrite, outputs.identities(images)
        self._taken: set[str] = set()
        self._check(images)

    def _check_folders(self) -> None:
        """Raise UserError where one folder is to hold two kinds of files, whose names are equal."""
        given = {option: folder for option, folder in self._folders.items() if folder}
        for (option, folder), (other, second) in itertools.combinations(given.items(), 2):
            if paths.real(folder) == paths.real(second):
                raise UserError(f"{other}: {second} is {option}, too, and the files have equal names; give another one")

    def _check(self, images: Sequence[str]) -> None:
        """See before the work that files can be written; what a video's frames are called comes with them."""
        taken: set[str] = set()
        names = [picture_name(image, taken) for image in images if not is_video(image)]
        for option, folder in self._folders.items():
            if folder and paths.is_folder(folder):
                for name in names:
                    self._output(folder / name, option).check()

    def write(self, prediction: Prediction) -> Written:
        """Write what belongs to a prediction, all of which have to come, in their order.

        Returns what was written. Raises UserError and RunError as `outputs.Output.write`.
        """
        # One that cannot be read has its name, too: another run, that can read it, gives all others the same.
        name = picture_name(prediction.image, self._taken)
        if prediction.pixels is None:
            return Written()
        mask, colors = prediction.mask, self._colors
        if self._folders["--save_dir"]:
            picture = self._task.draw(prediction.pixels, prediction.answers, mask, colors)
            self._save(picture, name, "--save_dir")
        saved_mask, explanation = None, None
        if self._folders["--mask_dir"] and mask is not None and colors is not None:
            saved_mask = self._save(self._task.picture_of(mask, colors), name, "--mask_dir")
        if self._folders["--explain"] and prediction.heat is not None:
            box = transforms.seen_box(self._config, *prediction.pixels.shape[:2])
            drawn = Image.fromarray(heat.over(prediction.pixels, prediction.heat, box))
            explanation = self._save(drawn, name, "--explain")
        return Written(saved_mask, explanation)

    def _save(self, picture: Image.Image, name: str, option: str) -> Path:
        folder = self._folders[option]
        assert folder is not None
        paths.make_folder(folder, option)
        save(picture, self._output(folder / name, option))
        return folder / name

    def _output(self, path: Path, option: str) -> Output:
        return Output(path, option, outputs.png_of(*MARKS), self._overwrite, self._read)


def save(picture: Image.Image, output: Output) -> None:
    """Write a picture as a PNG file. Raises UserError and RunError as `outputs.Output.write`."""
    content = io.BytesIO()
    # Photos become as small as by the usual level, in a third of the time.
    picture.save(content, "PNG", compress_level=2 if picture.mode == "RGB" else 6)
    output.write(outputs.mark_png(content.getvalue(), MARKS[0]))
