"""List files of the images in class folders, shuffled, in each form that is read; and what is asked of lists."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mindghost.config import Config
from mindghost.data.dataset import open_split
from mindghost.errors import UserError
from tests.helpers.data_folders import config_for, message_of
from tests.helpers.pictures import save_image

Pairs = Sequence[tuple[str, str]]  # path, name of the class


def pairs(folder: Path, below: Path | None = None) -> list[tuple[str, str]]:
    """Path (below `below`) and class of the images in a folder of class folders, in no order."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    found = [(str(file.relative_to(below or folder)), file.relative_to(folder).parts[0]) for file in files]
    return random.Random(1).sample(found, len(found))


def text(rows: Pairs) -> bytes:
    return "".join(f"{path} {name}\n" for path, name in rows).encode()


def tabs(rows: Pairs) -> bytes:
    return "\n".join(f"{path}\t{name}" for path, name in rows).encode()


def numbers(rows: Pairs) -> bytes:
    """As text, with the places of the sorted names."""
    names = sorted({name for _, name in rows})
    return "".join(f"./{path} {names.index(name)}\r\n" for path, name in rows).encode()


def table(rows: Pairs) -> bytes:
    return "".join(["path,label\n", *(f"{path},{name}\n" for path, name in rows)]).encode()


def excel(rows: Pairs) -> bytes:
    """As a spreadsheet writes it in Europe: a mark, semicolons, CRLF, quotes, other names, more columns, blank rows."""
    content = io.StringIO()
    writer = csv.writer(content, delimiter=";", quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(["Remark", "Class Name", "FileName"])
    writer.writerows([f'say "{name}"; or not', name, path] for path, name in rows)
    return content.getvalue().encode("utf-8-sig") + b";;\r\n\r\n"


def tsv(rows: Pairs) -> bytes:
    return "".join(["label\timage\n", *(f"{name}\t{path}\n" for path, name in rows)]).encode()


def json_lines(rows: Pairs) -> bytes:
    return "".join(json.dumps({"label": name, "file_name": path}) + "\n" for path, name in rows).encode()


FORMS: dict[str, tuple[str, Callable[[Pairs], bytes]]] = {
    "text": ("txt", text),
    "tabs": ("lst", tabs),
    "csv": ("csv", table),
    "excel": ("csv", excel),
    "tsv": ("tsv", tsv),
    "json lines": ("jsonl", json_lines),
    "json lines by content": ("txt", json_lines),
    "csv by content": ("txt", table),
}


def names(samples) -> list[str]:
    """What each sample is called."""
    return [samples.name(index) for index in range(len(samples))]


def listed(
    root: Path, content: str | bytes, name: str = "train.txt", images=("a.png", "b.png", "c.png"), **keys
) -> Config:
    """A configuration of a list beside some images."""
    for value, image in enumerate(images):
        save_image(root / image, value)
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return config_for(root, train_list=str(root / name), **keys)


def assert_refused(config, *parts, split: str = "train", classes=None, **keys) -> str:
    """Opening a split is refused in one line that has these parts."""
    with pytest.raises(UserError) as caught:
        open_split(config, split, classes, **keys)
    return message_of(caught, *parts)
