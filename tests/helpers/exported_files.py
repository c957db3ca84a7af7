"""Exported files, changed: their descriptions and their graphs."""

from pathlib import Path

import onnx
import pytest
from mindspore.train.mind_ir_pb2 import ModelProto

from mindghost.errors import UserError
from mindghost.inference import artifact
from mindghost.inference.formats import ENTRY

KEYS = {"model": "ghostnet_050", "image_resize": 32, "crop_pct": 0.8, "mean": (120.0, 110.0, 100.0), "batch_size": 4}


def changed(path: Path, change_description=None, change_graph=None, drop_description=False) -> None:
    """Change a file's description, or its graph."""
    model = onnx.ModelProto() if path.suffix == ".onnx" else ModelProto()
    model.ParseFromString(path.read_bytes())
    if drop_description:
        model.ClearField("metadata_props" if path.suffix == ".onnx" else "user_info")
    if change_graph:
        change_graph(model.graph)
    if change_description:
        entries = model.metadata_props if path.suffix == ".onnx" else model.user_info
        text = next(e.value for e in entries if e.key == ENTRY) if path.suffix == ".onnx" else entries[ENTRY]
        changed_text = change_description(text)
        if path.suffix == ".onnx":
            next(e for e in entries if e.key == ENTRY).value = changed_text
        else:
            entries[ENTRY] = changed_text
    path.write_bytes(model.SerializeToString())


def refusal(file: Path) -> str:
    """The line about a file that is refused before it runs."""
    with pytest.raises(UserError) as caught:
        artifact.of_file(file)
    message = str(caught.value)
    assert message.startswith(f"{file.with_suffix('')}.")
    assert len(message.splitlines()) == 1
    assert len(message) < 600
    return message
