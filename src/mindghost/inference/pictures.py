"""The files that prediction leaves of images: annotated pictures and masks, called by the stems of the images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from .. import tasks
from ..errors import UserError
from ..files import outputs, paths
from ..files.outputs import Output
from .deployment import Deployment
from .predictor import Prediction
from .sources import is_video, picture_name

# What `mindghost predict` is called in files that it writes; the second is its name of the past.
MARKS = ("predict", "predict.py")


class Pictures:
    """Writes the annotated picture of each image, and its mask, as PNG files.

    Of two images with one stem, the second's files get a number: `a.png`, `a_2.png`.

    Args:
        deployed: the network.
        images: that will be predicted, in their order (of `sources.expand`); none of them is ever replaced.
        save_dir: folder of the annotated pictures; None: none are made.
        mask_dir: folder of the masks; None: none are made.
        overwrite: replace files that are there, also those that prediction did not make.

    Raises UserError where a folder holds a file of somebody else's by one of the names.
    """

    def __init__(
        self,
        deployed: Deployment,
        images: Sequence[str],
        save_dir: Path | None,
        mask_dir: Path | None,
        overwrite: bool = False,
    ) -> None:
        self._task = tasks.of(deployed.config)
        if mask_dir and not self._task.is_dense:
            raise UserError(
                f"--mask_dir: task {self._task.name} says nothing of single pixels; leave it out, or give weights of "
                "task segmentation"
            )
        if mask_dir and save_dir and paths.real(mask_dir) == paths.real(save_dir):
            raise UserError(
                f"--mask_dir: {mask_dir} is --save_dir, too, and the files have equal names; give another one"
            )
        self._colors = deployed.colors
        self._folders = {"--save_dir": save_dir, "--mask_dir": mask_dir}
        self._overwrite, self._read = overwrite, outputs.identities(images)
        self._taken: set[str] = set()
        self._check(images)

    def _check(self, images: Sequence[str]) -> None:
        """See before the work that files can be written; what a video's frames are called comes with them."""
        taken: set[str] = set()
        names = [picture_name(image, taken) for image in images if not is_video(image)]
        for option, folder in self._folders.items():
            if folder and paths.is_folder(folder):
                for name in names:
                    self._output(folder / name, option).check()

    def write(self, prediction: Prediction) -> Path | None:
        """Write what belongs to a prediction, all of which have to come, in their order.

        Returns the path of its mask, if that was written. Raises UserError and RunError as `outputs.Output.write`.
        """
        # One that cannot be read has its name, too: another run, that can read it, gives all others the same.
        name = picture_name(prediction.image, self._taken)
        if prediction.pixels is None:
            return None
        mask, colors = prediction.mask, self._colors
        if self._folders["--save_dir"]:
            picture = self._task.draw(prediction.pixels, prediction.answers, mask, colors)
            self._save(picture, name, "--save_dir")
        if not self._folders["--mask_dir"] or mask is None or colors is None:
            return None
        return self._save(self._task.picture_of(mask, colors), name, "--mask_dir")

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
    picture.save(content, "PNG")
    output.write(outputs.mark_png(content.getvalue(), MARKS[0]))
