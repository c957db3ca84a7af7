"""The same images as tar and parquet files, and what is asked of both."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path


def tar(
    path: Path, members: Iterable[tuple[str, bytes | str | tarfile.TarInfo]], form: int = tarfile.PAX_FORMAT
) -> Path:
    """A tar file of (path, content); a `TarInfo` stands for a member that is no file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                archive.addfile(content)
                continue
            content = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def image_files(folder: Path) -> list[tuple[str, bytes]]:
    """(path below the folder, content) of all files in it, sorted."""
    return [(str(file.relative_to(folder)), file.read_bytes()) for file in sorted(folder.rglob("*")) if file.is_file()]


def webdataset(path: Path, folder: Path, files: Iterable[tuple[str, bytes]], numbers: bool = True) -> Path:
    """Images with `KEY.cls` beside them: the number of their class in `folder`, or its name."""
    classes = sorted(entry.name for entry in folder.iterdir())
    members: list[tuple[str, bytes | str]] = []
    for name, content in files:
        label = name.split("/")[0]
        members += [
            (name, content),
            (f"{name.rpartition('.')[0]}.cls", str(classes.index(label)) if numbers else label),
        ]
    return tar(path, members)


def parquet(path: Path, columns: dict[str, list], features: dict | None = None, group: int = 4, **options) -> Path:
    """A parquet file, with what Hugging Face notes of its columns; `options` are `write_table`'s."""
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table(columns)
    if features is not None:
        noted = {"info": {"features": features}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(noted)})
    pyarrow.parquet.write_table(table, path, row_group_size=group, **options)
    return path


IMAGE = {"_type": "Image"}


def huggingface(path: Path, folder: Path, files: Iterable[tuple[str, bytes]], group: int = 4, **options) -> Path:
    """Images as `datasets` writes an image folder: paths are those of the files alone, images are as they are."""
    files = list(files)
    classes = sorted(entry.name for entry in folder.iterdir())
    images = [{"bytes": content, "path": name.rpartition("/")[2]} for name, content in files]
    labels = [classes.index(name.split("/")[0]) for name, _ in files]
    features = {"image": IMAGE, "label": {"names": classes, "_type": "ClassLabel"}}
    options = {"compression": "none", "use_dictionary": False, **options}
    return parquet(path, {"image": images, "label": labels}, features, group, **options)
