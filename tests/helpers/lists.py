"""List files of the images in class folders, their lines shuffled, in each form that is read."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

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
