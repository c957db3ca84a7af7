"""A run with a short network, and what is exported from it."""

import shutil
from pathlib import Path

import pytest

from mindghost.deploy import export
from mindghost.inference import artifact
from tests.helpers import short
from tests.helpers.exported_files import KEYS
from tests.helpers.pictures import write_images
from tests.helpers.trained import CLASSES, write_run


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A run, its images in `images`, and what is exported from it: any number of images, and two at once."""
    folder = tmp_path_factory.mktemp("made")
    write_images(folder / "images", CLASSES, 2, 2)
    with short.network():
        path = write_run(folder / "run", data_dir=str(folder / "images"), num_parallel_workers=1, **KEYS)
        for kinds, batch, name in ((export.USUAL, None, "any"), (("onnx",), 2, "two")):
            export.export(artifact.of_file(path), kinds, folder / name, batch)
    return folder


@pytest.fixture(params=[".onnx", ".mindir"])
def file(made, tmp_path, request) -> Path:
    """A copy of a file for any number of images, without its sha256, its description inside."""
    return Path(shutil.copy(made / "any" / f"ghostnet_050_best{request.param}", tmp_path / f"file{request.param}"))


@pytest.fixture
def files(made, tmp_path) -> list[Path]:
    """A copy of each."""
    endings = (".onnx", ".mindir")
    return [Path(shutil.copy(made / "any" / f"ghostnet_050_best{end}", tmp_path / f"file{end}")) for end in endings]
