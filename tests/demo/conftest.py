"""A run with a short network, images, an index of them, an exported file."""

from pathlib import Path

import pytest

from mindghost.deploy import export
from mindghost.inference import artifact
from mindghost.search import index as indices
from mindghost.search import reading
from mindghost.search.embed import Embedder
from tests.helpers import short
from tests.helpers.pictures import write_images
from tests.helpers.trained import CLASSES, write_run

KEYS = {"model": "ghostnet_050", "image_resize": 64, "crop_pct": 0.8, "num_parallel_workers": 1}


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A folder: `run`, `D` with images, `i.index` of those of validation."""
    folder = tmp_path_factory.mktemp("demo")
    write_images(folder / "D", CLASSES, 1, 2)
    with short.network():
        path = write_run(folder / "run", **KEYS)
        deployed = artifact.of_file(path)
        samples = reading.opened([str(folder / "D" / "val")], deployed.config)
        vectors, _ = Embedder.open(deployed, 6).vectors(samples)
        indices.build(folder / "i.index", vectors)
    return folder


@pytest.fixture(scope="session")
def exported(made) -> Path:
    """An ONNX file of the run, with embeddings."""
    pytest.importorskip("onnx")
    with short.network():
        export.export(
            artifact.of_file(made / "run" / "ghostnet_050_best.ckpt"), ("onnx",), made / "onnx", embedding=True
        )
    return made / "onnx" / "ghostnet_050_best.onnx"
